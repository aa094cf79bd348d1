//! Amounts of money, exact.
//!
//! The unit is 10^-12 of a US dollar: a millionth of a dollar per million tokens is then one unit per token, so every
//! price that a provider publishes is a whole number of units, and a price times tokens is exact: **nothing is ever
//! rounded after a price has been read**. Sums are 128 bits wide and do not overflow in a lifetime of entries.

use std::fmt;
use std::iter::Sum;
use std::str::FromStr;
use std::time::Duration;

use base::{PerTime, UnitError, quantity};

/// An amount in US dollars: `0.00015 USD`, `250 USD`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(i128);

/// Money per time: `5 USD/m`, `0.10 USD/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MoneyRate {
    pub money: Money,
    pub per: Duration,
}

/// What a million tokens cost: `0.15 USD`. To the millionth of a dollar, so that one token costs whole units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenPrice(u64);

const PER_DOLLAR: i128 = 1_000_000_000_000;
/// Digits after the point that a unit has.
const DIGITS: usize = 12;

// === impl Money ===

impl Money {
    pub const ZERO: Money = Money(0);

    /// In units of 10^-12 USD.
    pub const fn from_units(units: i128) -> Money {
        Money(units)
    }

    pub const fn units(self) -> i128 {
        self.0
    }

    pub const fn dollars(dollars: i64) -> Money {
        Money(dollars as i128 * PER_DOLLAR)
    }

    pub fn checked_add(self, other: Money) -> Option<Money> {
        self.0.checked_add(other.0).map(Money)
    }

    pub fn checked_sub(self, other: Money) -> Option<Money> {
        self.0.checked_sub(other.0).map(Money)
    }

    pub fn checked_mul(self, times: u64) -> Option<Money> {
        self.0.checked_mul(i128::from(times)).map(Money)
    }

    /// For sums of what entries say, which 128 bits hold.
    pub fn saturating_add(self, other: Money) -> Money {
        Money(self.0.saturating_add(other.0))
    }

    pub fn saturating_sub(self, other: Money) -> Money {
        Money(self.0.saturating_sub(other.0))
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Money>>(all: I) -> Money {
        all.fold(Money::ZERO, Money::saturating_add)
    }
}

impl FromStr for Money {
    type Err = UnitError;

    /// A decimal with at most twelve digits after the point, and the currency. What would have to be rounded is
    /// refused.
    fn from_str(text: &str) -> Result<Money, UnitError> {
        let wrong = || {
            UnitError::new(format!(
                "`{text}` is not an amount of money; expected dollars with the currency, such as `0.25 USD`, and at \
                 most 12 digits after the point"
            ))
        };
        let number = text.trim().strip_suffix("USD").ok_or_else(wrong)?;
        decimal(number.trim_end(), DIGITS).map(Money).ok_or_else(wrong)
    }
}

impl fmt::Display for Money {
    /// The shortest decimal that means the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.plain())?;
        f.write_str(" USD")
    }
}

impl Money {
    /// Without the currency, as a column of a table wants it.
    pub fn plain(self) -> String {
        let sign = if self.0 < 0 { "-" } else { "" };
        let units = self.0.unsigned_abs();
        let (whole, part) = (units / PER_DOLLAR as u128, (units % PER_DOLLAR as u128) as u64);
        if part == 0 {
            return format!("{sign}{whole}");
        }
        let mut text = format!("{sign}{whole}.{part:0DIGITS$}");
        text.truncate(text.trim_end_matches('0').len());
        text
    }
}

// === impl MoneyRate ===

impl FromStr for MoneyRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<MoneyRate, UnitError> {
        let wrong =
            || UnitError::new(format!("`{text}` is no money per time; expected such as `5 USD/m` or `0.10 USD/s`"));
        let (money, per) = text.trim().split_once('/').ok_or_else(wrong)?;
        let money: Money = money.parse().map_err(|_| wrong())?;
        let PerTime(per) = per.parse().map_err(|_| wrong())?;
        if money.0 <= 0 || u64::try_from(money.0).is_err() {
            return Err(wrong());
        }
        Ok(MoneyRate { money, per })
    }
}

impl fmt::Display for MoneyRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.money, PerTime(self.per))
    }
}

// === impl TokenPrice ===

impl TokenPrice {
    pub const FREE: TokenPrice = TokenPrice(0);

    /// In units of 10^-12 USD for one token, which is millionths of a dollar for a million of them.
    pub const fn per_token(units: u64) -> TokenPrice {
        TokenPrice(units)
    }

    pub const fn units(self) -> u64 {
        self.0
    }

    /// Exact; `None` if 128 bits do not hold it, which no real usage comes near.
    pub fn times(self, tokens: u64) -> Option<Money> {
        i128::from(self.0).checked_mul(i128::from(tokens)).map(Money)
    }
}

