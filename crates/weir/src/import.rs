//! `weir import`: a document made of what another gateway is configured by, and what of it could not be carried.

mod advice;
mod kinds;
mod litellm;
mod part;

use std::fs;
use std::path::{Path, PathBuf};

use config::Source;

use crate::document;
use crate::exit::Exit;
use crate::terminal::{Ink, Paint, complain, say, tell};

/// Make a document of another gateway's configuration
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    from: From,
}

#[derive(clap::Subcommand)]
enum From {
    /// LiteLLM's config.yaml
    ///
    /// The document goes to standard output; what could not be carried, with its line and what to do instead, to
    /// standard error. No secret is written: keys become names of variables.
    #[command(after_help = "\
Examples:
  weir import litellm config.yaml > weir.yaml
  weir import litellm config.yaml 2> left.txt > weir.yaml && weir check

Exit codes: 0 made, 1 the file cannot be read, 2 it is none of LiteLLM's, or no model of it can be carried")]
    Litellm {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub fn run(args: &Args) -> Exit {
    let From::Litellm { file } = &args.from;
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            complain(&format!("`{}` cannot be read: {error}", file.display()), "expected LiteLLM's config.yaml");
            return Exit::Failed;
        }
    };
    made(file, Source::with_format(&file.display().to_string(), text, config::Format::Yaml))
}

fn made(file: &Path, source: Source) -> Exit {
    let name = file.display();
    let imported = match litellm::import(&source, &|variable| std::env::var(variable).ok()) {
        Ok(imported) => imported,
        Err(found) => {
            tell(&document::render(&found, Paint::stderr()));
            return Exit::Wrong;
        }
    };
    say(imported.document.as_deref().unwrap_or_default());
    let paint = Paint::stderr();
    for note in &imported.notes {
        tell(&format!("{name}:{}: {}: {}\n", note.line, paint.paint(Ink::Heading, &note.path), note.text));
    }
    if imported.document.is_none() {
        complain(
            &format!("no model of `{name}` can be carried"),
            "what stands above says why, and what to write instead",
        );
        return Exit::Wrong;
    }
    match imported.notes.len() {
        0 => tell(&format!("{name}: all of it was carried\n")),
        count => {
            tell(&format!("{name}: {count} settings to look at; `weir check` says whether the document is right\n"))
        }
    }
    Exit::Ok
}
