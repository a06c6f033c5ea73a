//! A browser under test: headless Chromium, driven over a pipe by its DevTools protocol.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::support::real::{installed, skip};

const PROGRAM: &str = "chromium";
/// Longest wait for an answer of the browser, and for something that the page is about to do.
const SOON: Duration = Duration::from_secs(30);
/// Between two looks at the page.
const LOOK: Duration = Duration::from_millis(50);
/// The protocol takes descriptors 3 and 4; a shell gives it this process' pipes as those.
const RUN: &str = r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>&1"#;

/// A browser with one page. It ends with this value.
pub(crate) struct Browser {
    child: Child,
    input: ChildStdin,
    output: mpsc::Receiver<Value>,
    session: String,
    next: u64,
    /// Events that nobody has looked at yet.
    events: VecDeque<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts it; `None` where Chromium is not installed.
    pub(crate) async fn start(test: &str) -> Option<Self> {
        if !installed(test, &[PROGRAM]) {
            return None;
        }
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", RUN, PROGRAM])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--hide-scrollbars",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, mut out) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (said, output) = mpsc::channel(1_024);
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                // Nobody listens any more when the test is over.
                let _ = said.blocking_send(serde_json::from_slice(&message).unwrap());
                message.clear();
            }
        });
        let events = VecDeque::new();
        let mut browser =
            Self { child, input, output, session: String::new(), next: 0, events, _profile: profile };
        let page = browser.call("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach).await;
        attached["sessionId"].as_str().unwrap().clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "Log", "Network", "Audits"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        Some(browser)
    }

    /// Calls a method of the protocol and waits for its answer.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        self.input.write_all(message.to_string().as_bytes()).unwrap();
        self.input.write_all(&[0]).unwrap();
        loop {
            let answer = timeout(SOON, self.output.recv()).await.expect(method).expect("a running browser");
            if answer["id"] == self.next {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push_back(answer);
        }
    }

    /// The value of an expression, once it is there if it is a promise.
    pub(crate) async fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.call("Runtime.evaluate", params).await;
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&mut self, expression: &str) {
        let end = Instant::now() + SOON;
        while self.value(&format!("Boolean({expression})")).await != true {
            if Instant::now() > end {
                let text = self.value("document.body.innerText").await;
                panic!("{expression} did not come true:\n{}", text.as_str().unwrap_or_default());
            }
            sleep(LOOK).await;
        }
    }

    /// Opens an address and waits until its scripts run.
    pub(crate) async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url})).await;
        let here = serde_json::to_string(url).unwrap();
        self.until(&format!("location.href === new URL({here}).href && document.querySelector('.scripted')"))
            .await;
    }

    /// Clicks the first element of a selector, as a mouse does: what lies over it gets the click.
    pub(crate) async fn click(&mut self, selector: &str) {
        let selector = serde_json::to_string(selector).unwrap();
        self.until(&format!("document.querySelector({selector})?.checkVisibility()")).await;
        let at = format!(
            "(() => {{ const found = document.querySelector({selector}); found.scrollIntoView({{block: 'center'}}); \
             const box = found.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let at = self.value(&at).await;
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let params = json!({"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", params).await;
        }
    }

    /// Presses a key that is no letter.
    pub(crate) async fn press(&mut self, key: &str, code: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let text = if key == "Enter" && kind == "rawKeyDown" { "\r" } else { "" };
            let kind = if text.is_empty() { kind } else { "keyDown" };
            let params =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", params).await;
        }
    }

    /// Types into the element that has the focus.
    pub(crate) async fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// The size of the window, and whether the reader wants it dark.
    pub(crate) async fn look(&mut self, width: u32, height: u32, dark: bool) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// A picture of the window, as WebP.
    pub(crate) async fn picture(&mut self) -> Vec<u8> {
        use base64::Engine as _;
        let shot = self.call("Page.captureScreenshot", json!({"format": "webp", "quality": 70})).await;
        base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()
    }

    /// Faults since the last look: exceptions, lines of the console, violations of the policy, and requests that leave
    /// `origin`.
    pub(crate) async fn faults(&mut self, origin: &str) -> Vec<String> {
        // What was under way has been said when this is answered.
        self.value("1").await;
        self.events.drain(..).filter_map(|event| fault(&event, origin)).collect()
    }
}

fn fault(event: &Value, origin: &str) -> Option<String> {
    let params = &event["params"];
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded" | "Audits.issueAdded" => {
            Some(event.to_string())
        }
        "Network.requestWillBeSent" => {
            let url = params["request"]["url"].as_str()?;
            let is_own =
                url.strip_prefix(origin).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            (!is_own && url != "about:blank").then(|| format!("a request to {url}"))
        }
        _ => None,
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The text of axe-core, which finds what keeps people from using a page; `None` where `npm ci` was not run in
/// `tests/browser`.
pub(crate) fn axe(test: &str) -> Option<String> {
    let file =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/browser/node_modules/axe-core/axe.min.js");
    let text = std::fs::read_to_string(file).ok();
    if text.is_none() {
        skip(test, "axe-core is missing; run `npm ci` in tests/browser");
    }
    text
}
