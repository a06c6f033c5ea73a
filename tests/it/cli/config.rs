//! Configuration files as data: good ones load, each bad one carries the errors it must produce in its first lines.

use std::{
    fs,
    path::{Path, PathBuf},
};
use weir::config;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == "yaml"));
    found.sort();
    found
}

fn load(path: &Path) -> Result<config::Loaded, config::Report> {
    let name = path.file_name().unwrap().to_str().unwrap();
    config::load_text(name, &fs::read_to_string(path).unwrap(), &|_| None)
}

#[test]
fn bad_files_report_every_mistake() {
    let mut wrong = Vec::new();
    let cases = files("tests/config/bad");
    assert!(cases.len() >= 20, "{} cases", cases.len());
    for path in cases {
        let text = fs::read_to_string(&path).unwrap();
        let expected: Vec<&str> =
            text.lines().map_while(|line| line.strip_prefix("# error: ")).map(str::trim_end).collect();
        let got: Vec<String> = match load(&path) {
            Ok(_) => Vec::new(),
            Err(report) => report.diagnostics.iter().map(ToString::to_string).collect(),
        };
        let met = got.len() == expected.len() && got.iter().zip(&expected).all(|(g, e)| g.contains(e));
        if !met || expected.is_empty() {
            wrong.push(format!("{}: expected {expected:#?}, got {got:#?}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn doubtful_files_load_with_a_warning_for_each_doubt() {
    let cases = files("tests/config/warned");
    assert!(cases.len() >= 2, "{} cases", cases.len());
    for path in cases {
        let text = fs::read_to_string(&path).unwrap();
        let expected: Vec<&str> =
            text.lines().map_while(|line| line.strip_prefix("# warning: ")).map(str::trim_end).collect();
        let loaded = load(&path).unwrap_or_else(|report| panic!("{report}"));
        let got: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        let met = got.len() == expected.len() && got.iter().zip(&expected).all(|(g, e)| g.contains(e));
        assert!(met, "{}: expected {expected:#?}, got {got:#?}", path.display());
    }
}

#[test]
fn good_files_load() {
    // The node's own file is read by the node.
    let samples = files("config").into_iter().filter(|path| !path.ends_with("node.yaml"));
    for path in files("tests/config/good").into_iter().chain(samples) {
        if let Err(report) = load(&path) {
            panic!("{report}");
        }
    }
}

#[test]
fn the_documented_file_is_the_defaults() {
    let mut documented = load(&root().join("config/weir.yaml")).unwrap();
    // It writes the built-in limits; a file that writes none has the same.
    documented.raw.limits.written = config::raw::TenantLimits::default();
    assert_eq!(documented.raw, config::raw::Raw::default());
    assert_eq!(documented, config::load_text("empty", "", &|_| None).unwrap());
    assert_eq!(documented.warnings, []);
}

/// `WEIR_TEST_BLESS=1 cargo test --test it schema` writes the file anew.
#[test]
fn the_schema_file_is_what_the_structs_say() {
    let path = root().join("config/weir.schema.json");
    let generated = format!("{}\n", serde_json::to_string_pretty(&config::schema()).unwrap());
    if config::env::var("WEIR_TEST_BLESS").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == generated,
        "config/weir.schema.json is not what src/config/raw.rs says; see the comment of this test"
    );
}

#[test]
fn messages_carry_file_line_and_path_and_never_a_secret() {
    let lookup = |_: &str| Some("hunter 2".to_owned());
    for (text, start) in [
        ("backends:\n  - kind: ${S}\n", "weir.yaml:2:11: backends[0].kind: `${S}`"),
        ("backends:\n  - urls: [\"ftp://${S}\"]\n", "weir.yaml:2:12: backends[0].urls[0]: `ftp://${S}`"),
        ("tenancy: {default: \"${S}\"}\n", "weir.yaml:1:20: tenancy.default: `${S}`"),
        (
            "backends: [{budget: {memory: \"${S}\"}}]\n",
            "weir.yaml:1:30: backends[0].budget.memory: expected a size such as `4GiB` or `512MB`; found `${S}` as the \
             environment fills it in",
        ),
    ] {
        let report = config::load_text("weir.yaml", text, &lookup).unwrap_err().to_string();
        assert!(report.starts_with(start), "{report}");
        assert!(!report.contains("hunter"), "{report}");
    }
}

#[test]
fn a_missing_file_says_what_to_do() {
    let report = config::load_file(Path::new("no/such/file.yaml")).unwrap_err().to_string();
    assert!(
        report.starts_with("no/such/file.yaml: no such file; `weir check-config --print-default`"),
        "{report}"
    );
}
