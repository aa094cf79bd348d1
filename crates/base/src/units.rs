//! Quantities as people write them in a document: `250ms`, `64KiB`, `100/s`, `20%`.
//!
//! Each parses from its text, prints back as the shortest text that means the same, and describes
//! itself in the schema. A bare number is refused: it would leave the unit to guessing.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A length of time: `250ms`, `5s`, `1m30s`, `2h`, `1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// A number of bytes: `512B`, `64KiB`, `10MiB`, `1GiB`, `10MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// What stands behind the slash of a rate: `s`, `10s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PerTime(pub Duration);

/// An amount per time: `100/s`, `100k/m`, `1/10s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    pub amount: u64,
    pub per: Duration,
}

/// Bytes per time: `10MiB/s`, `1GiB/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRate {
    pub bytes: u64,
    pub per: Duration,
}

/// A share: `20%`, `0.5%`; kept in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u32);

/// What was wrong with a quantity, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitError(String);

// === impl Span ===

const SPANS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl Span {
    pub const fn from_secs(seconds: u64) -> Span {
        Span(Duration::from_secs(seconds))
    }

    pub const fn from_millis(millis: u64) -> Span {
        Span(Duration::from_millis(millis))
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Span, UnitError> {
        let wrong = || {
            UnitError(format!(
                "`{text}` is not a duration; expected a number with a unit such as `250ms`, `5s`, `1m30s`, `2h`"
            ))
        };
        let mut nanos = 0u64;
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            let unit = &rest[digits..unit_end];
            let (_, factor) = SPANS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            nanos = number.checked_mul(*factor).and_then(|part| nanos.checked_add(part)).ok_or_else(wrong)?;
            rest = &rest[unit_end..];
        }
        Ok(Span(Duration::from_nanos(nanos)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut nanos = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        if nanos == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in SPANS {
            if nanos >= factor {
                write!(f, "{}{unit}", nanos / factor)?;
                nanos %= factor;
            }
        }
        Ok(())
    }
}

// === impl Size ===

const SIZES: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Size, UnitError> {
        let wrong = || {
            UnitError(format!("`{text}` is not a size; expected a number with a unit such as `512B`, `64KiB`, `10MiB`"))
        };
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
        let unit = text[digits..].trim_start();
        let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        number.checked_mul(*factor).map(Size).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = SIZES.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        let (unit, factor) = whole.unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

// === impl Rate ===

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Rate, UnitError> {
        let wrong = || {
            UnitError(format!("`{text}` is not a rate; expected an amount per time such as `100/s`, `100k/m`, `1/10s`"))
        };
        let (amount, per) = text.trim().split_once('/').ok_or_else(wrong)?;
        let amount = amount.trim();
        let suffix = [('k', 1_000), ('M', 1_000_000), ('G', 1_000_000_000)];
        let suffix = suffix.iter().find_map(|(suffix, factor)| Some((amount.strip_suffix(*suffix)?, *factor)));
        let (digits, factor) = suffix.unwrap_or((amount, 1));
        let amount = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)?;
        let PerTime(per) = per.parse().map_err(|_| wrong())?;
        if amount == 0 {
            return Err(wrong());
        }
        Ok(Rate { amount, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.amount, PerTime(self.per))
    }
}

// === impl ByteRate ===

impl FromStr for ByteRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<ByteRate, UnitError> {
        let wrong =
            || UnitError(format!("`{text}` is no number of bytes per time; expected one such as `10MiB/s`, `1GiB/h`"));
        let (bytes, per) = text.trim().split_once('/').ok_or_else(wrong)?;
        let Size(bytes) = bytes.parse().map_err(|_| wrong())?;
        let PerTime(per) = per.parse().map_err(|_| wrong())?;
        if bytes == 0 {
            return Err(wrong());
        }
        Ok(ByteRate { bytes, per })
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Size(self.bytes), PerTime(self.per))
    }
}

// === impl PerTime ===

impl FromStr for PerTime {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<PerTime, UnitError> {
        let text = text.trim();
        let span = if text.starts_with(|c: char| c.is_ascii_digit()) { text.to_owned() } else { format!("1{text}") };
        match span.parse() {
            Ok(Span(per)) if !per.is_zero() => Ok(PerTime(per)),
            _ => Err(UnitError(format!("`{text}` is no time that something is per; expected such as `s`, `10s`, `m`"))),
        }
    }
}

impl fmt::Display for PerTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = Span(self.0).to_string();
        let unit = per.strip_prefix('1').filter(|rest| {
            rest.starts_with(|c: char| c.is_ascii_alphabetic()) && !rest.contains(|c: char| c.is_ascii_digit())
        });
        f.write_str(unit.unwrap_or(&per))
    }
}

// === impl Percent ===

impl Percent {
    pub const fn whole(percent: u32) -> Percent {
        Percent(percent * 10_000)
    }

    /// 1.0 for `100%`.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1e6
    }

    /// True for that share of evenly spread numbers.
    pub fn takes(self, random: u64) -> bool {
        random % 1_000_000 < u64::from(self.0)
    }
}

