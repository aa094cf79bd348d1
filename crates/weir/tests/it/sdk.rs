//! The official SDKs of model providers, unchanged: scripts below `tests/sdk` put the scenarios of `scenarios.json` to them.
//!
//! Run straight against the simulator they prove that it speaks what the SDKs accept, without which nothing that is
//! proven through a gateway would count. Through a gateway that knows nothing of models they must see no difference. And
//! since the simulator is ours too, the same goes through the gateway to a provider that is not.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use simulator::{Ended, Entry, Options, Simulator};
use testkit::{Gateway, curl, eventually};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk");

/// Runs an SDK's script, where `scripts/test-setup.sh` has installed the SDK. Says whether it was there. URLs have commas
/// between them.
#[track_caller]
pub fn run(script: &str, urls: &str, model: &str, left_out: &[&str]) -> bool {
    let Some(mut command) = interpreter(script) else {
        eprintln!("left out: nothing to run {script} with; scripts/test-setup.sh installs it");
        return false;
    };
    let output = command.args([urls, model]).args(left_out).output().unwrap();
    assert!(output.status.success(), "{script} {urls} {model}:\n{}", String::from_utf8_lossy(&output.stderr));
    true
}

/// What runs a script, where `scripts/test-setup.sh` has installed what it stands on.
pub fn interpreter(script: &str) -> Option<Command> {
    let target = Path::new(ROOT).join("target");
    if script.ends_with(".py") {
        let python = target.join("test-venv/bin/python3");
        let module = script.trim_end_matches("_sdk.py");
        let module = if module == "google" { "google.genai" } else { module };
        let find = format!("import importlib.util as u; assert u.find_spec('{module}')");
        let there = Command::new(&python).args(["-c", &find]).output().is_ok_and(|output| output.status.success());
        let mut command = Command::new(python);
        command.arg("-B").arg(Path::new(SCRIPTS).join(script));
        return there.then_some(command);
    }
    let modules = target.join("test-node");
    if !modules.join("pins").exists() {
        return None;
    }
    // Node looks for packages beside the script and above it.
    let beside: PathBuf = modules.join("sdk");
    std::fs::create_dir_all(&beside).unwrap();
    for file in [script, "common.mjs", "scenarios.json"] {
        // Whole or not at all: another test may be reading it.
        let new = beside.join(format!("{file}.{}", std::process::id()));
        std::fs::copy(Path::new(SCRIPTS).join(file), &new).unwrap();
        std::fs::rename(&new, beside.join(file)).unwrap();
    }
    let mut command = Command::new("node");
    command.arg(beside.join(script));
    Some(command)
}

/// The calls of a scenario, in the provider's books.
fn of<'e>(books: &'e [Entry], tag: &str) -> Vec<&'e Entry> {
    books.iter().filter(|entry| entry.tag.as_deref() == Some(tag)).collect()
}

/// What the provider has to say of it all, after a script has run.
#[track_caller]
fn booked(provider: &Simulator, adapters: &[&str]) {
    for adapter in adapters {
        let cancelled = format!("{adapter}-cancel");
        eventually("the provider notices who leaves", || {
            of(&provider.books(), &cancelled).iter().any(|entry| entry.ended == Ended::Cancelled)
        });
        let books = provider.books();
        for (scenario, calls) in [("plain", 1), ("stream", 1), ("tools", 2), ("parallel-stream", 2), ("cached", 1)] {
            let entries = of(&books, &format!("{adapter}-{scenario}"));
            assert_eq!(entries.len(), calls, "{adapter} {scenario}: {entries:?}");
            let whole = entries.iter().all(|entry| entry.ended == Ended::Completed && entry.told);
            assert!(whole, "{adapter} {scenario}: {entries:?}");
        }
        for entry in of(&books, &format!("{adapter}-cut-stream")) {
            assert_eq!(entry.ended, Ended::Cut, "{entry:?}");
        }
    }
}

