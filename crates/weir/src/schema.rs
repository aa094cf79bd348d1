//! `weir schema`: what may stand in a document, for editors and for readers.

use crate::admin;
use crate::exit::Exit;
use crate::terminal::say;

/// Print the JSON Schema of the document, or the reference of document or admin API
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir schema > weir.schema.json
  weir schema --reference > reference.md
  weir schema --admin > openapi.json

An editor with a YAML language server completes and checks as you type if the document begins with
  # yaml-language-server: $schema=weir.schema.json")]
pub struct Args {
    /// Print the reference in Markdown instead
    #[arg(long)]
    reference: bool,
    /// Describe the admin API instead: in OpenAPI, or with --reference in Markdown
    #[arg(long)]
    admin: bool,
}

pub fn run(args: &Args) -> Exit {
    match (args.admin, args.reference) {
        (false, false) => say(&format!("{:#}\n", config::schema::schema())),
        (false, true) => say(&config::schema::reference()),
        (true, false) => say(&format!("{:#}\n", admin::openapi())),
        (true, true) => say(&admin::markdown()),
    }
    Exit::Ok
}
