//! `weir prices`: what models cost, by the book in the binary and what stands over it.

mod check;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ledger::litellm::{self, Import};
use ledger::{Found, Moment, Near, Price, PriceBook, Rates, Rows, ServiceTier};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::table::Table;
use crate::terminal::{Paint, complain, say, tell};

/// Show what models cost, and by whom that is said
///
/// A name with its provider, such as openai/gpt-4o, is looked up as a call would be; what is only a part of names
/// shows all that have it. Prices are dollars for a million tokens.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  weir prices claude                         all models with that in their name
  weir prices openai/gpt-4o-2024-11-20       that model: every class of service, and the source
  weir prices --provider groq --json
  weir prices --providers                    which providers there are
  weir prices --prices prices.txt gpt-5      with a file over the book in the binary
  weir prices --check weir.yaml              which of its models have no price, or an old one
  weir prices update model_prices.json > prices.txt

Exit codes: 0 shown, 1 a file cannot be read, 2 the command line or a file is wrong, or a name or a model has no price"
)]
pub struct Args {
    #[command(subcommand)]
    update: Option<Command>,
    /// `provider/model`, or a part of a name; all if none is given
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Of this provider alone
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// The providers, how many models each has, and whence their prices are
    #[arg(long)]
    providers: bool,
    /// A file of prices that stands over the book in the binary, as `ledger.prices` does
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// The models of a document, what each is priced by, and which have no price or an old one
    #[arg(long, value_name = "DOCUMENT", conflicts_with_all = ["names", "provider", "providers", "prices"])]
    check: Option<PathBuf>,
    /// With `--check`: after how many days a price is old
    #[arg(long, value_name = "DAYS", default_value_t = 180, requires = "check")]
    older_than: u64,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    Update(UpdateArgs),
}

/// Make a file of prices that `ledger.prices` can name
///
/// FILE is what the LiteLLM project publishes (model_prices_and_context_window.json), or a file of prices as Weir
/// writes it. What is as in the binary is left out.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir prices update model_prices.json > prices.txt
  weir prices update model_prices.json --only openai,anthropic --source 'contract 17' --output prices.txt

Exit codes: 0 made, 1 a file cannot be read or written, 2 the file is wrong")]
struct UpdateArgs {
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to; standard output if left out
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The rows of these providers
    #[arg(long, value_name = "PROVIDERS", value_delimiter = ',')]
    only: Vec<String>,
    /// Whence the prices are, where the file does not say it for a row; its name if left out
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// The day they are of; today if left out
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    date: Option<String>,
    /// Those that are as in the binary, too
    #[arg(long)]
    all: bool,
}

