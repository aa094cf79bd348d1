//! `weir top`: volume, velocity and variance as they change, from the admin API.

mod screen;
mod show;

use std::io::{self, IsTerminal};
use std::time::Duration;

use serde::Serialize;

use crate::admin::{Flow, Flows, Health, Resources, Upstream, Upstreams};
use crate::client::{Client, Complaint, NodeArgs};
use crate::exit::Exit;
use crate::terminal::{Paint, complain, say};
use screen::{Key, Screen};
use show::{Shown, Sort};

/// Show volume, velocity and variance of what passes, as it changes
///
/// For every api and consumer: how many calls a second, how that changes, how many fail, how long they take, how
/// they come; for every upstream where its attempts spend their time. Prints a table once where nobody watches.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir top
  weir top --node http://127.0.0.1:9901 --token file:admin.token
  weir top --once --routes --sort errors
  weir top --json | jq '.flows[] | select(.variance.dispersion > 5) | .consumer'

Keys:
  q quit   r routes or apis   space pause
  sort by  c calls   v velocity   e errors   t time   b burst   d dispersion   n name

Columns:
  CALLS/S  calls per second over 10 s              CHANGE  calls per second, more each second
  ERR      share that failed, over 10 s            BURST   the busiest second over the mean one
  DISP     variance over mean of arrivals: 0 like a clock, 1 by chance, more in bursts
  MIX      bits that tell which operation a call is
  VARY     standard deviation over mean of durations

Exit codes: 0 all is well, 1 no node answered, 2 the command line is wrong")]
pub struct Args {
    #[command(flatten)]
    node: NodeArgs,
    /// Print once and end
    #[arg(long)]
    once: bool,
    /// Print once, as JSON
    #[arg(long)]
    json: bool,
    /// Show routes instead of apis
    #[arg(long)]
    routes: bool,
    /// Sort by this
    #[arg(long, value_enum, default_value_t = Sort::Calls)]
    sort: Sort,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    every: f64,
}

/// All that is looked at, of one moment.
#[derive(Debug, Serialize)]
pub struct Seen {
    health: Health,
    resources: Resources,
    flows: Vec<Flow>,
    upstreams: Vec<Upstream>,
}

pub fn run(args: &Args) -> Exit {
    if !(0.1..=3600.0).contains(&args.every) {
        complain("--every is out of range", "give seconds from 0.1 to 3600");
        return Exit::Wrong;
    }
    let shown = Shown { routes: args.routes, sort: args.sort };
    let live = !args.once && !args.json && io::stdout().is_terminal() && io::stdin().is_terminal();
    let seen = Client::new(&args.node).and_then(|client| Ok((look(&client)?, client)));
    let (seen, client) = match seen {
        Ok(seen) => seen,
        Err(complaint) => {
            complaint.tell();
            return Exit::Failed;
        }
    };
    if args.json {
        say(&format!("{}\n", serde_json::to_string_pretty(&seen).unwrap_or_default()));
        return Exit::Ok;
    }
    if !live {
        let width = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).unwrap_or(TABLE);
        say(&show::text(&seen, shown, width, usize::MAX, Paint::stdout()));
        return Exit::Ok;
    }
    match watch(&client, seen, shown, Duration::from_secs_f64(args.every)) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            complain(&format!("the terminal cannot be used: {error}"), "try `weir top --once`");
            Exit::Failed
        }
    }
}

fn look(client: &Client) -> Result<Seen, Complaint> {
    let health = client.get("/v1/health")?;
    let resources = client.get("/v1/resources")?;
    let Flows { flows } = client.get("/v1/flows")?;
    let Upstreams { upstreams } = client.get("/v1/upstreams")?;
    Ok(Seen { health, resources, flows, upstreams })
}

fn watch(client: &Client, mut seen: Seen, mut shown: Shown, every: Duration) -> io::Result<()> {
    let mut screen = Screen::open()?;
    let mut paused = false;
    let mut trouble = None;
    loop {
        let (width, height) = screen.size();
        let mut text = show::text(&seen, shown, width, height.saturating_sub(2), Paint(true));
        text.push_str(&show::footer(shown, paused, trouble.as_deref(), width));
        screen.draw(&text)?;
        match screen.key(every)? {
            Some(Key::Char('q') | Key::End) => return Ok(()),
            Some(Key::Char('r')) => shown.routes = !shown.routes,
            Some(Key::Char(' ')) => paused = !paused,
            Some(Key::Char(key)) => shown.sort = Sort::by_key(key).unwrap_or(shown.sort),
            None if paused => {}
            // A node that ends while somebody watches may come back.
            None => match look(client) {
                Ok(now) => (seen, trouble) = (now, None),
                Err(complaint) => trouble = Some(complaint.message),
            },
        }
    }
}

/// Characters a line, where no terminal says how many.
const TABLE: usize = 120;
