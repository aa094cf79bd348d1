//! The price book: which price a model has that somebody asked for by some name.
//!
//! Three shelves, the first that has the name wins: what the document says, a file that it names, what came with the
//! binary. A name that no shelf has is tried in the ways that providers spell it, see [`PriceBook::find`]; what was found
//! that way says so.

use std::sync::{Arc, LazyLock};

use crate::{Price, Rows};

#[derive(Debug, Default)]
pub struct PriceBook {
    document: Option<Rows>,
    file: Option<Rows>,
}

/// A price, and how near its row is to what was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub price: Arc<Price>,
    pub how: Near,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Near {
    /// The very name.
    Same,
    /// Without what says where it runs or who publishes it: `us.`, `models/`.
    Elsewhere,
    /// Without the date or the version of the release: `gpt-4o` for `gpt-4o-2031-01-01`.
    Undated,
    /// The newest release, where none was asked for.
    Newest,
}

static EMBEDDED: LazyLock<Rows> = LazyLock::new(|| Rows::trusted(include_str!("../data/prices.txt")));

impl PriceBook {
    /// With what stands over the rows in the binary: those of a file first, those of the document over them.
    pub fn new(document: Vec<Price>, file: Option<Rows>) -> PriceBook {
        PriceBook { document: (!document.is_empty()).then(|| Rows::of(document, "")), file }
    }

    /// What `model` costs at `provider`. If there is no row of that name:
    ///
    /// 1. without what only says where: `models/`, `publishers/*/models/`, the region of an inference profile (`us.`,
    ///    `eu.`, `global.` ...), an ARN's beginning; of a fine-tuned model (`ft:gpt-4o:org::id`) its `ft:` row, then its base;
    /// 2. without the end that says which release: `-2024-08-06`, `-20251001`, `@20251001`, `-v1:0`, `-001`, `-latest`,
    ///    `:latest`;
    /// 3. the newest dated release of it.
    ///
    /// Nothing else: a price that is guessed is worse than none.
    pub fn find(&self, provider: &str, model: &str) -> Option<Found> {
        let exact = |model: &str| self.shelves().find_map(|rows| rows.find(provider, model));
        let found = |price: Price, how| Some(Found { price: Arc::new(price), how });
        if let Some(price) = exact(model) {
            return found(price, Near::Same);
        }
        let places = without_place(model);
        if let Some(price) = places.iter().find_map(|model| exact(model)) {
            return found(price, Near::Elsewhere);
        }
        for model in std::iter::once(model).chain(places.iter().copied()) {
            let mut rest = model;
            while let Some(shorter) = without_release(rest) {
                if let Some(price) = exact(shorter) {
                    return found(price, Near::Undated);
                }
                rest = shorter;
            }
        }
        for model in std::iter::once(model).chain(places.iter().copied()) {
            let undated = model.strip_suffix("-latest").unwrap_or(model);
            if let Some(price) = self.newest(provider, undated) {
                return found(price, Near::Newest);
            }
        }
        None
    }

    fn newest(&self, provider: &str, model: &str) -> Option<Price> {
        if model.is_empty() {
            return None;
        }
        self.shelves().find_map(|rows| {
            let dated = rows.names(provider, model).filter_map(|name| Some((date(&name[model.len()..])?, name)));
            let (_, name) = dated.max()?;
            rows.find(provider, name)
        })
    }

    /// Every price, each name once.
    pub fn iter(&self) -> impl Iterator<Item = Price> {
        let shelves: Vec<&Rows> = self.shelves().collect();
        let mut all: Vec<Price> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for rows in shelves {
            all.extend(rows.iter().filter(|price| seen.insert(price.row.to_ascii_lowercase())));
        }
        all.sort_by_cached_key(|price| price.row.to_ascii_lowercase());
        all.into_iter()
    }

    /// What the binary brings.
    pub fn embedded() -> &'static Rows {
        &EMBEDDED
    }

    fn shelves(&self) -> impl Iterator<Item = &Rows> {
        self.document.iter().chain(&self.file).chain(std::iter::once(&*EMBEDDED))
    }
}

fn without_place(model: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = model;
    if rest.starts_with("arn:") {
        rest = rest.rsplit_once('/').map_or(rest, |(_, model)| model);
        names.push(rest);
    }
    if let Some((_, model)) = rest.rsplit_once("models/") {
        rest = model;
        names.push(rest);
    }
    const REGIONS: [&str; 9] = ["us-gov.", "us.", "eu.", "apac.", "global.", "jp.", "au.", "ca.", "sa."];
    if let Some(model) = REGIONS.iter().find_map(|region| rest.strip_prefix(region)) {
        rest = model;
        names.push(rest);
    }
    if let Some(tuned) = rest.strip_prefix("ft:") {
        let base = tuned.split(':').next().unwrap_or(tuned);
        names.extend([&rest[..3 + base.len()], base]);
    }
    names
}

/// Without the last part that says which release it is; `None` if there is none.
fn without_release(model: &str) -> Option<&str> {
    for end in [":latest", "-latest", "-preview"] {
        if let Some(rest) = model.strip_suffix(end) {
            return Some(rest);
        }
    }
    let at = model.rfind(['-', '@', ':'])?;
    let (rest, end) = (&model[..at], &model[at + 1..]);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // Twice for `-2024-08-06`: at most three parts, the longest first.
    let dashed = model.len().checked_sub(11).and_then(|at| model.get(at..)).filter(|end| date(end).is_some());
    if let Some(dashed) = dashed {
        return Some(&model[..model.len() - dashed.len()]);
    }
    let version = end.strip_prefix('v').is_some_and(digits);
    let release =
        digits(end) && (end.len() == 8 || end.len() == 3 || (end.len() == 4 && end.starts_with(['0', '1', '2'])));
    // Bedrock's `:0` behind a version.
    let minor = digits(end) && end.len() == 1 && model.as_bytes()[at] == b':';
    (version || release || minor).then_some(rest)
}

