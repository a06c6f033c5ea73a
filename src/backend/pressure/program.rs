//! The program that a metrics page is of, by the metric that names its build.

use super::page::Page;
use crate::base::Kind;

/// The metric of each program, and the kinds that it may be: Mimir kept the name of Cortex.
const BUILDS: [(&str, &[Kind]); 5] = [
    ("prometheus_build_info", &[Kind::Prometheus]),
    ("vm_app_version", &[Kind::VictoriaMetrics]),
    ("thanos_build_info", &[Kind::Thanos]),
    ("cortex_build_info", &[Kind::Cortex, Kind::Mimir]),
    ("mimir_build_info", &[Kind::Mimir]),
];

/// The kinds that a page may be of; `None` where it does not say.
pub fn kinds_of_page(page: &str) -> Option<&'static [Kind]> {
    let is_of = |(name, _): &&(&str, &[Kind])| Page(page).all(name).next().is_some();
    BUILDS.iter().find(is_of).map(|(_, kinds)| *kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_its_program() {
        for (page, kinds) in [
            ("# HELP up x\nup 1\nprometheus_build_info{version=\"3.1\"} 1\n", Some(&[Kind::Prometheus][..])),
            ("vm_app_version{version=\"victoria-metrics-2026\"} 1\n", Some(&[Kind::VictoriaMetrics])),
            ("cortex_build_info{version=\"3.0\"} 1\n", Some(&[Kind::Cortex, Kind::Mimir])),
            ("m3_prometheus_build_info_total 1\nup{job=\"vm_app_version\"} 1\n", None),
        ] {
            assert_eq!(kinds_of_page(page), kinds, "{page}");
        }
    }
}
