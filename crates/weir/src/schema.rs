//! `weir schema`: what may stand in a document, for editors and for readers.

use crate::exit::Exit;
use crate::terminal::say;

/// Print the JSON Schema of the document, or its reference
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir schema > weir.schema.json
  weir schema --reference > reference.md

An editor with a YAML language server completes and checks as you type if the document begins with
  # yaml-language-server: $schema=weir.schema.json")]
pub struct Args {
    /// Print the reference in Markdown instead
    #[arg(long)]
    reference: bool,
}

pub fn run(args: &Args) -> Exit {
    if args.reference {
        say(&config::schema::reference());
    } else {
        say(&format!("{:#}\n", config::schema::schema()));
    }
    Exit::Ok
}
