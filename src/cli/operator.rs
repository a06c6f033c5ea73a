//! The operator's name for audit lines, where no option gives it.

use crate::config::env;

/// The name that was given, the user of this terminal, or else the number of the user on this host: in a container nothing says
/// more.
pub(super) fn name(given: &str) -> String {
    named(given, env::var)
}

fn named(given: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    let known = [Some(given.to_owned()), variable("USER"), variable("LOGNAME")];
    known.into_iter().flatten().find(|name| !name.is_empty()).unwrap_or_else(|| {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        format!("uid {} on {host}", rustix::process::getuid().as_raw())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_an_author_in_a_container_too() {
        let set = |name: &'static str| move |asked: &str| (asked == name).then(|| "ann".to_owned());
        assert_eq!(named("bob", set("USER")), "bob");
        assert_eq!(named("", set("USER")), "ann");
        assert_eq!(named("", set("LOGNAME")), "ann");
        let nobody = named("", |_| None);
        assert!(nobody.starts_with("uid ") && nobody.contains(" on "), "{nobody}");
    }
}
