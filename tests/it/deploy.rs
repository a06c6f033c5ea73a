//! `deploy/` agrees with itself, with the binary, with the Dockerfile and with the configuration's schema.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use weir::config;

use crate::support::sockets::client;

const CHART: &str = "deploy/helm/weir";
/// The arguments of Helm for each plain manifest. Without `--kube-version` it depends on Helm's own version.
const PLAIN: [(&str, &[&str]); 2] = [
    ("weir.yaml", &[]),
    (
        "monitoring.yaml",
        &[
            "--set",
            "serviceMonitor.enabled=true,prometheusRule.enabled=true",
            "-s",
            "templates/servicemonitor.yaml",
            "-s",
            "templates/prometheusrule.yaml",
            "-s",
            "templates/networkpolicy.yaml",
        ],
    ),
];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The objects of a plain manifest.
fn manifest(name: &str) -> Vec<Value> {
    let text = read(&format!("deploy/kubernetes/{name}"));
    text.split("\n---\n").skip(1).map(yaml).collect()
}

fn object(kind: &str) -> Value {
    let all = manifest("weir.yaml").into_iter().chain(manifest("monitoring.yaml"));
    all.into_iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn container() -> Value {
    object("Deployment")["spec"]["template"]["spec"]["containers"][0].clone()
}

fn words(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// The configuration that the ConfigMap holds.
fn configured() -> (String, config::Loaded) {
    let text = object("ConfigMap")["data"]["weir.yaml"].as_str().unwrap().to_owned();
    let loaded = config::load_text("weir.yaml", &text, &|_| None).unwrap_or_else(|report| panic!("{report}"));
    (text, loaded)
}

#[test]
fn every_object_selects_the_pods_of_the_deployment() {
    let pod = object("Deployment")["spec"]["template"]["metadata"]["labels"].clone();
    let selectors = [
        ("Deployment", "/spec/selector/matchLabels"),
        ("Service", "/spec/selector"),
        ("PodDisruptionBudget", "/spec/selector/matchLabels"),
        ("NetworkPolicy", "/spec/podSelector/matchLabels"),
    ];
    for (kind, pointer) in selectors {
        let selector = object(kind).pointer(pointer).unwrap_or(&Value::Null).clone();
        let selector = selector.as_object().unwrap_or_else(|| panic!("{kind}: {pointer}"));
        assert!(!selector.is_empty(), "{kind}");
        for (label, value) in selector {
            assert_eq!(&pod[label], value, "{kind}");
        }
    }
    let named: BTreeSet<String> = manifest("weir.yaml")
        .iter()
        .chain(&manifest("monitoring.yaml"))
        .map(|object| {
            assert!(object["apiVersion"].is_string(), "{object}");
            assert_eq!(object["metadata"]["namespace"], "monitoring", "{object}");
            object["metadata"]["name"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(named, ["weir", "weir-admin"].map(str::to_owned).into());
}

#[test]
fn ports_are_those_that_the_configuration_opens() {
    let (_, loaded) = configured();
    let container = container();
    let ports: BTreeMap<&str, u64> = container["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| (port["name"].as_str().unwrap(), port["containerPort"].as_u64().unwrap()))
        .collect();
    let (queries, admin) = (loaded.raw.server.listen.0, loaded.raw.server.admin_listen.0);
    assert_eq!(ports["queries"], u64::from(queries.port()));
    assert_eq!(ports["admin"], u64::from(admin.port()));
    assert!(queries.ip().is_unspecified() && admin.ip().is_unspecified(), "both are reached from other pods");
    // The address that clients use opens the query port alone.
    let service = manifest("weir.yaml").into_iter().find(|object| object["kind"] == "Service").unwrap();
    let open: Vec<_> = service["spec"]["ports"].as_array().unwrap().iter().collect();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0]["targetPort"], "queries");
    let policy = manifest("weir.yaml").into_iter().find(|object| object["kind"] == "NetworkPolicy").unwrap();
    let ingress = policy["spec"]["ingress"].to_string();
    assert!(ingress.contains("queries") && !ingress.contains("admin"), "{ingress}");
    let monitor = object("ServiceMonitor");
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], "admin");
    let expose: BTreeSet<String> = dockerfile("EXPOSE").split(' ').map(str::to_owned).collect();
    assert_eq!(expose, ports.values().map(ToString::to_string).collect());
}

#[test]
fn the_configuration_has_no_mistake_and_no_warning() {
    let (_, loaded) = configured();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let grace = loaded.raw.server.grace.ms().get();
    let spec = &object("Deployment")["spec"]["template"]["spec"];
    let given = spec["terminationGracePeriodSeconds"].as_u64().unwrap();
    let sleep = words(&container()["lifecycle"]["preStop"]["exec"]["command"]);
    let sleep: u64 = sleep[1].parse().unwrap();
    assert!((given - sleep) * 1_000 > grace, "{given} s, of which {sleep} are slept");
}

#[test]
fn pods_may_do_no_more_than_they_need() {
    let spec = object("Deployment")["spec"].clone();
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(pod["automountServiceAccountToken"], false);
    let container = container();
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
    assert!(container["resources"]["limits"]["memory"].is_string());
    assert!(container["resources"]["requests"]["cpu"].is_string());
    // Without a shared budget one proxy more than `replicas` would be above the database's memory.
    assert_eq!(spec["strategy"]["rollingUpdate"]["maxSurge"], 0);
    let user = pod["securityContext"]["runAsUser"].to_string();
    assert_eq!(dockerfile("USER"), format!("{user}:{user}"));
}

#[test]
fn arguments_are_those_of_the_command_line() {
    let args = words(&container()["args"]);
    let unit = read("deploy/systemd/weir.service");
    let cmd: Vec<String> = serde_json::from_str(&dockerfile("CMD")).unwrap();
    assert_eq!(args, cmd, "the image and the Deployment");
    let health = read("Dockerfile");
    let (_, health) = health.split_once("HEALTHCHECK").unwrap().1.split_once("CMD ").unwrap();
    let health: Vec<String> = serde_json::from_str(health.lines().next().unwrap()).unwrap();
    let of_unit = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        let line = line.strip_prefix("/usr/local/bin/weir ").unwrap();
        line.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    for args in [&args, &of_unit("ExecStart="), &of_unit("ExecStartPre="), &health[1..].to_vec()] {
        let help = Command::new(env!("CARGO_BIN_EXE_weir")).args([&args[0], "--help"]).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        for flag in args.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(flag.as_str()), "`weir {}` has no {flag}", args[0]);
        }
    }
    let mounts = container()["volumeMounts"].clone();
    let mounted: Vec<_> = mounts.as_array().unwrap().iter().map(|mount| &mount["mountPath"]).collect();
    assert!(mounted.contains(&&Value::from("/etc/weir")) && mounted.contains(&&Value::from("/data")));
}

