//! `weir replay`, `weir suggest` and `weir check-config --replay` over a journal on disk.

use std::{fs, path::Path, process::Command, process::Output};

use weir::{
    base::{Estimate, QueryCost, time::EvalTimes},
    cost::Model,
    journal::{Basis, FOLDER, Journal, Priced, Record, Settings, SplitMode, TextKept},
    top::Top,
};

use crate::support::weir::now_ms;

fn weir(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir")).args(args).output().unwrap()
}

/// A journal of 200 queries of 100 series, and one of 5,000.
fn journal(data: &Path) {
    let settings = Settings { folder: Some(data.join(FOLDER)), size: 1 << 20, text: TextKept::Full };
    let (journal, writer) = Journal::start(settings, Top::open(None, 0)).unwrap();
    let now = now_ms();
    for i in 0..201 {
        let series = Estimate::exact(if i == 200 { 5_000 } else { 100 });
        let cost = QueryCost { series, ..QueryCost::NOTHING };
        let basis = Basis {
            model: Model::default(),
            split_above: None,
            split_mode: SplitMode::No,
            lookback_ms: 300_000,
        };
        let priced = Some(Priced {
            cost,
            parts: 1,
            whole_memory: cost.memory,
            counts: smallvec::SmallVec::default(),
            basis,
        });
        journal.write(Box::new(Record {
            at_ms: now - 60_000 + i,
            tenant: "team".to_owned().into(),
            endpoint: "query".into(),
            query: "sum(m)".to_owned().into(),
            times: Some(EvalTimes::instant(now)),
            verdict: "admitted".into(),
            outcome: "complete".into(),
            status: Some(200),
            priced,
            ..Record::default()
        }));
    }
    drop(writer);
}

#[test]
fn a_journal_is_replayed_and_suggests_limits_that_load() {
    let data = tempfile::tempdir().unwrap();
    journal(data.path());
    let folder = data.path().to_str().unwrap();
    let file = |name: &str, text: &str| {
        let path = data.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let strict = file("strict.yaml", "limits: {default: {per_query: {series: 1_000}}}");
    let good = file("good.yaml", "limits: {default: {per_query: {series: 9_000}}}");
    let suggested = weir(&["suggest", folder]);
    let patch = String::from_utf8(suggested.stdout).unwrap();
    assert!(patch.contains("\"team\":\n      per_query:\n        # would have refused 1:"), "{patch}");
    let patch = file("patch.yaml", &patch);
    let log =
        file("query.log", "{\"params\":{\"query\":\"up\",\"start\":\"1\",\"end\":\"1\",\"step\":0}}\nno\n");
    let cases: &[(&[&str], i32, &str, &str)] = &[
        (
            &["replay", "--config", &strict, folder],
            0,
            "200 would be admitted and 1 refused, 1 of which were answered",
            "",
        ),
        (&["replay", "--config", &strict, folder, "--output", "json"], 0, "\"newlyRefused\":1", ""),
        (&["replay", "--config", &strict, folder, "--output", "html"], 0, "<!doctype html>", ""),
        (&["replay", "--config", &strict, folder, "--verdicts"], 0, "\"limit\":\"weir-max-series\"", ""),
        (&["replay", "--config", &strict, folder, "--since", "1s"], 0, "Of 0 queries", ""),
        (
            &["replay", "--config", &strict, "--format", "prometheus", &log],
            0,
            "Of 1 queries",
            "1 lines are about no query",
        ),
        (&["replay", "--config", "none.yaml", folder], 64, "", "no such file"),
        (&["replay", "--config", &strict, "no-journal"], 1, "", "no-journal"),
        (&["replay", "--config", &strict, &log], 1, "", "this is not a journal of Weir"),
        (&["check-config", &good, "--replay", folder], 0, "of 201 queries it refuses none", ""),
        (&["check-config", &strict, "--replay", folder], 1, "", "1 of which were answered before"),
        (&["check-config", &patch, "--replay", folder], 1, "", "weir-max-series"),
        (&["suggest", folder, "--tenant", "other"], 0, "# No tenant has 100 answered queries.", ""),
        (&["suggest", folder, "--headroom", "1"], 64, "", "above 1"),
    ];
    for (args, code, out, err) in cases {
        let got = weir(args);
        let (stdout, stderr) = (String::from_utf8_lossy(&got.stdout), String::from_utf8_lossy(&got.stderr));
        assert_eq!(got.status.code(), Some(*code), "{args:?}: {stdout}{stderr}");
        assert!(stdout.contains(out) && stderr.contains(err), "{args:?}: {stdout}\n{stderr}");
    }
}
