//! The price book as text: one line for each model, sorted, so that a row is found by bisecting the text and only that row
//! is ever parsed. What is not asked for costs no memory.
//!
//! ```text
//! # whence all of this
//! @ openai 2026-11-24 https://developers.openai.com/api/docs/pricing
//! gpt-4o  max-input=128000 max-output=16384 in=2.5 read=1.25 out=10 | batch in=1.25 out=5
//! ```
//!
//! A line with `@` begins a provider: its name, the day and the source. A row is the model, a tab, the base, and sections
//! after `|`: a class of service, `above=TOKENS`, or both, and what costs otherwise there. Prices are dollars: for a million
//! tokens, or for one (`call`, `search`). `date=` and `source=` in the base stand over the provider's.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::ops::Range;

use crate::money::decimal;
use crate::{Money, Price, Rates, Section, ServiceTier, TokenPrice};

/// The rows of one file, sorted.
#[derive(Debug)]
pub struct Rows {
    text: Cow<'static, str>,
    providers: Vec<Provider>,
}

/// Where in the text one provider's words are.
#[derive(Debug)]
struct Provider {
    name: Range<usize>,
    date: Range<usize>,
    source: Range<usize>,
    rows: Range<usize>,
}

/// What is wrong with a file of rows, and in which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    pub line: usize,
    pub message: String,
}

// === impl Rows ===

impl Rows {
    /// Of a text that is known to be sound and sorted: the one in the binary. Looks at the providers' lines only.
    pub(crate) fn trusted(text: impl Into<Cow<'static, str>>) -> Rows {
        let text = text.into();
        let mut providers: Vec<Provider> = Vec::new();
        let mut from = 0;
        while let Some(start) = if text[from..].starts_with("@ ") {
            Some(from)
        } else {
            text[from..].find("\n@ ").map(|found| from + found + 1)
        } {
            let end = text[start..].find('\n').map_or(text.len(), |length| start + length);
            let name = start + 2..text[start + 2..end].find(' ').map_or(end, |length| start + 2 + length);
            let date_at = (name.end + 1).min(end);
            let date = date_at..text[date_at..end].find(' ').map_or(end, |length| date_at + length);
            let source = (date.end + 1).min(end)..end;
            if let Some(last) = providers.last_mut() {
                last.rows.end = start;
            }
            from = end;
            let rows = (end + 1).min(text.len())..text.len();
            providers.push(Provider { name, date, source, rows });
        }
        Rows { text, providers }
    }

    /// Of somebody's file, in any order; or all that is wrong with it.
    pub fn read(text: &str) -> Result<Rows, Vec<RowError>> {
        let mut errors = Vec::new();
        let mut prices = Vec::new();
        let (mut provider, mut date, mut source) = ("", "", "");
        for (at, line) in text.lines().enumerate() {
            let mut wrong = |message: String| errors.push(RowError { line: at + 1, message });
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(head) = line.strip_prefix("@ ") {
                let mut words = head.splitn(3, ' ');
                let mut next = || words.next().unwrap_or_default();
                (provider, date, source) = (next(), next(), next());
                if source.is_empty() {
                    wrong("a line of a provider is `@ PROVIDER DATE SOURCE`".to_owned());
                }
            } else if provider.is_empty() {
                wrong("a row stands below a line `@ PROVIDER DATE SOURCE`; this one stands below none".to_owned());
            } else {
                match parse(provider, date, source, line) {
                    Ok(price) => prices.push(price),
                    Err(message) => wrong(message),
                }
            }
        }
        if errors.is_empty() { Ok(Rows::of(prices, "")) } else { Err(errors) }
    }

    /// Of prices in any order. Of two of the same name the last stays.
    pub fn of(prices: Vec<Price>, comment: &str) -> Rows {
        let mut providers: BTreeMap<String, BTreeMap<String, Price>> = BTreeMap::new();
        for price in prices {
            let (provider, model) = price.row.split_once('/').unwrap_or(("", &price.row));
            let models = providers.entry(provider.to_ascii_lowercase()).or_default();
            models.insert(model.to_ascii_lowercase(), price);
        }
        let mut text = String::new();
        for line in comment.lines() {
            let _ = writeln!(text, "# {line}");
        }
        for (provider, models) in &providers {
            let date = most_common(models.values().map(|price| &*price.date));
            let source = most_common(models.values().map(|price| &*price.source));
            let _ = writeln!(text, "@ {provider} {date} {source}");
            for price in models.values() {
                write_row(&mut text, price, date, source);
            }
        }
        Rows::trusted(text)
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn providers(&self) -> impl Iterator<Item = &str> {
        self.providers.iter().map(|provider| &self.text[provider.name.clone()])
    }

    /// The price of a model by exactly this name, in capitals or not.
    pub(crate) fn find(&self, provider: &str, model: &str) -> Option<Price> {
        let provider = self.provider(provider)?;
        let at = self.lower_bound(provider, model);
        let line = self.line(provider, at)?;
        compare(name(line), model).is_eq().then(|| self.parse(provider, line))?
    }

    /// The names that begin so.
    pub(crate) fn names<'a>(&'a self, provider: &str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let provider = self.provider(provider);
        let rows = provider.map_or("", |provider| {
            let at = self.lower_bound(provider, prefix);
            &self.text[at..provider.rows.end]
        });
        let begins =
            move |name: &&str| name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
        rows.lines().map(name).take_while(begins)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Price> {
        let all = self.providers.iter().flat_map(|it| self.text[it.rows.clone()].lines().map(move |line| (it, line)));
        all.filter_map(|(provider, line)| self.parse(provider, line))
    }

    fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.iter().find(|it| self.text[it.name.clone()].eq_ignore_ascii_case(name))
    }