/// A process that ends with the test, however that ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_binary_takes_the_configuration_and_answers_what_the_probes_ask() {
    let folder = tempfile::tempdir().unwrap();
    let (text, _) = configured();
    let file = folder.path().join("weir.yaml");
    fs::write(&file, text.replace("0.0.0.0:9099", "127.0.0.1:0").replace("0.0.0.0:9098", "127.0.0.1:0"))
        .unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"));
    child.args(["proxy", "--config"]).arg(&file).arg("--data").arg(folder.path().join("data"));
    let mut child = Ended(child.stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let listens = tokio::task::spawn_blocking(move || {
        lines.find_map(|line| Some(line.split_once("admin=")?.1.trim().to_owned()))
    });
    let admin = listens.await.unwrap().expect("it says where it listens");
    let container = container();
    let paths = ["readinessProbe", "livenessProbe"].map(|probe| container[probe]["httpGet"]["path"].clone());
    let scraped = object("ServiceMonitor")["spec"]["endpoints"][0]["path"].clone();
    for asked in paths.iter().chain([&scraped]) {
        let url = format!("http://{admin}{}", asked.as_str().unwrap());
        let answer =
            client().request(Request::get(&url).body(Full::<Bytes>::default()).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        assert_eq!(head.status, 200, "{url}");
        assert!(!body.collect().await.unwrap().to_bytes().is_empty(), "{url}");
    }
}

#[test]
fn the_unit_ends_after_the_grace_and_takes_what_it_does_not_need() {
    let unit = read("deploy/systemd/weir.service");
    let get =
        |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("{key}"));
    let stop: u64 = get("TimeoutStopSec=").parse().unwrap();
    assert!(stop * 1_000 > config::raw::Server::default().grace.ms().get());
    assert_eq!(get("RestartPreventExitStatus="), "64", "the exit code of a bad configuration");
    let yes = [
        "DynamicUser",
        "NoNewPrivileges",
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "RestrictNamespaces",
    ];
    for key in yes {
        assert_eq!(get(&format!("{key}=")), "yes");
    }
    assert_eq!(get("ProtectSystem="), "strict");
    assert_eq!(get("CapabilityBoundingSet="), "");
    let data = get("ExecStart=").split_once("--data ").unwrap().1;
    assert_eq!(data, format!("/var/lib/{}", get("StateDirectory=")));
}

