//! `weir reload`: a running node reads its document again, and says what came of it.

use serde_json::Value;

use crate::client::{Client, Complaint, NodeArgs};
use crate::exit::Exit;
use crate::terminal::{Ink, Paint, say};

/// Let a running node read its document again
///
/// As SIGHUP does, but with an answer: what is in force now, or all that is wrong with the document.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir reload
  weir reload --node unix:/run/weir/4711.sock
  weir reload --node http://127.0.0.1:9901 --token file:admin.token

Exit codes: 0 it is in force, 1 no node answered, 2 the document is refused and nothing changed")]
pub struct Args {
    #[command(flatten)]
    node: NodeArgs,
    /// Print the node's answer as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Exit {
    match Client::new(&args.node).and_then(|client| client.ask("POST", "/v1/reload", None)) {
        Ok(answer) => {
            say(&if args.json { format!("{answer:#}\n") } else { text(&answer) });
            Exit::Ok
        }
        Err(complaint) => {
            complaint.tell();
            refused(&complaint)
        }
    }
}

fn refused(complaint: &Complaint) -> Exit {
    if complaint.status == Some(422) { Exit::Wrong } else { Exit::Failed }
}

fn text(answer: &Value) -> String {
    let revision = answer["revision"].as_str().unwrap_or_default();
    let good = Paint::stdout().paint(Ink::Good, "in force");
    let mut text = match (answer["changed"].as_bool(), answer["before"].as_str()) {
        (Some(true), Some(before)) => format!("{good}: {revision}, before {before}\n"),
        _ => format!("{good}: {revision}, as before\n"),
    };
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        let (path, message) = (warning["path"].as_str().unwrap_or_default(), &warning["message"]);
        text.push_str(&format!("warning: {path}: {}\n", message.as_str().unwrap_or_default()));
    }
    text
}
