//! `weir drain` and `weir undrain`: an endpoint of a running node gets no new calls, and gets them again.

use std::thread;
use std::time::{Duration, Instant};

use crate::admin::{Upstream, Which};
use crate::client::{Client, Complaint, NodeArgs, encoded};
use crate::exit::Exit;
use crate::terminal::{complain, say};

/// Give an endpoint of a running node no new calls
///
/// Those under way end as they would. It holds over reloads, until `weir undrain` or the next start.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir drain orders http://10.0.0.7:9000
  weir drain orders http://10.0.0.7:9000 --wait 60 && ssh 10.0.0.7 systemctl restart orders
  weir undrain orders http://10.0.0.7:9000

Exit codes: 0 it is done, 1 no node answered, there is no such endpoint, or calls were still under way, 2 the command
line is wrong")]
pub struct DrainArgs {
    #[command(flatten)]
    target: Target,
    /// Wait that many seconds for the calls under way to end
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u32>,
}

/// Give an endpoint of a running node calls again
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir undrain orders http://10.0.0.7:9000

Exit codes: 0 it is done, 1 no node answered or there is no such endpoint, 2 the command line is wrong")]
pub struct UndrainArgs {
    #[command(flatten)]
    target: Target,
}

#[derive(clap::Args)]
struct Target {
    /// The upstream's name
    upstream: String,
    /// The endpoint's URL, as the document has it
    endpoint: String,
    #[command(flatten)]
    node: NodeArgs,
}

pub fn drain(args: &DrainArgs) -> Exit {
    exit(ask(&args.target, "drain").and_then(|client| wait(&client, &args.target, args.wait)))
}

pub fn undrain(args: &UndrainArgs) -> Exit {
    let Target { upstream, endpoint, .. } = &args.target;
    exit(ask(&args.target, "undrain").map(|_| say(&format!("{upstream}: {endpoint} gets calls again\n"))))
}

fn exit(done: Result<(), Complaint>) -> Exit {
    match done {
        Ok(()) => Exit::Ok,
        Err(Complaint { message, help, .. }) => {
            complain(&message, &help);
            Exit::Failed
        }
    }
}

fn ask(target: &Target, what: &str) -> Result<Client, Complaint> {
    let client = Client::new(&target.node)?;
    let which = Which { endpoint: target.endpoint.clone() };
    let path = format!("/v1/upstreams/{}/{what}", encoded(&target.upstream));
    client.ask("POST", &path, Some(&serde_json::to_value(&which).unwrap_or_default()))?;
    Ok(client)
}

/// Until nothing is under way there, if that is wanted.
fn wait(client: &Client, target: &Target, seconds: Option<u32>) -> Result<(), Complaint> {
    let Target { upstream, endpoint, .. } = target;
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or_default().into());
    loop {
        let status: Upstream = client.get(&format!("/v1/upstreams/{}", encoded(upstream)))?;
        let left: u32 = status.endpoints.iter().filter(|it| it.url == *endpoint).map(|it| it.in_flight).sum();
        if left == 0 || seconds.is_none() {
            say(&format!("{upstream}: {endpoint} gets no new calls, {left} under way\n"));
            return Ok(());
        }
        if Instant::now() >= end {
            let message = format!("{upstream}: {endpoint} gets no new calls, but {left} are still under way");
            return Err(Complaint::new(message, "wait longer, or let them be cut"));
        }
        thread::sleep(Duration::from_millis(200));
    }
}
