//! The binary as an operator meets it: output and exit codes.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

fn weir(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir")).args(args).output().unwrap()
}

fn file(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name).display().to_string()
}

#[test]
fn exit_codes_and_streams() {
    let (good, bad) = (file("config/weir.yaml"), file("tests/config/bad/several.yaml"));
    let node = file("config/node.yaml");
    // The discard port: nothing listens there.
    let dead = "http://127.0.0.1:9";
    let cases: &[(&[&str], i32, &str, &str)] = &[
        (&["check-config", &good], 0, "weir.yaml: good", ""),
        (
            &["check-config", &bad],
            64,
            "",
            "several.yaml:6:3: server.lisen: unknown key; did you mean `listen`?",
        ),
        (&["check-config", &node], 0, "node.yaml: good, for `weir node`", ""),
        (&["explain", "--backend", dead, "up"], 0, "Warning: the backend did not say how many series", ""),
        (&["check-config", "no/such.yaml"], 64, "", "no/such.yaml: no such file"),
        (&["check-config"], 64, "", "Usage:"),
        (&["check-confg", "x"], 64, "", "check-config"),
        (&["check-config", "--print-default"], 0, "budget:", ""),
        (&["--version"], 0, concat!("weir ", env!("CARGO_PKG_VERSION")), ""),
        (&["--help"], 0, "Exit codes:", ""),
    ];
    for (args, code, out, err) in cases {
        let got = weir(args);
        let (stdout, stderr) = (String::from_utf8_lossy(&got.stdout), String::from_utf8_lossy(&got.stderr));
        assert_eq!(got.status.code(), Some(*code), "{args:?}: {stdout}{stderr}");
        assert!(stdout.contains(out), "{args:?}: {stdout}");
        assert!(stderr.contains(err), "{args:?}: {stderr}");
        assert_eq!(err.is_empty(), stderr.is_empty(), "{args:?}: {stderr}");
    }
}
