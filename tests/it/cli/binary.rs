//! The binary as an operator meets it: output and exit codes.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output},
};

fn weir(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir")).args(args).output().unwrap()
}

fn file(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name).display().to_string()
}

/// The URL of a backend that answers, and knows nothing.
fn knows_nothing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ =
                stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    url
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
        (
            &["explain", "--backend", dead, "up"],
            1,
            "",
            "http://127.0.0.1:9 could not be reached: Connection refused",
        ),
        (
            &["explain", "--backend", dead, "--file", &file("dashboards/weir.json")],
            1,
            "",
            "backend `main` did not answer",
        ),
        (&["queries", "--admin", dead], 1, "", "Weir at http://127.0.0.1:9 could not be reached"),
        (
            &["node", "--config", &good],
            64,
            "",
            "weir.yaml: this is a configuration of `weir proxy`, not of `weir node`",
        ),
        (
            &["proxy", "--config", &node],
            64,
            "",
            "node.yaml: this is a configuration of `weir node`, not of `weir proxy`",
        ),
        (
            &["rule", "add", "x", "--reason", "y", "--expires", "2h", "--action", "block"],
            64,
            "",
            "[possible values: refuse, shadow, slow, clamp]",
        ),
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

/// A setting that is not linked in is silently jemalloc's own.
#[test]
#[cfg(target_os = "linux")]
fn the_allocator_takes_its_settings() {
    let mut version = Command::new(env!("CARGO_BIN_EXE_weir"));
    let said =
        version.arg("--version").env("_RJEM_MALLOC_CONF", "confirm_conf:true").output().unwrap().stderr;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("Set conf value: narenas_ratio:1"), "{said}");
}

#[test]
fn dashboards_and_rules_are_priced_and_fail_over_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let backend = format!("backends: [{{urls: [\"{}\"]}}]\n", knows_nothing());
    let backend = backend.as_str();
    let loose = write("loose.yml", backend);
    let strict =
        write("strict.yml", &format!("{backend}limits: {{default: {{per_query: {{range: 1h}}}}}}\n"));
    let dashboard = write(
        "d.json",
        r#"{"title": "Node", "time": {"from": "now-6h", "to": "now"}, "templating": {"list": [
            {"name": "job", "multi": true, "current": {"value": ["a", "b"]}}]},
            "panels": [{"title": "CPU", "targets": [{"expr": "rate(cpu{job=~\"$job\"}[$__rate_interval])"}]}]}"#,
    );
    let rules = write("r.yaml", "groups: [{name: g, interval: 30s, rules: [{alert: Down, expr: up == 0}]}]");
    let broken = write("b.yaml", "groups: [{name: g, rules: [{alert: Bad, expr: 'up =='}]}]");
    let cases: &[(&[&str], i32, &[&str])] = &[
        (
            &["--config", &loose, "--file", &dashboard, &rules],
            0,
            &[
                "Node / CPU (over 6h, step 20s)\n  rate(cpu{job=~\"(a|b)\"}[60s])",
                "g / Down (every 30s)\n  up == 0",
                "may run",
                "0 of these would be refused",
            ],
        ),
        (
            &["--config", &strict, "--file", &dashboard],
            1,
            &["refused. the query needs 6h", "1 of these would be"],
        ),
        (&["--config", &strict, "--file", &dashboard, "--range", "30m"], 0, &["over 30m, step 15s"]),
        (
            &["--config", &strict, "--file", &dashboard, "--json"],
            1,
            &["\"admitted\":false", "\"place\":\"Node / CPU\""],
        ),
        (&["--config", &loose, "--file", &broken], 1, &["cannot be read: ", "1 of these would be"]),
        (&["--config", &loose, "--file", "no/such.json"], 64, &[]),
        (&["--config", &loose, "up", "--file", &rules], 64, &[]),
    ];
    for (args, code, wanted) in cases {
        let got = weir(&[&["explain"][..], args].concat());
        let (out, err) = (String::from_utf8_lossy(&got.stdout), String::from_utf8_lossy(&got.stderr));
        assert_eq!(got.status.code(), Some(*code), "{args:?}: {out}{err}");
        for text in *wanted {
            assert!(out.contains(text), "{args:?}: {text} in {out}{err}");
        }
    }
}