/// One provider is asked directly, one through a gateway that hands everything on.
#[track_caller]
fn scenarios(script: &str, adapters: &[&str]) {
    let (near, far) = (provider(), provider());
    let gateway = through(&far.url());
    if run(script, &format!("{},{}", near.url(), gateway.url()), "some-model", &[]) {
        booked(&near, adapters);
        booked(&far, adapters);
    }
}

fn provider() -> Simulator {
    Simulator::start(Options::provider("models")).unwrap()
}

fn through(upstream: &str) -> Gateway {
    Gateway::start(&format!("apis: {{ models: {{ upstream: '{upstream}' }} }}\n"))
}

#[test]
fn openai_for_python() {
    scenarios("openai_sdk.py", &["chat", "responses"]);
}

#[test]
fn anthropic_for_python() {
    scenarios("anthropic_sdk.py", &["messages"]);
}

#[test]
fn google_for_python() {
    scenarios("google_sdk.py", &["content"]);
}

#[test]
fn openai_for_node() {
    scenarios("openai.mjs", &["node-chat", "node-responses"]);
}

#[test]
fn anthropic_for_node() {
    scenarios("anthropic.mjs", &["node-messages"]);
}

// === A provider that is not ours ===

/// aimock, with answers to the scenarios that need no words of the simulator's.
pub struct Aimock {
    process: Child,
    pub url: String,
}

/// What it has no answer to, or none as its model has it: its responses carry no numbers of their events, and its Gemini ends
/// with a reason that Google's SDK does not know.
pub const BEYOND_AIMOCK: [&str; 17] = [
    "long-stream",
    "length",
    "length-stream",
    "cached",
    "cached-stream",
    "reasoning",
    "reasoning-stream",
    "unauthorized",
    "no-model",
    "failing-stream",
    "cut-stream",
    "cancel",
    "extras",
    "responses",
    "node-responses",
    "content tools-stream",
    "content parallel-stream",
];

impl Aimock {
    pub fn start() -> Option<Aimock> {
        let program = Path::new(ROOT).join("target/test-node/node_modules/@copilotkit/aimock/dist/cli.js");
        if !program.exists() {
            eprintln!("left out: no aimock; scripts/test-setup.sh installs it");
            return None;
        }
        let answers = Path::new(SCRIPTS).join("aimock.json");
        let mut process = Command::new("node")
            .arg(program)
            .args(["-p", "0", "--strict", "-f"])
            .arg(answers)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines.map_while(Result::ok).find_map(|line| Some(line.split_once("listening on ")?.1.to_owned()));
        Some(Aimock { process, url: url.unwrap() })
    }

    /// How many requests to paths that end so reached it, and were answered with that.
    fn journal(&self, path: &str, status: u64) -> usize {
        let journal = curl(&[&format!("{}/__aimock/journal?limit=1000", self.url)]);
        let entries: Vec<Value> = serde_json::from_slice(&journal.answer.body).unwrap();
        let ours = |entry: &&Value| {
            entry["path"].as_str().is_some_and(|it| it.ends_with(path)) && entry["response"]["status"] == status
        };
        entries.iter().filter(ours).count()
    }
}

impl Drop for Aimock {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_provider_that_is_not_ours() {
    let Some(aimock) = Aimock::start() else { return };
    let gateway = through(&aimock.url);
    let gemini = ["content tools", "content parallel"];
    let left_out = [&BEYOND_AIMOCK[..], &gemini].concat();
    for (script, path) in [
        ("openai_sdk.py", "/chat/completions"),
        ("openai.mjs", "/chat/completions"),
        ("anthropic_sdk.py", "/messages"),
        ("anthropic.mjs", "/messages"),
        ("google_sdk.py", ":generateContent"),
    ] {
        let before = [200, 429, 503, 500].map(|status| aimock.journal(path, status));
        if !run(script, &gateway.url(), "gpt-4o", &left_out) {
            continue;
        }
        let after = [200, 429, 503, 500].map(|status| aimock.journal(path, status));
        let [answered, limited, unavailable, failed] = [0, 1, 2, 3].map(|at| after[at] - before[at]);
        assert!(answered >= 3, "{script}: {answered} answered");
        assert_eq!([limited, unavailable, failed], [1; 3], "{script}");
    }
}
