//! `weir check`: everything that is wrong with a document, without running it.

use std::path::{Path, PathBuf};

use config::{Diagnostic, Severity, Snapshot};

use crate::document::{self, Document, Refused};
use crate::exit::Exit;
use crate::terminal::{Ink, Paint, say, tell};

/// Say everything that is wrong with a document
///
/// Certificates and keys are loaded too; nothing is bound and nobody is called.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir check
  weir check staging.yaml production.yaml
  weir check --json weir.yaml | jq -r '.[] | \"\\(.file):\\(.line): \\(.message)\"'
  generate | weir check -

Exit codes: 0 all documents are right, 2 one of them is wrong or cannot be read")]
pub struct Args {
    /// Documents; `-` is standard input
    #[arg(value_name = "FILE", default_value = "weir.yaml")]
    files: Vec<PathBuf>,
    /// Print what was found as a JSON array
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Exit {
    let right = if args.json { as_json(&args.files) } else { as_text(&args.files) };
    if right { Exit::Ok } else { Exit::Wrong }
}

/// True if all are right.
fn as_text(files: &[PathBuf]) -> bool {
    let mut right = true;
    for path in files {
        let name = path.display();
        match check(path) {
            Ok((warnings, summary)) => {
                tell(&document::render(&warnings, Paint::stderr()));
                say(&format!("{name}: {}: {summary}\n", Paint::stdout().paint(Ink::Good, "ok")));
            }
            Err(refused) => {
                right = false;
                tell(&refused.render(Paint::stderr()));
                if let Refused::Wrong(found) = refused {
                    let errors = found.iter().filter(|it| it.severity == Severity::Error).count();
                    tell(&format!("{name}: {}\n", Paint::stderr().paint(Ink::Bad, &count(errors, "error"))));
                }
            }
        }
    }
    right
}

fn as_json(files: &[PathBuf]) -> bool {
    let mut right = true;
    let mut all = Vec::new();
    for path in files {
        match check(path) {
            Ok((warnings, _)) => all.extend(warnings),
            Err(refused) => {
                right = false;
                all.extend(refused.into_diagnostics());
            }
        }
    }
    say(&format!("{}\n", config::to_json(&all)));
    right
}

/// The warnings and one line of what is there, or why it is refused.
fn check(path: &Path) -> Result<(Vec<Diagnostic>, String), Refused> {
    let loaded = Document::open(path).map_err(Refused::Unreadable)?.read(None).result?;
    let problems = proxy::check(&loaded.snapshot);
    if problems.is_empty() {
        return Ok((loaded.warnings, summary(&loaded.snapshot)));
    }
    let mut found = loaded.warnings;
    found.extend(document::locate(&loaded.source, &problems));
    Err(Refused::Wrong(found))
}

fn summary(snapshot: &Snapshot) -> String {
    let endpoints = snapshot.upstreams.iter().map(|upstream| upstream.written().count()).sum();
    [
        count(snapshot.listeners.len(), "listener"),
        count(snapshot.apis.len(), "api"),
        count(snapshot.routes.len(), "route"),
        format!("{} with {}", count(snapshot.upstreams.len(), "upstream"), count(endpoints, "endpoint")),
        count(snapshot.consumers.len(), "consumer"),
    ]
    .join(", ")
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
