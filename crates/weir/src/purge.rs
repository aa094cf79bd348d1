//! `weir purge`: a running node forgets answers that it keeps.

use crate::admin::Forget;
use crate::client::{Client, NodeArgs};
use crate::exit::Exit;
use crate::terminal::say;

/// Let a running node forget answers that its cache keeps
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir purge --tag product-7
  weir purge --url https://shop.example/products/7
  weir purge --prefix https://shop.example/products/ --api shop
  weir purge --all

Exit codes: 0 they are gone, 1 no node answered, 2 the command line is wrong")]
pub struct Args {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    what: WhatArgs,
    /// Of this api alone
    #[arg(long, value_name = "NAME")]
    api: Option<String>,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct WhatArgs {
    /// The answers to this URL
    #[arg(long)]
    url: Option<String>,
    /// Those to all URLs that begin so
    #[arg(long, value_name = "URL")]
    prefix: Option<String>,
    /// Those with this word in `Surrogate-Key` or `Cache-Tag`
    #[arg(long)]
    tag: Option<String>,
    /// Everything
    #[arg(long)]
    all: bool,
}

pub fn run(args: &Args) -> Exit {
    let Args { node, what: WhatArgs { url, prefix, tag, all }, api } = args;
    let forget = Forget { api: api.clone(), url: url.clone(), prefix: prefix.clone(), tag: tag.clone(), all: *all };
    let body = serde_json::to_value(&forget).unwrap_or_default();
    match Client::new(node).and_then(|client| client.ask("POST", "/v1/cache/purge", Some(&body))) {
        Ok(answer) => {
            let purged = answer["purged"].as_u64().unwrap_or_default();
            let places = match (answer["in_memory"].as_u64(), answer["on_disk"].as_u64()) {
                (Some(memory), Some(disk)) => format!(": {memory} in memory, {disk} on the disk"),
                _ => String::new(),
            };
            say(&format!("{purged} answer{} forgotten{places}\n", if purged == 1 { "" } else { "s" }));
            Exit::Ok
        }
        Err(complaint) => {
            complaint.tell();
            Exit::Failed
        }
    }
}