/// The day that an end such as `-20251001`, `@20251001` or `-2025-10-01` names, maybe with `-v1:0` behind it.
fn date(end: &str) -> Option<u32> {
    let rest = end.strip_prefix(['-', '@'])?;
    let rest = rest.split_once("-v").map_or(rest, |(date, _)| date);
    let plain = match rest.as_bytes() {
        [_, _, _, _, b'-', _, _, b'-', _, _] => rest.replace('-', ""),
        [_, _, _, _, _, _, _, _] => rest.to_owned(),
        _ => return None,
    };
    plain.parse().ok().filter(|day| (20_000_000..21_000_000).contains(day))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Demand, Rates, ServiceTier};

    #[test]
    fn what_is_in_the_binary_is_sound() {
        let text = PriceBook::embedded().text();
        let again = Rows::read(text).unwrap();
        let rows =
            |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(rows(again.text()), rows(text), "not as it would be written");
        let book = PriceBook::default();
        let mut count = 0;
        for price in PriceBook::embedded().iter() {
            let (provider, model) = price.row.split_once('/').unwrap();
            assert_eq!(book.find(provider, model).map(|it| it.how), Some(Near::Same), "{}", price.row);
            assert!(!price.source.is_empty() && price.date.len() == 10, "{}", price.row);
            count += 1;
        }
        assert!(count > 1000, "{count}");
    }

    #[test]
    fn names_are_found_as_providers_spell_them() {
        let book = PriceBook::default();
        let check = |provider: &str, model: &str, expected: Option<(&str, Near)>| {
            let found = book.find(provider, model);
            let found = found.as_ref().map(|it| (&*it.price.row, it.how));
            assert_eq!(found, expected, "{provider}/{model}");
        };
        check("openai", "gpt-4o", Some(("openai/gpt-4o", Near::Same)));
        check("OpenAI", "GPT-4o", Some(("openai/gpt-4o", Near::Same)));
        check("openai", "gpt-4o-2031-01-01", Some(("openai/gpt-4o", Near::Undated)));
        check("openai", "ft:gpt-4o-2024-08-06:acme::x1", Some(("openai/ft:gpt-4o-2024-08-06", Near::Elsewhere)));
        check("gemini", "models/gemini-2.5-pro", Some(("gemini/gemini-2.5-pro", Near::Elsewhere)));
        check("gemini", "gemini-2.5-pro-002", Some(("gemini/gemini-2.5-pro", Near::Undated)));
        check("anthropic", "claude-sonnet-4-5-20310101", Some(("anthropic/claude-sonnet-4-5", Near::Undated)));
        check(
            "bedrock",
            "sa.anthropic.claude-haiku-4-5-20251001-v1:0",
            Some(("bedrock/anthropic.claude-haiku-4-5-20251001-v1:0", Near::Elsewhere)),
        );
        check(
            "bedrock",
            "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-haiku-4-5-20251001-v1:0",
            Some(("bedrock/anthropic.claude-haiku-4-5-20251001-v1:0", Near::Elsewhere)),
        );
        check("openai", "gpt-nobody-knows", None);
        check("openai", "", None);
        check("openai", "gpt", None);
        check("nobody", "gpt-4o", None);
    }

    #[test]
    fn the_document_stands_over_a_file_and_that_over_the_binary() {
        let row = |row: &str, price: &str| Price {
            row: row.into(),
            source: "contract".into(),
            date: "2026-11-01".into(),
            max_input: None,
            max_output: None,
            base: Rates { input: Some(price.parse().unwrap()), ..Rates::default() },
            sections: Vec::new(),
        };
        let file = Rows::of(vec![row("openai/gpt-4o", "1 USD"), row("openai/gpt-4o-mini", "2 USD")], "");
        let book = PriceBook::new(vec![row("openai/gpt-4o", "3 USD"), row("acme/own-20260101", "4 USD")], Some(file));
        let check = |provider: &str, model: &str, expected: &str| {
            let price = book.find(provider, model).unwrap().price;
            assert_eq!(price.worst_case(&Demand::new(1_000_000, 0)).to_string(), expected, "{model}");
        };
        check("openai", "gpt-4o", "3 USD");
        check("openai", "gpt-4o-mini", "2 USD");
        check("acme", "own", "4 USD");
        check("acme", "own-latest", "4 USD");
        let known = PriceBook::default().iter().count();
        assert_eq!(book.iter().count(), known + 1);
    }

    #[test]
    fn prices_of_today_are_as_published() {
        let book = PriceBook::default();
        let check = |provider, model, tier, usage: base::TokenUsage, expected: &str| {
            let cost = book.find(provider, model).unwrap().price.cost(&usage, tier);
            assert_eq!(cost.to_string(), expected, "{model}");
        };
        let usage = base::TokenUsage { input: 1000, cached_read: 1000, output: 1000, ..Default::default() };
        check("openai", "gpt-4o", ServiceTier::Standard, usage, "0.01375 USD");
        check("openai", "gpt-4o", ServiceTier::Priority, usage, "0.023375 USD");
        check("anthropic", "claude-sonnet-4-5", ServiceTier::Standard, usage, "0.0183 USD");
        check("gemini", "gemini-2.5-pro", ServiceTier::Standard, usage, "0.011375 USD");
        let long = base::TokenUsage { input: 200_001, ..Default::default() };
        check("gemini", "gemini-2.5-pro", ServiceTier::Standard, long, "0.5000025 USD");
    }
}