    fn parse(&self, provider: &Provider, line: &str) -> Option<Price> {
        let word = |range: &Range<usize>| &self.text[range.clone()];
        parse(word(&provider.name), word(&provider.date), word(&provider.source), line).ok()
    }

    /// Where the first line begins whose name is not less.
    fn lower_bound(&self, provider: &Provider, model: &str) -> usize {
        let bytes = self.text.as_bytes();
        let Range { start: mut low, end: mut high } = provider.rows;
        while low < high {
            let middle = low + (high - low) / 2;
            let begin = bytes[low..middle].iter().rposition(|byte| *byte == b'\n').map_or(low, |at| low + at + 1);
            let end = bytes[begin..high].iter().position(|byte| *byte == b'\n').map_or(high, |at| begin + at + 1);
            match compare(name(&self.text[begin..end]), model) {
                Ordering::Less => low = end,
                Ordering::Equal | Ordering::Greater => high = begin,
            }
        }
        low
    }

    fn line(&self, provider: &Provider, at: usize) -> Option<&str> {
        self.text[at..provider.rows.end].lines().next()
    }
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.message)
    }
}

impl std::error::Error for RowError {}

fn name(line: &str) -> &str {
    line.split(['\t', '\n']).next().unwrap_or_default()
}

fn compare(a: &str, b: &str) -> Ordering {
    let lower =
        |text: &'_ str| text.bytes().map(|byte| byte.to_ascii_lowercase()).collect::<smallvec::SmallVec<[u8; 64]>>();
    lower(a).cmp(&lower(b))
}

fn most_common<'a>(words: impl Iterator<Item = &'a str>) -> &'a str {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map_or("", |(word, _)| word)
}

// === One row ===

fn parse(provider: &str, date: &str, source: &str, line: &str) -> Result<Price, String> {
    let (model, rest) = line.split_once('\t').ok_or("a row is the model's name, a tab, and what it costs")?;
    let mut price = Price {
        row: format!("{provider}/{model}").into(),
        source: source.into(),
        date: date.into(),
        max_input: None,
        max_output: None,
        base: Rates::default(),
        sections: Vec::new(),
    };
    let mut sections = rest.split(" | ");
    for word in sections.next().unwrap_or_default().split_whitespace() {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is not of the form `key=value`"))?;
        match key {
            "max-input" => price.max_input = Some(tokens(value)?),
            "max-output" => price.max_output = Some(tokens(value)?),
            "date" => price.date = value.into(),
            // As it is written below: a URL has no blanks, and keeps what looks like one.
            "source" if !value.contains("://") => price.source = value.replace("%20", " ").into(),
            "source" => price.source = value.into(),
            _ => set(&mut price.base, key, value)?,
        }
    }
    for section in sections {
        let (mut tier, mut above, mut rates) = (ServiceTier::Standard, 0, Rates::default());
        for word in section.split_whitespace() {
            match word.split_once('=') {
                Some(("above", value)) => above = tokens(value)?,
                Some((key, value)) => set(&mut rates, key, value)?,
                None => {
                    let named = ServiceTier::ALL.into_iter().find(|tier| tier.as_str() == word);
                    tier = named.ok_or_else(|| {
                        format!("`{word}` is no class of service; expected `batch`, `flex` or `priority`")
                    })?;
                }
            }
        }
        if tier == ServiceTier::Standard && above == 0 {
            return Err("a section needs a class of service or `above=TOKENS`".to_owned());
        }
        price.sections.push(Section { tier, above, rates });
    }
    Ok(price)
}

fn tokens(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number of tokens"))
}

