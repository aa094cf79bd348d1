//! `weir demo`: a gateway with services behind it, and lines to try on it.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use config::Address;
use proxy::Sockets;
use simulator::{Options, Simulator};

use crate::admin;
use crate::document::Document;
use crate::exit::Exit;
use crate::logging;
use crate::running::Running;
use crate::signals::{self, Event};
use crate::terminal::{Ink, Paint, complain, say, tell};

/// Run a gateway with services behind it, to try things on
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir demo
  weir demo --port 8081
  weir demo --print > weir.yaml

Exit codes: 0 stopped, 1 could not start")]
pub struct Args {
    /// Where the gateway listens, on 127.0.0.1; 0 takes a free port
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Print the document instead, to begin one of your own
    #[arg(long)]
    print: bool,
}

pub fn run(args: &Args) -> Exit {
    let document = SAMPLE.replace("127.0.0.1:8080", &format!("127.0.0.1:{}", args.port));
    if args.print {
        say(&document);
        return Exit::Ok;
    }
    logging::start("warn");
    let (sender, events) = mpsc::channel();
    let services = match signals::listen(sender).and_then(|()| start_services()) {
        Ok(services) => services,
        Err(error) => {
            complain(&format!("cannot start the services: {error}"), "see how many open files the process may have");
            return Exit::Failed;
        }
    };
    let document = services
        .iter()
        .zip(SERVICES)
        .fold(document, |document, (service, (_, place))| document.replace(place, &service.address().to_string()));
    let document = Document::Builtin(document);
    let loaded = match document.read(None).result {
        Ok(loaded) => loaded,
        Err(refused) => {
            tell(&refused.render(Paint::stderr()));
            return Exit::Failed;
        }
    };
    let running = match Running::start(document, loaded, Sockets::default()) {
        Ok(running) => running,
        Err(exit) => {
            complain("the demo could not start", "if the port is taken, try `weir demo --port 0`");
            return exit;
        }
    };
    let admin = admin::start(&running, false).inspect_err(|error| tracing::warn!("{error}")).ok();
    let addresses = running.with(|node| node.addresses()).unwrap_or_default();
    if let Some((_, Address::Ip(address))) = addresses.first() {
        say(&introduction(*address, &services, Paint::stdout()));
    }
    for event in events {
        if matches!(event, Event::Stop) {
            break;
        }
    }
    running.stop(Duration::from_secs(1));
    drop(admin);
    Exit::Ok
}

/// At the places that the document names, so that `weir run` finds them too; elsewhere if those are taken.
fn start_services() -> io::Result<Vec<Simulator>> {
    let services = SERVICES.iter().map(|(name, place)| {
        let options = Options::named(*name);
        let wanted = place.parse().unwrap_or(options.address);
        Simulator::start(Options { address: wanted, ..options.clone() }).or_else(|_| Simulator::start(options))
    });
    services.collect()
}

fn introduction(address: SocketAddr, services: &[Simulator], paint: Paint) -> String {
    let weir = std::env::args().next().unwrap_or_else(|| "weir".into());
    let base = format!("http://{address}");
    let port = address.port();
    let lines = [
        ("An answer from the gateway itself", format!("curl -i {base}/")),
        ("A call that goes to a service, which tells what it got", format!("curl -s {base}/orders/7")),
        (
            "Without a key: 401. With one it passes, and the service does not see the key",
            format!("curl -i {base}/private/report\n  curl -s {base}/private/report -H 'x-api-key: demo-key'"),
        ),
        (
            "Three calls at once, then one a second: 429",
            format!("for i in 1 2 3 4 5; do curl -s -o /dev/null -w '%{{http_code}}\\n' {base}/limited; done"),
        ),
        ("Events, each as it comes", format!("curl -N '{base}/events?count=5&every=500ms'")),
        (
            "A canary: one call in ten goes to orders-next",
            format!(
                "for i in $(seq 40); do curl -s {base}/orders/$i | grep -o '\"instance\":\"[^\"]*\"'; done | sort | uniq -c"
            ),
        ),
        ("Volume, velocity and variance, as they change", format!("{weir} top")),
        (
            "What would become of a call, and why",
            format!(
                "{weir} demo --print --port {port} | {weir} explain - GET {base}/private/report -H 'x-api-key: demo-key'"
            ),
        ),
    ];
    let mut text = format!("{} on {base}\n", paint.paint(Ink::Heading, "weir demo"));
    for (service, (name, _)) in services.iter().zip(SERVICES) {
        text.push_str(&format!("  service {name:<12}{}\n", service.url()));
    }
    for (what, line) in lines {
        text.push_str(&format!("\n{}\n  {line}\n", paint.paint(Ink::Dim, &format!("# {what}"))));
    }
    text.push_str("\nCtrl-C ends it.\n");
    text
}

const SAMPLE: &str = include_str!("demo.yaml");

/// The services with the places that the sample has for them.
const SERVICES: [(&str, &str); 3] =
    [("orders-a", "127.0.0.1:9001"), ("orders-b", "127.0.0.1:9002"), ("orders-next", "127.0.0.1:9003")];
