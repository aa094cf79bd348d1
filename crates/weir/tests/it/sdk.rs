//! The official SDKs of model providers, unchanged: scripts below `tests/sdk` put the scenarios of `scenarios.json` to them.
//!
//! Run straight against the simulator they prove that it speaks what the SDKs accept, without which nothing that is
//! proven through a gateway would count.

use std::path::{Path, PathBuf};
use std::process::Command;

use simulator::{Ended, Entry, Options, Simulator};
use testkit::eventually;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk");

/// Runs an SDK's script, where `scripts/test-setup.sh` has installed the SDK. Says whether it was there.
#[track_caller]
fn run(script: &str, url: &str, model: &str, left_out: &[&str]) -> bool {
    let Some(mut command) = interpreter(script) else {
        eprintln!("left out: nothing to run {script} with; scripts/test-setup.sh installs it");
        return false;
    };
    let output = command.args([url, model]).args(left_out).output().unwrap();
    assert!(output.status.success(), "{script} {url} {model}:\n{}", String::from_utf8_lossy(&output.stderr));
    true
}

fn interpreter(script: &str) -> Option<Command> {
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

#[track_caller]
fn straight(script: &str, adapters: &[&str]) {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    if run(script, &provider.url(), "some-model", &[]) {
        booked(&provider, adapters);
    }
}

#[test]
fn the_simulator_is_openai_to_python() {
    straight("openai_sdk.py", &["chat", "responses"]);
}

#[test]
fn the_simulator_is_anthropic_to_python() {
    straight("anthropic_sdk.py", &["messages"]);
}

#[test]
fn the_simulator_is_gemini_to_python() {
    straight("google_sdk.py", &["content"]);
}

#[test]
fn the_simulator_is_openai_to_node() {
    straight("openai.mjs", &["node-chat", "node-responses"]);
}

#[test]
fn the_simulator_is_anthropic_to_node() {
    straight("anthropic.mjs", &["node-messages"]);
}
