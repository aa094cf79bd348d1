//! What was spent, summed by whatever one asks: whose, on what, for what.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::{Class, Entry, Money};

/// By what entries are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    Api,
    Route,
    Consumer,
    Team,
    Key,
    Task,
    Provider,
    /// The model that served.
    Model,
    /// The model that was asked for.
    Asked,
    Class,
    Outcome,
    Price,
    Hour,
    Day,
    Month,
}

/// Sums over entries, by some of their sides.
#[derive(Clone, Debug)]
pub struct Spend {
    by: Vec<By>,
    rows: BTreeMap<Vec<String>, Sums>,
    total: Sums,
}

/// Exact: sums of whole units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub entries: u64,
    /// Without attempts that another followed.
    pub calls: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cost: Money,
    /// Of the cost: what brought the caller nothing.
    pub hidden: Money,
    pub saved: Money,
    /// Entries whose usage was counted here.
    pub estimated: u64,
}

impl By {
    pub const ALL: [(&'static str, By); 15] = [
        ("api", By::Api),
        ("route", By::Route),
        ("consumer", By::Consumer),
        ("team", By::Team),
        ("key", By::Key),
        ("task", By::Task),
        ("provider", By::Provider),
        ("model", By::Model),
        ("asked", By::Asked),
        ("class", By::Class),
        ("outcome", By::Outcome),
        ("price", By::Price),
        ("hour", By::Hour),
        ("day", By::Day),
        ("month", By::Month),
    ];

    /// What an entry is filed under; empty if it has none.
    fn of(self, entry: &Entry) -> String {
        let or_nothing = |name: &Option<std::sync::Arc<str>>| name.as_deref().unwrap_or_default().to_owned();
        let time = |length: usize| entry.time.to_string()[..length].to_owned();
        match self {
            By::Api => entry.api.to_string(),
            By::Route => entry.route.to_string(),
            By::Consumer => or_nothing(&entry.consumer),
            By::Team => or_nothing(&entry.team),
            By::Key => or_nothing(&entry.credential),
            By::Task => entry.task.iter().flatten().map(|byte| format!("{byte:02x}")).collect(),
            By::Provider => entry.provider.to_string(),
            By::Model => entry.model_served.to_string(),
            By::Asked => entry.model_asked.to_string(),
            By::Class => entry.class.as_str().to_owned(),
            By::Outcome => entry.outcome.as_str().to_owned(),
            By::Price => entry.price.to_string(),
            By::Hour => time("2026-11-24T16".len()),
            By::Day => time("2026-11-24".len()),
            By::Month => time("2026-11".len()),
        }
    }
}

impl FromStr for By {
    type Err = String;

    fn from_str(text: &str) -> Result<By, String> {
        let found = By::ALL.iter().find(|(name, _)| *name == text);
        found.map(|(_, by)| *by).ok_or_else(|| {
            let names: Vec<&str> = By::ALL.iter().map(|(name, _)| *name).collect();
            format!("`{text}` is nothing to sum by; expected some of {}", names.join(", "))
        })
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = By::ALL.iter().find(|(_, by)| by == self);
        f.write_str(found.map_or("", |(name, _)| name))
    }
}

impl Spend {
    pub fn new(by: Vec<By>) -> Spend {
        Spend { by, rows: BTreeMap::new(), total: Sums::default() }
    }

    pub fn add(&mut self, entry: &Entry) {
        let key: Vec<String> = self.by.iter().map(|by| by.of(entry)).collect();
        self.rows.entry(key).or_default().add(entry);
        self.total.add(entry);
    }

    pub fn by(&self) -> &[By] {
        &self.by
    }

    /// The dearest first.
    pub fn rows(&self) -> Vec<(&[String], &Sums)> {
        let mut rows: Vec<_> = self.rows.iter().map(|(key, sums)| (&key[..], sums)).collect();
        rows.sort_by(|(a_key, a), (b_key, b)| b.cost.cmp(&a.cost).then(b.calls.cmp(&a.calls)).then(a_key.cmp(b_key)));
        rows
    }

    pub fn total(&self) -> &Sums {
        &self.total
    }
}

impl Sums {
    fn add(&mut self, entry: &Entry) {
        let Sums { entries, calls, input_tokens, output_tokens, cost, hidden, saved, estimated } = self;
        let used = entry.used();
        *entries += 1;
        *calls += if entry.class == Class::Cached { 1 } else { used.calls };
        if entry.class != Class::Cached {
            *input_tokens = input_tokens.saturating_add(entry.usage.prompt());
            *output_tokens = output_tokens.saturating_add(entry.usage.completion());
        }
        *cost = cost.saturating_add(entry.cost);
        if !matches!(entry.class, Class::Useful | Class::Cached) {
            *hidden = hidden.saturating_add(entry.cost);
        }
        *saved = saved.saturating_add(entry.saved);
        *estimated += u64::from(entry.estimated);
    }
}

#[cfg(test)]
mod tests {
    use base::TokenUsage;

    use super::*;
    use crate::Moment;

    fn entry(consumer: Option<&str>, class: Class, units: i128) -> Entry {
        Entry {
            time: Moment::from_secs(1_795_538_711),
            consumer: consumer.map(Into::into),
            class,
            usage: TokenUsage { input: 10, output: 1, ..TokenUsage::default() },
            cost: Money::from_units(units),
            ..Entry::default()
        }
    }

    #[test]
    fn sums_are_exact_and_the_dearest_comes_first() {
        let mut spend = Spend::new(vec![By::Consumer, By::Day]);
        spend.add(&entry(Some("a"), Class::Useful, 1));
        spend.add(&entry(Some("b"), Class::Retry, 1_000_000_000_000));
        spend.add(&entry(Some("b"), Class::Useful, 1));
        spend.add(&entry(None, Class::Cached, 0));
        let rows: Vec<String> = spend
            .rows()
            .iter()
            .map(|(key, sums)| {
                format!("{} {}/{} {} {}", key.join(" "), sums.calls, sums.entries, sums.cost, sums.hidden)
            })
            .collect();
        assert_eq!(
            rows,
            [
                "b 2026-11-24 1/2 1.000000000001 USD 1 USD",
                "a 2026-11-24 1/1 0.000000000001 USD 0 USD",
                " 2026-11-24 1/1 0 USD 0 USD"
            ]
        );
        assert_eq!(spend.total().cost.to_string(), "1.000000000002 USD");
        // What a cache answered used no tokens.
        assert_eq!((spend.total().input_tokens, spend.total().output_tokens), (30, 3));
    }

    #[test]
    fn every_side_has_its_name() {
        for (name, by) in By::ALL {
            assert_eq!((name.parse(), by.to_string().as_str()), (Ok(by), name));
        }
        assert!("colour".parse::<By>().unwrap_err().contains("consumer"));
    }
}