#[test]
fn the_values_are_those_of_their_schema() {
    let values = yaml(&read(&format!("{CHART}/values.yaml")));
    let schema: Value = serde_json::from_str(&read(&format!("{CHART}/values.schema.json"))).unwrap();
    let mut wrong = Vec::new();
    same_keys(&values, &schema, "", &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let chart = yaml(&read(&format!("{CHART}/Chart.yaml")));
    for key in ["version", "appVersion"] {
        assert_eq!(chart[key], env!("CARGO_PKG_VERSION"), "{key}");
    }
}

/// Every value has a property and, where the schema is closed, every property a value.
fn same_keys(values: &Value, schema: &Value, at: &str, wrong: &mut Vec<String>) {
    let (Some(values), Some(properties)) = (values.as_object(), schema["properties"].as_object()) else {
        return;
    };
    if schema["additionalProperties"] != false {
        return;
    }
    for (key, value) in values {
        match properties.get(key) {
            Some(property) => same_keys(value, property, &format!("{at}.{key}"), wrong),
            None => wrong.push(format!("{at}.{key} is not in the schema")),
        }
    }
    for key in properties.keys().filter(|key| !values.contains_key(*key)) {
        // `global` is Helm's own; `claims` has no default.
        if key != "global" && key != "claims" {
            wrong.push(format!("{at}.{key} has no default"));
        }
    }
    let used: String = fs::read_dir(path(CHART).join("templates"))
        .unwrap()
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    for key in values.keys().filter(|key| at.is_empty() && !used.contains(&format!(".Values.{key}"))) {
        wrong.push(format!("{key} is used by no template"));
    }
}

#[test]
fn alerts_and_dashboards_are_those_of_the_repository() {
    let alerts = yaml(&read("dashboards/alerts.yaml"));
    assert_eq!(object("PrometheusRule")["spec"], alerts, "render deploy/kubernetes/monitoring.yaml anew");
    for name in ["alerts.yaml", "weir.json", "weir-node.json"] {
        assert_eq!(read(&format!("{CHART}/files/{name}")), read(&format!("dashboards/{name}")), "{name}");
    }
}

/// `WEIR_TEST_BLESS=1 WEIR_TEST_HELM=helm cargo test --test it deploy` writes the manifests anew.
#[test]
fn helm_renders_the_plain_manifests() {
    let Some(helm) = config::env::var("WEIR_TEST_HELM") else {
        println!("skipped: helm_renders_the_plain_manifests: WEIR_TEST_HELM names no binary");
        return;
    };
    let lint = Command::new(&helm).args(["lint", "--strict", CHART]).current_dir(path("")).output().unwrap();
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
    for (name, more) in PLAIN {
        let args = ["template", "weir", CHART, "--namespace", "monitoring", "--kube-version", "1.34.0"];
        let args: Vec<&str> = args.into_iter().chain(more.iter().copied()).collect();
        let rendered = Command::new(&helm).args(&args).current_dir(path("")).output().unwrap();
        assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
        let head = format!("# Made by `helm {}`.\n# docs/kubernetes.md says what to edit.\n", args.join(" "));
        let wanted = head + &String::from_utf8(rendered.stdout).unwrap();
        let file = format!("deploy/kubernetes/{name}");
        if config::env::var("WEIR_TEST_BLESS").is_some() {
            fs::write(path(&file), &wanted).unwrap();
        }
        assert!(read(&file) == wanted, "{file} is not what the chart makes; see the comment of this test");
    }
}

/// An instruction of the Dockerfile's last stage, without its name.
fn dockerfile(instruction: &str) -> String {
    let text = read("Dockerfile");
    let found = text.lines().filter_map(|line| line.strip_prefix(instruction)).next_back();
    found.unwrap_or_else(|| panic!("no {instruction}")).trim().to_owned()
}