impl FromStr for TokenPrice {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<TokenPrice, UnitError> {
        let wrong = || {
            UnitError::new(format!(
                "`{text}` is not a price of a million tokens; expected dollars with the currency, such as `0.15 USD`, \
                 and at most 6 digits after the point"
            ))
        };
        let number = text.trim().strip_suffix("USD").ok_or_else(wrong)?;
        TokenPrice::plain_text(number.trim_end()).ok_or_else(wrong)
    }
}

impl TokenPrice {
    /// Of a decimal without the currency.
    pub(crate) fn plain_text(number: &str) -> Option<TokenPrice> {
        decimal(number, DIGITS - 6).and_then(|units| u64::try_from(units).ok()).map(TokenPrice)
    }

    /// Without the currency.
    pub fn plain(self) -> String {
        Money(i128::from(self.0) * 1_000_000).plain()
    }
}

impl fmt::Display for TokenPrice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Money(i128::from(self.0) * 1_000_000).fmt(f)
    }
}

/// A decimal in units of `10^-digits`; `None` if it is none, or finer, or too large.
pub(crate) fn decimal(text: &str, digits: usize) -> Option<i128> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(part) || text.ends_with('.') {
        return None;
    }
    let part = part.trim_end_matches('0');
    if part.len() > digits {
        return None;
    }
    let scale = 10i128.checked_pow(u32::try_from(digits).ok()?)?;
    let fraction = if part.is_empty() {
        0
    } else {
        part.parse::<i128>().ok()? * 10i128.pow(u32::try_from(digits - part.len()).ok()?)
    };
    let units = whole.parse::<i128>().ok()?.checked_mul(scale)?.checked_add(fraction)?;
    Some(if negative { -units } else { units })
}

quantity!(
    Money,
    r"^-?\d+(\.\d{1,12})? ?USD$",
    "an amount of money with its currency, such as `0.25 USD`",
    ["0.25 USD", "100 USD"]
);
quantity!(
    MoneyRate,
    r"^\d+(\.\d{1,12})? ?USD ?/ ?(\d*(ms|s|m|h|d))+$",
    "money per time, such as `5 USD/m`",
    ["5 USD/m", "0.10 USD/s"]
);
quantity!(
    TokenPrice,
    r"^\d+(\.\d{1,6})? ?USD$",
    "what a million tokens cost, such as `0.15 USD`",
    ["0.15 USD", "15 USD"]
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round<T: FromStr<Err = UnitError> + fmt::Display>(cases: &[(&str, Option<&str>)]) {
        for (text, printed) in cases {
            assert_eq!(text.parse::<T>().ok().map(|it| it.to_string()).as_deref(), *printed, "{text}");
        }
    }

    #[test]
    fn what_would_be_rounded_is_refused() {
        round::<Money>(&[
            ("0.00015 USD", Some("0.00015 USD")),
            ("1.50USD", Some("1.5 USD")),
            ("-2 USD", Some("-2 USD")),
            ("0.000000000001 USD", Some("0.000000000001 USD")),
            ("0.0000000000010 USD", Some("0.000000000001 USD")),
            ("0.0000000000001 USD", None),
            ("1", None),
            ("1.", None),
            ("1. USD", None),
            (".5 USD", None),
            ("1e3 USD", None),
            ("1 EUR", None),
            ("--1 USD", None),
            ("999999999999999999999999999999 USD", None),
        ]);
        round::<TokenPrice>(&[
            ("0.15 USD", Some("0.15 USD")),
            ("0.000001 USD", Some("0.000001 USD")),
            ("0.0000001 USD", None),
            ("-1 USD", None),
            ("15", None),
        ]);
    }

    #[test]
    fn rates_of_money_print_back() {
        round::<MoneyRate>(&[
            ("5 USD/m", Some("5 USD/m")),
            ("0.10USD / 10s", Some("0.1 USD/10s")),
            ("5 USD", None),
            ("5/m", None),
            ("0 USD/m", None),
            ("-1 USD/m", None),
            ("99999999 USD/m", None),
        ]);
    }

    #[test]
    fn a_price_times_tokens_is_exact() {
        let price: TokenPrice = "0.15 USD".parse().unwrap();
        assert_eq!(price.times(1).unwrap().to_string(), "0.00000015 USD");
        assert_eq!(price.times(1_000_000).unwrap().to_string(), "0.15 USD");
        assert!(TokenPrice::per_token(u64::MAX).times(u64::MAX).is_none());
    }

    proptest! {
        #[test]
        fn money_prints_back(units in any::<i64>()) {
            let money = Money::from_units(i128::from(units));
            prop_assert_eq!(money.to_string().parse::<Money>(), Ok(money));
        }

        #[test]
        fn tokens_can_be_split_as_one_likes(price in any::<u32>(), a in any::<u32>(), b in any::<u32>()) {
            let price = TokenPrice::per_token(u64::from(price));
            let apart = price.times(a.into()).unwrap().checked_add(price.times(b.into()).unwrap());
            prop_assert_eq!(apart, price.times(u64::from(a) + u64::from(b)));
        }
    }
}
