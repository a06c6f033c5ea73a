use super::*;
use crate::{promql::go_regex, series::MatchOp};

const SERIES: &[&[(&str, &str)]] = &[
    &[("__name__", "up"), ("job", "api"), ("instance", "a:1")],
    &[("__name__", "up"), ("job", "api"), ("instance", "b:1")],
    &[("__name__", "up"), ("job", "db")],
    &[("__name__", "requests"), ("job", "api"), ("code", "200")],
    &[("__name__", "requests"), ("job", "web\nfront"), ("code", "500")],
    &[("__name__", "requests"), ("code", "")],
];

fn index() -> Index {
    let mut index = Index::default();
    for (id, labels) in SERIES.iter().enumerate() {
        let owned: Vec<(Arc<str>, Arc<str>)> =
            labels.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        index.insert(id as u32, owned.iter().map(|(n, v)| (n, v)));
    }
    index
}

fn value_of<'a>(labels: &[(&'a str, &'a str)], name: &str) -> &'a str {
    labels.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v)
}

#[test]
fn resolves_as_a_scan_of_all_series_does() {
    let index = index();
    let values = [
        "",
        "api",
        "db",
        "ap",
        "200",
        "up",
        ".*",
        ".+",
        "a.*",
        "api|db",
        "api|",
        "(api|db)?",
        "^api$",
        "[ab]:1",
        "a.i",
        "(?i)API",
        "web.front",
        "\\bapi",
        "api\\b|db",
        "a|.*b",
        "2..",
        "x{0}",
        "()",
        "a|ab|abc.*",
        "[0-9]+",
        "\\Qapi\\E",
        "\\Qa.i\\E|db",
        "(?-s)web.front",
        "(?i:d)B",
        "[[:digit:]]{3}",
        "a{,2}|api",
        "\\x61pi",
        "\\d+",
        "[[a]pi",
    ];
    let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
    let mut all = Vec::new();
    for name in ["job", "code", "__name__", "instance", "absent"] {
        for op in ops {
            for value in values {
                let regex = go_regex::compile(value).unwrap();
                let truth = move |v: &str| match op {
                    MatchOp::Equal => v == value,
                    MatchOp::NotEqual => v != value,
                    MatchOp::Regex => regex.is_match(v),
                    MatchOp::NotRegex => !regex.is_match(v),
                };
                all.push((name, Matcher::new(name, op, value).unwrap(), truth, (op, value)));
            }
        }
    }
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..4_000 {
        let picked: Vec<_> = (0..random.usize(0..4)).map(|_| random.usize(0..all.len())).collect();
        // Each on its own first, then some together.
        let picked = if round < all.len() { vec![round] } else { picked };
        let expected: RoaringBitmap = (0..SERIES.len())
            .filter(|id| picked.iter().all(|p| (all[*p].2)(value_of(SERIES[*id], all[*p].0))))
            .map(|id| id as u32)
            .collect();
        let matchers: Vec<Matcher> = picked.iter().map(|p| all[*p].1.clone()).collect();
        let shown: Vec<_> = picked.iter().map(|p| (all[*p].0, all[*p].3)).collect();
        assert_eq!(index.resolve(&matchers), expected, "{shown:?}");
    }
}

#[test]
fn literals_and_prefixes_need_no_scan() {
    let kind = |pattern: &str| match Matcher::new("a", MatchOp::Regex, pattern).unwrap().test() {
        Test::Any => "any".to_owned(),
        Test::OneOf(set) => format!("one of {}", set.len()),
        Test::Prefixed { prefixes, .. } => format!("prefixes {}", prefixes.join(" ")),
        Test::Pattern(_) => "pattern".to_owned(),
    };
    for (pattern, expected) in [
        ("api", "one of 1"),
        ("a|b|c", "one of 3"),
        ("api-[0-9]", "one of 10"),
        ("(a|b)(c|d)?", "one of 6"),
        ("\\Qa.b\\E", "one of 1"),
        ("(?i)ab", "one of 4"),
        ("api.*", "prefixes api"),
        ("(api|db)-.+", "prefixes api- db-"),
        (".*x", "pattern"),
        (".+", "any"),
    ] {
        assert_eq!(kind(pattern), expected, "{pattern}");
    }
}

#[test]
fn bad_patterns_are_refused() {
    for pattern in ["(", "a)|(b", "[", "\\", "a{1000}{1000}{1000}"] {
        let refused = Matcher::new("a", MatchOp::Regex, pattern).unwrap_err();
        assert!(refused.0.starts_with("invalid regular expression"), "{refused}");
    }
}

#[test]
fn names_and_values_are_listed_among_series_and_up_to_a_limit() {
    let index = index();
    let some = index.resolve(&[Matcher::new("code", MatchOp::NotEqual, "").unwrap()]);
    let texts = |list: Vec<Arc<str>>| list.iter().map(|s| &**s).collect::<Vec<_>>().join(",");
    assert_eq!(texts(index.label_names(None, 9)), "__name__,code,instance,job");
    assert_eq!(texts(index.label_names(Some(&some), 9)), "__name__,code,job");
    assert_eq!(texts(index.label_names(None, 2)), "__name__,code");
    assert_eq!(texts(index.label_values("job", Some(&some), 9)), "api,web\nfront");
    assert_eq!(texts(index.label_values("job", None, 1)), "api");
    assert_eq!(texts(index.label_values("nothing", None, 9)), "");
}

#[test]
fn status_counts_and_removal_leaves_nothing() {
    let mut index = index();
    let status = index.status(None, 2);
    let shown = |list: &[Count]| list.iter().map(|c| format!("{} {}", c.key, c.count)).collect::<Vec<_>>();
    assert_eq!((status.series, status.label_pairs), (6, 9));
    assert_eq!(shown(&status.series_by_metric), ["requests 3", "up 3"]);
    assert_eq!(shown(&status.values_by_label), ["job 3", "__name__ 2"]);
    assert_eq!(shown(&status.series_by_pair), ["__name__=requests 3", "__name__=up 3"]);
    let api = index.resolve(&[Matcher::new("job", MatchOp::Equal, "api").unwrap()]);
    assert_eq!(shown(&index.status(Some(&api), 9).series_by_metric), ["up 2", "requests 1"]);
    assert!(index.status(None, 0).series_by_pair.is_empty());
    for (id, labels) in SERIES.iter().enumerate() {
        index.remove(id as u32, labels.iter().copied());
    }
    assert!(index.is_empty() && index.names.is_empty());
}
