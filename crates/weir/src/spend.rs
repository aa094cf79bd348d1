//! `weir spend`: what was spent, from the journal of a node. Reads the files, so it needs no node that runs.

use std::path::PathBuf;
use std::time::SystemTime;

use base::Span;
use clap::ValueEnum;
use ledger::{By, Moment, Record, Spend, Sums};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::table::Table;
use crate::terminal::{Paint, complain, say, tell};

/// Sum what calls of models cost, from the journal of a node
///
/// DIR is what `ledger.data` says in the document. The node may run meanwhile. Sums are exact.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir spend --data /var/lib/weir
  weir spend --data /var/lib/weir --by consumer,model,class --since 24h
  weir spend --data /var/lib/weir --by day --since 31d --format csv > november.csv
  weir spend --data /var/lib/weir --by task --format json | jq '.rows[:10]'

Hidden cost is what brought the caller nothing: retries, failures the provider charges for, answers nobody
waited for, guards, lookups.

Exit codes: 0 summed, 1 the journal cannot be read, 2 the command line is wrong")]
pub struct Args {
    /// The folder of the journal
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// By what: api, route, consumer, team, key, task, provider, model, asked, class, outcome, price, hour, day,
    /// month; several with commas
    #[arg(long, value_name = "SIDES", value_delimiter = ',', default_value = "consumer,model")]
    by: Vec<By>,
    /// Of calls that began so long ago or later, such as `24h` or `7d`; `all` for all there are
    #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = since)]
    since: Since,
    /// How it is printed
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, Debug)]
enum Since {
    All,
    Ago(Span),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
}

fn since(text: &str) -> Result<Since, String> {
    match text {
        "all" => Ok(Since::All),
        _ => text.parse().map(Since::Ago).map_err(|error: base::UnitError| error.to_string()),
    }
}

pub fn run(args: &Args) -> Exit {
    let since = match args.since {
        Since::All => None,
        Since::Ago(Span(ago)) => SystemTime::now().checked_sub(ago).map(Moment::from),
    };
    let mut spend = Spend::new(args.by.clone());
    let damaged = match sum(&args.data, since, &mut spend) {
        Ok(damaged) => damaged,
        Err(error) => {
            complain(
                &format!("the journal in `{}` cannot be read: {error}", args.data.display()),
                "expected the folder that `ledger.data` names in the document",
            );
            return Exit::Failed;
        }
    };
    if damaged > 0 {
        tell(&format!("warning: {damaged} bytes of the journal are damaged; what they said is missing here\n"));
    }
    say(&match args.format {
        Format::Table => table(&spend).text(Paint::stdout()),
        Format::Csv => table(&spend).csv(),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&as_json(&spend, since)).unwrap_or_default()),
    });
    Exit::Ok
}

/// How many bytes were damaged.
fn sum(folder: &std::path::Path, since: Option<Moment>, spend: &mut Spend) -> std::io::Result<u64> {
    let mut reader = journal::read(folder, since)?;
    for record in &mut reader {
        if let Record::Entry(entry) = record?.1
            && since.is_none_or(|since| entry.time >= since)
        {
            spend.add(&entry);
        }
    }
    Ok(reader.damaged())
}

const COLUMNS: [&str; 7] =
    ["calls", "input tokens", "output tokens", "cost USD", "hidden USD", "saved USD", "estimated"];

fn columns(sums: &Sums) -> [String; 7] {
    let Sums { entries: _, calls, input_tokens, output_tokens, cost, hidden, saved, estimated } = sums;
    [
        calls.to_string(),
        input_tokens.to_string(),
        output_tokens.to_string(),
        cost.plain(),
        hidden.plain(),
        saved.plain(),
        estimated.to_string(),
    ]
}

fn table(spend: &Spend) -> Table {
    let sides = spend.by().len();
    let mut table = Table::new(spend.by().iter().map(By::to_string).chain(COLUMNS.map(str::to_owned)), sides);
    for (key, sums) in spend.rows() {
        let names = key.iter().map(|name| if name.is_empty() { "-".to_owned() } else { name.clone() });
        table.row(names.chain(columns(sums)));
    }
    let total = (0..sides).map(|at| if at == 0 { "total".to_owned() } else { String::new() });
    table.foot(total.chain(columns(spend.total())));
    table
}

fn as_json(spend: &Spend, since: Option<Moment>) -> Value {
    let sums = |sums: &Sums| {
        let Sums { entries, calls, input_tokens, output_tokens, cost, hidden, saved, estimated } = sums;
        json!({
            "entries": entries, "calls": calls, "input_tokens": input_tokens, "output_tokens": output_tokens,
            "cost": cost, "hidden": hidden, "saved": saved, "estimated": estimated,
        })
    };
    let rows = spend.rows().into_iter().map(|(key, of_key)| {
        let mut row = sums(of_key);
        for (by, name) in spend.by().iter().zip(key) {
            row[by.to_string()] = if name.is_empty() { Value::Null } else { json!(name) };
        }
        row
    });
    json!({
        "since": since.map(|since| since.to_string()),
        "rows": rows.collect::<Vec<_>>(),
        "total": sums(spend.total()),
    })
}