fn set(rates: &mut Rates, key: &str, value: &str) -> Result<(), String> {
    let wrong = || format!("`{key}={value}` is not a price in dollars; expected such as `{key}=0.15`");
    let price = || TokenPrice::plain_text(value).map(Some).ok_or_else(wrong);
    let money =
        || decimal(value, 12).filter(|units| *units >= 0).map(|units| Some(Money::from_units(units))).ok_or_else(wrong);
    match key {
        "in" => rates.input = price()?,
        "read" => rates.cached_read = price()?,
        "write" => rates.cached_write_5m = price()?,
        "write-1h" => rates.cached_write_1h = price()?,
        "in-audio" => rates.input_audio = price()?,
        "in-image" => rates.input_image = price()?,
        "out" => rates.output = price()?,
        "reasoning" => rates.reasoning = price()?,
        "out-audio" => rates.output_audio = price()?,
        "out-image" => rates.output_image = price()?,
        "call" => rates.call = money()?,
        "search" => rates.search = money()?,
        _ => {
            return Err(format!(
                "`{key}` is not known; expected in, read, write, write-1h, in-audio, in-image, out, reasoning, \
                 out-audio, out-image, call or search"
            ));
        }
    }
    Ok(())
}

fn write_row(text: &mut String, price: &Price, usual_date: &str, usual_source: &str) {
    let Price { row, source, date, max_input, max_output, base, sections } = price;
    text.push_str(row.split_once('/').map_or(row, |(_, model)| model));
    text.push('\t');
    let mut words: Vec<String> = Vec::new();
    words.extend(max_input.map(|tokens| format!("max-input={tokens}")));
    words.extend(max_output.map(|tokens| format!("max-output={tokens}")));
    words.extend(rate_words(base));
    words.extend((&**date != usual_date).then(|| format!("date={date}")));
    words.extend((&**source != usual_source).then(|| format!("source={}", source.replace(char::is_whitespace, "%20"))));
    text.push_str(&words.join(" "));
    for Section { tier, above, rates } in sections {
        let mut words: Vec<String> = Vec::new();
        words.extend((*tier != ServiceTier::Standard).then(|| tier.as_str().to_owned()));
        words.extend((*above > 0).then(|| format!("above={above}")));
        words.extend(rate_words(rates));
        text.push_str(" | ");
        text.push_str(&words.join(" "));
    }
    text.push('\n');
}

fn rate_words(rates: &Rates) -> Vec<String> {
    let Rates {
        input,
        cached_read,
        cached_write_5m,
        cached_write_1h,
        input_audio,
        input_image,
        output,
        reasoning,
        output_audio,
        output_image,
        call,
        search,
    } = rates;
    let tokens = [
        ("in", input),
        ("read", cached_read),
        ("write", cached_write_5m),
        ("write-1h", cached_write_1h),
        ("in-audio", input_audio),
        ("in-image", input_image),
        ("out", output),
        ("reasoning", reasoning),
        ("out-audio", output_audio),
        ("out-image", output_image),
    ];
    let tokens = tokens.iter().filter_map(|(key, price)| price.map(|price| format!("{key}={}", price.plain())));
    let others = [("call", call), ("search", search)];
    let others = others.iter().filter_map(|(key, money)| money.map(|money| format!("{key}={}", money.plain())));
    tokens.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# a comment
@ a 2026-01-02 somewhere else
M-2\tmax-output=10 in=1 out=2.5 | flex above=1000 in=3 | batch out=1 call=0.01
m-1\tin=0.000001
@ b 2026-01-03 here
z\tin=1 date=2026-02-01 source=https://z
zz\tin=1 source=contract%2017
";

    #[test]
    fn rows_are_found_and_printed_back() {
        let rows = Rows::read(TEXT).unwrap();
        let again = Rows::read(rows.text()).unwrap();
        assert_eq!(rows.text(), again.text());
        assert_eq!(rows.iter().count(), 4);
        assert_eq!(&*rows.find("b", "zz").unwrap().source, "contract 17");
        let found = rows.find("A", "m-2").unwrap();
        assert_eq!((&*found.row, &*found.date, &*found.source), ("a/M-2", "2026-01-02", "somewhere else"));
        assert_eq!(found.sections.len(), 2);
        assert_eq!(&*rows.find("b", "z").unwrap().source, "https://z");
        for absent in ["m-", "m-10", "m-3", "a", "z", ""] {
            assert_eq!(rows.find("a", absent), None, "{absent}");
        }
        assert_eq!(rows.names("a", "M-").collect::<Vec<_>>(), ["m-1", "M-2"]);
    }

    #[test]
    fn every_error_has_its_line() {
        let check = |text: &str, line: usize, says: &str| {
            let errors = Rows::read(text).unwrap_err();
            assert!(errors.iter().any(|it| it.line == line && it.message.contains(says)), "{text}: {errors:?}");
        };
        check("m\tin=1", 1, "below none");
        check("@ a\nm\tin=1", 1, "PROVIDER DATE SOURCE");
        check("@ a d s\nm in=1", 2, "a tab");
        check("@ a d s\nm\tin=1e3\nn\tout=x", 3, "such as `out=0.15`");
        check("@ a d s\nm\tin=0.0000001", 2, "not a price");
        check("@ a d s\nm\tinn=1", 2, "not known");
        check("@ a d s\nm\tin=1 | in=2", 2, "class of service or");
        check("@ a d s\nm\tin=1 | slow in=2", 2, "no class of service");
    }
}
