//! `weir prices --check`: which models of a document have no price, or one that is old.

use std::path::Path;
use std::time::{Duration, SystemTime};

use ledger::{Moment, PriceBook};
use serde_json::json;

use crate::document::{Document, Refused};
use crate::exit::Exit;
use crate::table::Table;
use crate::terminal::{Paint, say, tell};

/// What is known of the price of one candidate.
struct Finding {
    model: String,
    /// Of the row, where there is one.
    row: String,
    date: String,
    state: &'static str,
}

const NONE: &str = "no price";
const OLD: &str = "old";

pub fn check(path: &Path, days: u64, as_json: bool) -> Exit {
    let read = Document::open(path).map_err(Refused::Unreadable).and_then(|document| document.read(None).result);
    let loaded = match read {
        Ok(loaded) => loaded,
        Err(refused) => {
            tell(&refused.render(Paint::stderr()));
            return Exit::Wrong;
        }
    };
    let limit = SystemTime::now().checked_sub(Duration::from_secs(days * 86_400)).map(Moment::from);
    let limit = limit.map_or_else(String::new, |limit| limit.to_string()[..10].to_owned());
    let found = findings(&loaded.snapshot.models, &loaded.snapshot.books.prices, &limit);
    if as_json {
        let all: Vec<_> = found
            .iter()
            .map(|it| json!({ "model": it.model, "row": it.row, "date": it.date, "state": it.state }))
            .collect();
        say(&format!("{}\n", serde_json::to_string_pretty(&all).unwrap_or_default()));
    } else {
        let mut table = Table::new(["model", "priced by", "date", ""].map(str::to_owned), 4);
        for Finding { model, row, date, state } in &found {
            let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
            table.row([model.clone(), dash(row), dash(date), (*state).to_owned()]);
        }
        say(&table.text(Paint::stdout()));
    }
    let count = |state| found.iter().filter(|it| it.state == state).count();
    match (count(NONE), count(OLD)) {
        (0, 0) => Exit::Ok,
        (none, old) => {
            tell(&format!(
                "{none} without a price, {old} with one older than {days} days; give the candidates a `price`, or make a file \
                 with `weir prices update` and name it as `ledger.prices`\n"
            ));
            Exit::Wrong
        }
    }
}

/// Each model of a provider once.
fn findings(models: &config::Models, book: &PriceBook, limit: &str) -> Vec<Finding> {
    let mut all: Vec<Finding> = Vec::new();
    for candidate in &models.candidates {
        let model = format!("{}/{}", candidate.provider.name, candidate.model);
        if all.iter().any(|it| it.model == model) {
            continue;
        }
        let provider = candidate.provider.row.name;
        let found = match &candidate.price {
            Some(price) => {
                let date = price.date.to_string();
                // What the document says itself has no date, and is its author's affair.
                let state = if date.is_empty() {
                    "of the document"
                } else if date.as_str() < limit {
                    OLD
                } else {
                    "ok"
                };
                Finding { model, row: price.row.to_string(), date, state }
            }
            // Each call has its own.
            None if candidate.model.ends_with('*') => {
                let some = book.iter().any(|price| price.row.split_once('/').is_some_and(|(it, _)| it == provider));
                let state = if some { "by what is asked" } else { NONE };
                Finding { model, row: String::new(), date: String::new(), state }
            }
            None => Finding { model, row: String::new(), date: String::new(), state: NONE },
        };
        all.push(found);
    }
    all
}