/// A file that cannot be used: what to say, what to do, and how to end.
struct Unusable(String, &'static str, Exit);

pub fn run(args: &Args) -> Exit {
    let outcome = match &args.update {
        Some(Command::Update(args)) => update(args),
        None => match &args.check {
            Some(document) => Ok(check::check(document, args.older_than, args.json)),
            None => show(args),
        },
    };
    outcome.unwrap_or_else(|Unusable(message, help, exit)| {
        complain(&message, help);
        exit
    })
}

// === Show ===

fn show(args: &Args) -> Result<Exit, Unusable> {
    let file = args.prices.as_deref().map(read_rows).transpose()?;
    let book = PriceBook::new(Vec::new(), file);
    if args.providers {
        say(&providers(&book).text(Paint::stdout()));
        return Ok(Exit::Ok);
    }
    let mut exit = Exit::Ok;
    let mut shown: Vec<(Price, Option<Near>)> = Vec::new();
    let of_provider = |price: &Price| {
        let provider = price.row.split_once('/').unwrap_or_default().0;
        args.provider.as_ref().is_none_or(|only| only.eq_ignore_ascii_case(provider))
    };
    for name in &args.names {
        let found = name.split_once('/').and_then(|(provider, model)| book.find(provider, model));
        if let Some(Found { price, how }) = found {
            shown.push((Price::clone(&price), Some(how)));
            continue;
        }
        let part = name.to_ascii_lowercase();
        let before = shown.len();
        let alike = book.iter().filter(|price| of_provider(price) && price.row.to_ascii_lowercase().contains(&part));
        shown.extend(alike.map(|price| (price, None)));
        if shown.len() == before {
            complain(
                &format!("no model of that name has a price: `{name}`"),
                "see `weir prices` for all of them; a document gives a price to a candidate of a model by `price`",
            );
            exit = Exit::Wrong;
        }
    }
    if args.names.is_empty() {
        shown.extend(book.iter().filter(of_provider).map(|price| (price, None)));
    }
    if args.json {
        let all: Vec<Value> = shown.iter().map(|(price, near)| as_json(price, *near)).collect();
        say(&format!("{}\n", serde_json::to_string_pretty(&all).unwrap_or_default()));
    } else if let [(price, near @ Some(_))] = &shown[..] {
        say(&details(price, *near));
    } else if !shown.is_empty() {
        say(&table(&shown).text(Paint::stdout()));
    }
    Ok(exit)
}

fn table(shown: &[(Price, Option<Near>)]) -> Table {
    let head = ["model", "input", "cached read", "cached write", "output", "max input", "max output", "date"];
    let mut table = Table::new(head.map(str::to_owned), 1);
    for (price, _) in shown {
        let Rates { input, cached_read, cached_write_5m, output, .. } = price.base;
        let cell = |price: Option<ledger::TokenPrice>| price.map_or_else(|| "-".to_owned(), |it| it.plain());
        let count = |tokens: Option<u64>| tokens.map_or_else(|| "-".to_owned(), |it| it.to_string());
        table.row([
            price.row.to_string(),
            cell(input),
            cell(cached_read),
            cell(cached_write_5m),
            cell(output),
            count(price.max_input),
            count(price.max_output),
            price.date.to_string(),
        ]);
    }
    table
}

fn providers(book: &PriceBook) -> Table {
    let mut table = Table::new(["provider", "date", "source of most", "models"].map(str::to_owned), 3);
    let mut all: BTreeMap<String, Vec<Price>> = BTreeMap::new();
    for price in book.iter() {
        let provider = price.row.split_once('/').unwrap_or_default().0.to_owned();
        all.entry(provider).or_default().push(price);
    }
    for (provider, prices) in all {
        let mut sources: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for price in &prices {
            *sources.entry((&price.date, &price.source)).or_default() += 1;
        }
        let most = sources.into_iter().max_by_key(|(_, count)| *count);
        let (date, source) = most.map(|(of, _)| of).unwrap_or_default();
        table.row([provider.clone(), date.to_owned(), source.to_owned(), prices.len().to_string()]);
    }
    table
}

/// One model, with all that its row says.
fn details(price: &Price, near: Option<Near>) -> String {
    let Price { row, source, date, max_input, max_output, base, sections } = price;
    let mut text = format!("{row}{}\n", near.map_or("", nearness));
    let mut line = |name: &str, value: String| text += &format!("  {name:24} {value}\n");
    line("source", source.to_string());
    line("date", date.to_string());
    for (name, tokens) in [("max input", max_input), ("max output", max_output)] {
        line(name, tokens.map_or_else(|| "not known".to_owned(), |tokens| format!("{tokens} tokens")));
    }
    let Value::Object(rates) = json!(base) else { return text };
    for (name, price) in rates {
        line(&name, price.as_str().unwrap_or_default().to_owned());
    }
    for section in sections {
        let tier = if section.tier == ServiceTier::Standard { "" } else { section.tier.as_str() };
        let above = if section.above > 0 { format!("above {} tokens", section.above) } else { String::new() };
        let Value::Object(rates) = json!(section.rates) else { continue };
        for (name, price) in rates {
            let name = format!("{tier} {above} {name}");
            line(&name.split_whitespace().collect::<Vec<_>>().join(" "), price.as_str().unwrap_or_default().to_owned());
        }
    }
    text
}

fn nearness(near: Near) -> &'static str {
    match near {
        Near::Same => "",
        Near::Elsewhere => " (there is no row for where it runs)",
        Near::Undated => " (there is no row for that release)",
        Near::Newest => " (the newest release)",
    }
}

