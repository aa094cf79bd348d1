//! The load tool, and the side-by-side runs against other proxies. `bench run` writes `bench/RESULTS.md`, `bench llm`
//! `bench/RESULTS-LLM.md`.

mod backend;
mod cases;
mod client;
mod floor;
mod idle;
mod llm;
mod load;
mod overload;
mod peers;
mod procs;
mod provider;
mod report;
mod run;
mod spin;
mod sse;
mod tokens;
mod wrk;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The origin behind the proxies: the least work an answer can cost.
    Backend(backend::Arguments),
    /// The provider behind gateways for models: the simulator.
    Provider(provider::Arguments),
    /// The least a proxy can cost: it copies bytes and looks at none.
    Floor(floor::Arguments),
    /// Requests over HTTP/1.1: as fast as they are answered, or at a given rate.
    Load(load::Arguments),
    /// One endless download that the proxy compresses.
    Heavy(load::Heavy),
    /// A loop of the least importance, beside a proxy that has nothing to do with it.
    Spin(spin::Arguments),
    /// Event streams: how late the events are.
    Sse(sse::Arguments),
    /// Streams of tokens: how late they are.
    Tokens(tokens::Arguments),
    /// Idle connections: what each costs in memory.
    Idle(idle::Arguments),
    /// More calls than an origin bears, with and without `admit`. From the repository's root.
    Overload(overload::Arguments),
    /// The side-by-side runs. From the repository's root.
    Run(run::Arguments),
    /// The same against gateways for models.
    Llm(llm::Arguments),
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Backend(arguments) => block(backend::run(arguments)),
        Command::Provider(arguments) => provider::run(arguments),
        Command::Floor(arguments) => floor::run(&arguments),
        Command::Load(arguments) => print(&block(load::run(arguments))?),
        Command::Heavy(arguments) => print(&block(load::heavy(arguments))?),
        Command::Spin(arguments) => print(&spin::run(&arguments)?),
        Command::Sse(arguments) => print(&block(sse::run(arguments))?),
        Command::Tokens(arguments) => print(&block(tokens::run(arguments))?),
        Command::Idle(arguments) => print(&block(idle::run(arguments))?),
        Command::Overload(arguments) => overload::run(&arguments),
        Command::Run(arguments) => run::run(arguments),
        Command::Llm(arguments) => llm::run(arguments),
    }
}

fn block<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

fn print(outcome: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(outcome)?);
    Ok(())
}
