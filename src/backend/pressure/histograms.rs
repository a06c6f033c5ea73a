//! Whether a Prometheus takes native histograms, by its own metrics page.

use super::page::Page;

const APPENDED: &str = "prometheus_tsdb_head_samples_appended_total";

/// Whether any replica says that it took one since it started.
pub fn takes_histograms(pages: &[Option<&str>]) -> bool {
    let takes = |page: &&str| {
        let mut by_type = Page(page).all(APPENDED);
        by_type.any(|sample| sample.label("type") == Some("histogram") && sample.value > 0.0)
    };
    pages.iter().flatten().any(takes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_took_a_histogram_says_so() {
        let page = |n: u64| format!("{APPENDED}{{type=\"float\"}} 7\n{APPENDED}{{type=\"histogram\"}} {n}\n");
        let (none, some, older) = (page(0), page(3), format!("{APPENDED} 7\n"));
        let (none, some, older) = (Some(&*none), Some(&*some), Some(&*older));
        for (pages, takes) in [
            (vec![none, None, older], false),
            (vec![none, some], true),
            (vec![None, some], true),
            (vec![], false),
        ] {
            assert_eq!(takes_histograms(&pages), takes, "{pages:?}");
        }
    }
}