fn as_json(price: &Price, near: Option<Near>) -> Value {
    let Price { row, source, date, max_input, max_output, base, sections } = price;
    let sections =
        sections.iter().map(|section| json!({ "tier": section.tier, "above": section.above, "rates": section.rates }));
    let near = near.map(|near| match near {
        Near::Same => "same",
        Near::Elsewhere => "elsewhere",
        Near::Undated => "undated",
        Near::Newest => "newest",
    });
    json!({
        "model": &**row, "found": near, "source": &**source, "date": &**date, "max_input": max_input,
        "max_output": max_output, "rates": base, "sections": sections.collect::<Vec<_>>(),
    })
}

// === Update ===

fn update(args: &UpdateArgs) -> Result<Exit, Unusable> {
    let UpdateArgs { file, output, only, source, date, all } = args;
    let date = date.clone().unwrap_or_else(today);
    let named = file.file_name().unwrap_or_default().to_string_lossy();
    let source = source.clone().unwrap_or_else(|| named.into_owned());
    let text = read(file)?;
    let mut prices: Vec<Price> = if text.trim_start().starts_with('{') {
        let models: serde_json::Map<String, Value> = serde_json::from_str(&text).map_err(|error| {
            let message = format!("`{}` is not a JSON object: {error}", file.display());
            Unusable(message, "expected one object for each model, as LiteLLM publishes them", Exit::Wrong)
        })?;
        let Import { prices, other_units, other_providers, rounded } = litellm::import(&models, &source, &date);
        tell(&format!(
            "{} models have a price by tokens or calls; left out: {other_providers} of providers that Weir does not know, \
             {other_units} that are priced otherwise\n",
            prices.len()
        ));
        for row in rounded {
            tell(&format!("warning: {row} is finer than 10^-12 USD and was rounded up\n"));
        }
        prices
    } else {
        rows(file, &text)?.iter().collect()
    };
    prices.retain(|price| {
        let (provider, _) = price.row.split_once('/').unwrap_or_default();
        only.is_empty() || only.iter().any(|it| it.eq_ignore_ascii_case(provider))
    });
    if !all {
        let known = PriceBook::default();
        prices.retain(|price| {
            let (provider, model) = price.row.split_once('/').unwrap_or_default();
            let same = known.find(provider, model).filter(|it| it.how == Near::Same);
            same.is_none_or(|it| !costs_the_same(&it.price, price))
        });
    }
    let comment = format!(
        "Prices of models: dollars for a million tokens, `call` and `search` for one.\n\
         Public price facts from {source}, read {date}. Made by `weir prices update`."
    );
    let count = prices.len();
    let made = Rows::of(prices, &comment);
    match output {
        None => say(made.text()),
        Some(path) => fs::write(path, made.text()).map_err(|error| {
            let message = format!("`{}` cannot be written: {error}", path.display());
            Unusable(message, "name another file with --output", Exit::Failed)
        })?,
    }
    tell(&format!("{count} rows{}\n", if *all { "" } else { " that are not as in the binary" }));
    Ok(Exit::Ok)
}

fn costs_the_same(a: &Price, b: &Price) -> bool {
    let facts = |price: &Price| {
        let Price { row: _, source: _, date: _, max_input, max_output, base, sections } = price.clone();
        (max_input, max_output, base, sections)
    };
    facts(a) == facts(b)
}

fn read_rows(path: &Path) -> Result<Rows, Unusable> {
    rows(path, &read(path)?)
}

fn rows(path: &Path, text: &str) -> Result<Rows, Unusable> {
    Rows::read(text).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(|it| format!("{}:{it}", path.display())).collect();
        let help = "`weir prices update` makes such a file of LiteLLM's; docs/money.md says how it is written";
        Unusable(lines.join("\n       "), help, Exit::Wrong)
    })
}

fn read(path: &Path) -> Result<String, Unusable> {
    fs::read_to_string(path).map_err(|error| {
        let message = format!("`{}` cannot be read: {error}", path.display());
        Unusable(message, "expected a file of prices, or one that LiteLLM publishes", Exit::Failed)
    })
}

fn today() -> String {
    Moment::from(SystemTime::now()).to_string()[..10].to_owned()
}

fn day(text: &str) -> Result<String, String> {
    let shape: String = text.chars().map(|it| if it.is_ascii_digit() { '0' } else { it }).collect();
    if shape == "0000-00-00" { Ok(text.to_owned()) } else { Err("expected such as 2026-11-24".to_owned()) }
}
