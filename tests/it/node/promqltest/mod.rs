//! Tests of the engine in the language of Prometheus' promqltest: our own files, and Prometheus' where they are at hand.

mod check;
mod hostile;
mod points;
mod script;
mod skips;
mod store;
mod text;

use std::{
    fs,
    path::{Path, PathBuf},
};

use check::Outcome;
use script::Command;
use skips::SKIPS;
use store::Store;

/// The results of one file's cases.
#[derive(Debug, Default)]
struct Report {
    passed: usize,
    native: usize,
    skipped: usize,
    wrong: Vec<String>,
    /// Entries of the skip list that were needed.
    needed: Vec<usize>,
}

fn run_file(path: &Path) -> Report {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut report = Report::default();
    let commands = fs::read_to_string(path).map_err(|e| e.to_string()).and_then(|text| script::parse(&text));
    let commands = match commands {
        Ok(commands) => commands,
        Err(error) => {
            report.wrong.push(format!("{name}: {error}"));
            return report;
        }
    };
    let mut store = Store::default();
    for command in commands {
        let Command::Eval(case) = command else {
            store.apply(&command);
            continue;
        };
        let skip = SKIPS.iter().position(|(file, part, _)| *file == name && case.query.contains(part));
        match (check::run(&case, &store), skip) {
            (Outcome::Passed, None) => report.passed += 1,
            (Outcome::Passed, Some(_)) => {
                let line = case.line;
                report.wrong.push(format!("{name}:{line} passes now: take it off the skip list"));
            }
            (Outcome::Native, _) => report.native += 1,
            (Outcome::Failed(_), Some(skip)) => {
                report.skipped += 1;
                report.needed.push(skip);
            }
            (Outcome::Failed(error), None) => report.wrong.push(format!("{name}: {error}")),
        }
    }
    report
}

fn test_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "test")).collect();
    files.sort();
    files
}

#[test]
fn our_own_cases_pass() {
    let files = test_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promql"));
    assert!(!files.is_empty());
    for file in files {
        let report = run_file(&file);
        assert!(report.wrong.is_empty(), "{}", report.wrong.join("\n"));
        assert!(report.passed > 0, "{} holds no case", file.display());
    }
}

#[test]
fn cases_of_prometheus_pass() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["../shared/promqltest", "../../shared/promqltest"].map(|path| root.join(path));
    let Some(folder) = folders.iter().find(|path| path.is_dir()) else {
        println!("skipped: Prometheus' promqltest files are not at ../shared/promqltest");
        return;
    };
    let mut total = Report::default();
    for file in test_files(folder) {
        let report = run_file(&file);
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Report { passed, native, skipped, wrong, .. } = &report;
        println!("{name:28} {passed:4} passed {native:4} native {skipped:3} skipped {:3} wrong", wrong.len());
        total.passed += passed;
        total.native += native;
        total.skipped += skipped;
        total.wrong.extend(report.wrong);
        total.needed.extend(report.needed);
    }
    let held = total.passed + total.skipped + total.wrong.len();
    let rate = total.passed as f64 / held as f64 * 100.0;
    println!("{} of {held} without native histograms ({rate:.1} %), {} native", total.passed, total.native);
    for (i, (file, part, _)) in SKIPS.iter().enumerate() {
        if !total.needed.contains(&i) {
            total.wrong.push(format!("no case needs the skip {file}: {part}"));
        }
    }
    assert!(total.wrong.is_empty(), "{}", total.wrong.join("\n"));
}