impl FromStr for Percent {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Percent, UnitError> {
        let wrong = || {
            UnitError(format!(
                "`{text}` is not a percentage; expected a number from 0 to 100 with its sign, such as `20%` or `0.5%`"
            ))
        };
        let number = text.trim().strip_suffix('%').ok_or_else(wrong)?.trim_end();
        if !number.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(wrong());
        }
        let percent: f64 = number.parse().map_err(|_| wrong())?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(wrong());
        }
        Ok(Percent((percent * 10_000.0).round() as u32))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 10_000.0)
    }
}

// === all five ===

impl UnitError {
    pub fn new(what: impl Into<String>) -> UnitError {
        UnitError(what.into())
    }
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UnitError {}

/// A quantity is a string in a document and says in the schema what that string looks like: what a type with
/// `FromStr` and `Display` needs for that. Its crate depends on serde and schemars.
#[macro_export]
macro_rules! quantity {
    ($name:ident, $pattern:literal, $says:literal, $examples:tt) => {
        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> ::std::result::Result<$name, D::Error> {
                struct Visitor;
                impl ::serde::de::Visitor<'_> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.write_str($says)
                    }

                    fn visit_str<E: ::serde::de::Error>(self, text: &str) -> ::std::result::Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> ::std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl ::schemars::JsonSchema for $name {
            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut ::schemars::SchemaGenerator) -> ::schemars::Schema {
                ::schemars::json_schema!({
                    "type": "string", "pattern": $pattern, "description": $says, "examples": $examples
                })
            }
        }
    };
}

quantity!(
    Span,
    r"^(\d+(ns|us|ms|s|m|h|d))+$",
    "a duration with its unit, such as `250ms`, `5s`, `1m30s`, `2h`",
    ["250ms", "5s", "1m30s"]
);
quantity!(
    Size,
    r"^\d+ ?(B|kB|KB|MB|GB|KiB|MiB|GiB)$",
    "a size with its unit, such as `512B`, `64KiB`, `10MiB`",
    ["64KiB", "10MiB"]
);
quantity!(
    Rate,
    r"^\d+[kMG]? ?/ ?(\d*(ms|s|m|h|d))+$",
    "an amount per time, such as `100/s`, `100k/m`, `1/10s`",
    ["100/s", "100k/m"]
);
quantity!(
    ByteRate,
    r"^\d+ ?(B|kB|KB|MB|GB|KiB|MiB|GiB) ?/ ?(\d*(ms|s|m|h|d))+$",
    "a number of bytes per time, such as `10MiB/s`, `1GiB/h`",
    ["10MiB/s", "1GiB/h"]
);
quantity!(Percent, r"^\d+(\.\d+)? ?%$", "a percentage with its sign, such as `20%` or `0.5%`", ["20%", "0.5%"]);

#[cfg(test)]
mod tests {
    use super::*;

    fn round<T: FromStr<Err = UnitError> + fmt::Display>(cases: &[(&str, Option<&str>)]) {
        for (text, printed) in cases {
            assert_eq!(text.parse::<T>().ok().map(|it| it.to_string()).as_deref(), *printed, "{text}");
        }
    }

    #[test]
    fn quantities_print_back_and_bare_numbers_are_refused() {
        round::<Span>(&[
            ("250ms", Some("250ms")),
            ("90s", Some("1m30s")),
            ("1h30m", Some("1h30m")),
            ("0s", Some("0s")),
            ("5", None),
            ("", None),
            ("5x", None),
            ("-1s", None),
            ("1.5s", None),
            ("99999999999d", None),
            ("s", None),
        ]);
        round::<Size>(&[
            ("64KiB", Some("64KiB")),
            ("1024 KiB", Some("1MiB")),
            ("1500B", Some("1500B")),
            ("10MB", Some("10MB")),
            ("0B", Some("0B")),
            ("64", None),
            ("64kb", None),
            ("99999999999GiB", None),
        ]);
        round::<Rate>(&[
            ("100/s", Some("100/s")),
            ("60/1m", Some("60/m")),
            ("1/10s", Some("1/10s")),
            ("5/90s", Some("5/1m30s")),
            ("100k/m", Some("100000/m")),
            ("2M/10s", Some("2000000/10s")),
            ("99999999999G/s", None),
            ("k/s", None),
            ("0/s", None),
            ("100", None),
            ("100/0s", None),
            ("/s", None),
        ]);
        round::<ByteRate>(&[
            ("10MiB/s", Some("10MiB/s")),
            ("1024KiB / 10s", Some("1MiB/10s")),
            ("10/s", None),
            ("0B/s", None),
            ("10MiB", None),
            ("10MiB/0s", None),
        ]);
        round::<Percent>(&[
            ("20%", Some("20%")),
            ("0.5 %", Some("0.5%")),
            ("101%", None),
            ("20", None),
            ("NaN%", None),
            ("+1%", None),
        ]);
    }

    #[test]
    fn a_wrong_unit_says_what_would_be_right() {
        let error = serde_json::from_str::<Span>("\"5\"").unwrap_err().to_string();
        assert!(error.contains("`5s`"), "{error}");
        let error = serde_json::from_str::<Span>("5").unwrap_err().to_string();
        assert!(error.contains("a duration with its unit"), "{error}");
    }
}
