//! How a call to a model is told what to become. Words, with commas or spaces between them, in the header `x-simulate`;
//! after a `~` in the model's name or in the provider's key; or in the last message, as in `[sim tokens=50 cut=3]`.
//! Who comes later in the order key, model, message, header has the last word.

use std::time::Duration;

use http::StatusCode;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Words {
    /// Tokens of text; 16 if nothing is said.
    pub(crate) tokens: Option<u32>,
    /// Tokens of reasoning before the text.
    pub(crate) reasoning: Option<u32>,
    /// What the prompt is said to have cost, rather than a count of it.
    pub(crate) input: Option<u32>,
    /// How many of the prompt's tokens were read from the provider's cache, how many were written to it.
    pub(crate) cached: Option<u32>,
    pub(crate) written: Option<u32>,
    /// Between two tokens.
    pub(crate) every: Option<Duration>,
    /// Before the first token; as between two if nothing is said.
    pub(crate) first: Option<Duration>,
    /// Tool calls, in parallel.
    pub(crate) calls: Option<u32>,
    pub(crate) stop: Option<Stop>,
    /// An error in place of the answer; `times=N`: of the first N calls that say the same.
    pub(crate) status: Option<StatusCode>,
    pub(crate) retry_after: Option<u64>,
    pub(crate) times: Option<u32>,
    /// What happens after N events of a stream (N is 0 if left out), or to the one body of another answer:
    /// the connection ends; half an event, then an end as if all were well; something that is not JSON, then on as ever;
    /// an error of the provider; nothing more.
    pub(crate) cut: Option<usize>,
    pub(crate) half: Option<usize>,
    pub(crate) garbage: Option<usize>,
    pub(crate) error: Option<usize>,
    pub(crate) hang: Option<usize>,
    /// A first token of that many bytes; 10 MiB if left out.
    pub(crate) big: Option<usize>,
    /// No `[DONE]`, `message_stop` or the like.
    pub(crate) undone: bool,
    /// No usage anywhere.
    pub(crate) no_usage: bool,
    /// A page of HTML with status 200.
    pub(crate) html: bool,
    /// The last message is the answer.
    pub(crate) echo: bool,
    /// Every token says when it was sent, the first before that when the call came.
    pub(crate) stamp: bool,
    /// What the rate-limit headers say is left of tokens and of requests.
    pub(crate) remaining_tokens: Option<u64>,
    pub(crate) remaining_requests: Option<u64>,
    /// For the books.
    pub(crate) tag: Option<String>,
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    End,
    Length,
    Calls,
    Filter,
}

const TEN_MEGABYTES: usize = 10 << 20;

impl Words {
    /// The words after `~` in a name, and the name before it.
    pub(crate) fn split(name: &str) -> (&str, &str) {
        name.split_once('~').unwrap_or((name, ""))
    }

    /// The words of a message: of the last `[sim …]` in it.
    pub(crate) fn within(text: &str) -> &str {
        let Some(start) = text.rfind("[sim ") else { return "" };
        let inner = &text[start + "[sim ".len()..];
        inner.find(']').map_or("", |end| &inner[..end])
    }

    pub(crate) fn read(&mut self, text: &str) -> Result<(), String> {
        for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            self.word(name, value).ok_or_else(|| format!("the simulator does not know what `{word}` means"))?;
        }
        Ok(())
    }

    fn word(&mut self, name: &str, value: Option<&str>) -> Option<()> {
        let number = || value?.parse::<u32>().ok();
        let wide = || value?.parse::<u64>().ok();
        let after = || value.map_or(Some(0), |value| value.parse::<usize>().ok());
        let span = || duration(value?);
        match name {
            "tokens" => self.tokens = Some(number()?),
            "reasoning" => self.reasoning = Some(number()?),
            "input" => self.input = Some(number()?),
            "cached" => self.cached = Some(number()?),
            "written" => self.written = Some(number()?),
            "every" => self.every = Some(span()?),
            "rate" => self.every = Some(Duration::from_secs(1).checked_div(number()?)?),
            "first" => self.first = Some(span()?),
            "calls" => self.calls = Some(number()?),
            "stop" => {
                self.stop = Some(match value? {
                    "end" => Stop::End,
                    "length" => Stop::Length,
                    "filter" => Stop::Filter,
                    _ => return None,
                })
            }
            "status" => self.status = Some(StatusCode::from_u16(number()?.try_into().ok()?).ok()?),
            "retry-after" => self.retry_after = Some(wide()?),
            "times" => self.times = Some(number()?),
            "cut" => self.cut = Some(after()?),
            "half" => self.half = Some(after()?),
            "garbage" => self.garbage = Some(after()?),
            "error" => self.error = Some(after()?),
            "hang" => self.hang = Some(after()?),
            "big" => self.big = Some(value.map_or(Some(TEN_MEGABYTES), |value| value.parse().ok())?),
            "remaining-tokens" => self.remaining_tokens = Some(wide()?),
            "remaining-requests" => self.remaining_requests = Some(wide()?),
            "tag" => self.tag = Some(value?.to_owned()),
            "undone" | "no-usage" | "html" | "echo" | "stamp" if value.is_some() => return None,
            "undone" => self.undone = true,
            "no-usage" => self.no_usage = true,
            "html" => self.html = true,
            "echo" => self.echo = true,
            "stamp" => self.stamp = true,
            _ => return None,
        }
        Some(())
    }
}

/// `20`, `20ms`, `300us` or `2s`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..digits].parse().ok()?;
    match &text[digits..] {
        "us" => Some(Duration::from_micros(number)),
        "" | "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_words_win() {
        let mut words = Words::default();
        words.read("tokens=5,cut").unwrap();
        words.read(Words::within("first [sim tokens=6] then [sim tokens=7 every=20ms] please")).unwrap();
        let expected =
            Words { tokens: Some(7), cut: Some(0), every: Some(Duration::from_millis(20)), ..Words::default() };
        assert_eq!(words, expected);
        for wrong in ["tokens", "tokens=x", "html=1", "stop=now", "nonsense", "rate=0", "status=1"] {
            assert!(words.read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Words::split("gpt-4o~status=503"), ("gpt-4o", "status=503"));
    }
}
