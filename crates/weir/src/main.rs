//! The binary: command line, signals, wiring. One file per command; what two of them need has a file of its own.
#![forbid(unsafe_code)]

mod admin;
mod budgets;
mod check;
mod client;
mod completions;
mod demo;
mod document;
mod drain;
mod exit;
mod explain;
mod import;
mod live;
mod logging;
mod notify;
mod prices;
mod purge;
mod reload;
mod run;
mod running;
mod schema;
mod signals;
mod spend;
mod table;
mod takeover;
mod terminal;
mod top;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An API gateway: one document in, one process that routes, limits, retries and tells what it saw.
#[derive(Parser)]
#[command(name = "weir", bin_name = "weir", version, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Check(check::Args),
    Explain(explain::Args),
    Top(top::Args),
    Reload(reload::Args),
    Purge(purge::Args),
    Drain(drain::DrainArgs),
    Undrain(drain::UndrainArgs),
    Prices(prices::Args),
    Spend(spend::Args),
    Budgets(budgets::Args),
    Import(import::Args),
    Schema(schema::Args),
    Demo(demo::Args),
    Completions(completions::Args),
}

const AFTER_HELP: &str = "\
Examples:
  weir demo                                  a gateway with services behind it, to try things on
  weir demo --print > weir.yaml              a document to begin with
  weir check                                 is weir.yaml right?
  weir run                                   run it
  weir explain GET http://localhost/orders   what happens to that call, and why
  weir top                                   what passes, how that changes, how it is spread

Exit codes:
  0  all is well
  1  failed at run time: an address is taken, a file cannot be written
  2  the document or the command line is wrong
  3  `explain` found no route for the call

Colours are used on terminals only, and never if NO_COLOR is set.";

fn main() -> ExitCode {
    // The allocator asks for pages of 2 MiB, one for each thread and more: half of what an idle node would hold.
    // Where the kernel cannot be told so, it only holds more.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    // Fails only if there is one already, and nothing before this line installs one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let exit = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Purge(args) => purge::run(&args),
        Command::Drain(args) => drain::drain(&args),
        Command::Undrain(args) => drain::undrain(&args),
        Command::Prices(args) => prices::run(&args),
        Command::Spend(args) => spend::run(&args),
        Command::Budgets(args) => budgets::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Completions(args) => completions::run(&args),
    };
    exit.into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
