//! How much a budget allows, and how much of it a call takes: money, tokens or calls, each counted in 64 bits.

use std::fmt;
use std::iter::Sum;
use std::str::FromStr;

use base::{UnitError, quantity};

use crate::Money;

/// What a budget allows: `250 USD`, `2M tokens`, `1000 calls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Allowance {
    Money(Money),
    Tokens(u64),
    Calls(u64),
}

/// What a call takes, or may take, of the budgets above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub money: Money,
    pub tokens: u64,
    pub calls: u64,
}

/// In what a budget counts. Sixty-two bits of units hold 4.6 million dollars; a budget of more counts in thousands of
/// units, each call rounded up, so that what is counted is never less than what was spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Money { grain: u64 },
    Tokens,
    Calls,
}

/// More than any budget may allow, so that sums of a few of these never overflow.
pub(super) const LIMIT: u64 = 1 << 60;

// === impl Allowance ===

impl Allowance {
    pub(super) fn unit(self) -> Unit {
        match self {
            Allowance::Money(money) if money.units() > i128::from(LIMIT) => Unit::Money { grain: 1000 },
            Allowance::Money(_) => Unit::Money { grain: 1 },
            Allowance::Tokens(_) => Unit::Tokens,
            Allowance::Calls(_) => Unit::Calls,
        }
    }

    /// What it counts: `USD`, `tokens` or `calls`.
    pub fn unit_name(self) -> &'static str {
        match self {
            Allowance::Money(_) => "USD",
            Allowance::Tokens(_) => "tokens",
            Allowance::Calls(_) => "calls",
        }
    }

    /// The number alone, exact.
    pub fn plain(self) -> String {
        match self {
            Allowance::Money(money) => money.plain(),
            Allowance::Tokens(count) | Allowance::Calls(count) => count.to_string(),
        }
    }

    /// In its own unit; `None` if that is nothing, or more than a budget can count.
    pub(super) fn counted(self) -> Option<u64> {
        let counted = match (self, self.unit()) {
            (Allowance::Money(money), Unit::Money { grain }) => {
                u64::try_from(money.units() / i128::from(grain)).ok()?
            }
            (Allowance::Tokens(count) | Allowance::Calls(count), _) => count,
            (Allowance::Money(_), _) => return None,
        };
        (counted > 0 && counted <= LIMIT).then_some(counted)
    }
}

impl FromStr for Allowance {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Allowance, UnitError> {
        let wrong = || {
            UnitError::new(format!(
                "`{text}` is not an amount; expected money, tokens or calls, such as `250 USD`, `2M tokens`, `1000 calls`"
            ))
        };
        let text = text.trim();
        if text.ends_with("USD") {
            return text.parse().map(Allowance::Money);
        }
        let (number, unit) = text.rsplit_once(' ').ok_or_else(wrong)?;
        let number = number.trim_end();
        let (digits, factor) = match number.strip_suffix(['k', 'M', 'G']) {
            Some(digits) if number.ends_with('k') => (digits, 1_000),
            Some(digits) if number.ends_with('M') => (digits, 1_000_000),
            Some(digits) => (digits, 1_000_000_000),
            None => (number, 1),
        };
        let whole = digits.bytes().all(|byte| byte.is_ascii_digit());
        let count = digits.parse::<u64>().ok().filter(|_| whole).and_then(|count| count.checked_mul(factor));
        let count = count.ok_or_else(wrong)?;
        match unit {
            "tokens" => Ok(Allowance::Tokens(count)),
            "calls" => Ok(Allowance::Calls(count)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Allowance::Money(money) => money.fmt(f),
            Allowance::Tokens(count) => write!(f, "{} tokens", short(*count)),
            Allowance::Calls(count) => write!(f, "{} calls", short(*count)),
        }
    }
}

fn short(count: u64) -> String {
    for (suffix, factor) in [("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)] {
        if count >= factor && count.is_multiple_of(factor) {
            return format!("{}{suffix}", count / factor);
        }
    }
    count.to_string()
}

quantity!(
    Allowance,
    r"^(\d+(\.\d{1,12})? ?USD|\d+[kMG]? (tokens|calls))$",
    "money, tokens or calls, such as `250 USD`, `2M tokens`, `1000 calls`",
    ["250 USD", "2M tokens", "1000 calls"]
);

// === impl Unit ===

impl Unit {
    /// Rounded up.
    pub(super) fn count(self, used: &Used) -> u64 {
        let counted = match self {
            Unit::Money { grain } => {
                let units = u64::try_from(used.money.units().max(0)).unwrap_or(u64::MAX);
                units.div_ceil(grain)
            }
            Unit::Tokens => used.tokens,
            Unit::Calls => used.calls,
        };
        // More than that is a provider's lie, and would make the sums wrap.
        counted.min(LIMIT)
    }

    pub(super) fn name(self, counted: u64) -> Allowance {
        match self {
            Unit::Money { grain } => Allowance::Money(Money::from_units(i128::from(counted) * i128::from(grain))),
            Unit::Tokens => Allowance::Tokens(counted),
            Unit::Calls => Allowance::Calls(counted),
        }
    }
}

impl Used {
    pub const NOTHING: Used = Used { money: Money::ZERO, tokens: 0, calls: 0 };

    pub fn call(money: Money, tokens: u64) -> Used {
        Used { money, tokens, calls: 1 }
    }
}

impl Sum for Used {
    /// Of the attempts that one call made.
    fn sum<I: Iterator<Item = Used>>(all: I) -> Used {
        all.fold(Used::NOTHING, |sum, Used { money, tokens, calls }| Used {
            money: sum.money.saturating_add(money),
            tokens: sum.tokens.saturating_add(tokens),
            calls: sum.calls.saturating_add(calls),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowances_print_back() {
        for (text, printed) in [
            ("250 USD", Some("250 USD")),
            ("0.5USD", Some("0.5 USD")),
            ("2M tokens", Some("2M tokens")),
            ("2000000 tokens", Some("2M tokens")),
            ("1500 calls", Some("1500 calls")),
            ("1k calls", Some("1k calls")),
            ("1000", None),
            ("1 call", None),
            ("-1 calls", None),
            ("+1 calls", None),
            ("1.5M tokens", None),
            ("99999999999G tokens", None),
            ("k tokens", None),
        ] {
            assert_eq!(text.parse::<Allowance>().ok().map(|it| it.to_string()).as_deref(), printed, "{text}");
        }
    }

    #[test]
    fn large_budgets_count_coarser_and_never_less() {
        let large: Allowance = "50000000 USD".parse().unwrap();
        assert_eq!(large.unit().name(large.counted().unwrap()), large);
        let used = Used::call(Money::from_units(1), 0);
        assert_eq!((large.unit().count(&used), Unit::Money { grain: 1 }.count(&used)), (1, 1));
        assert_eq!("99999999999999 USD".parse::<Allowance>().unwrap().counted(), None);
        assert_eq!("0 USD".parse::<Allowance>().unwrap().counted(), None);
    }
}
