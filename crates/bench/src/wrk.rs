//! What wrk and h2load print.

use anyhow::{Context, Result};

use crate::load::Outcome;

pub fn wrk(text: &str) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["50%", time] => outcome.p50 = microseconds(time)?,
            ["99%", time] => outcome.p99 = microseconds(time)?,
            [requests, "requests", "in", ..] => outcome.requests = requests.parse()?,
            ["Requests/sec:", rate] => outcome.rps = rate.parse()?,
            ["Non-2xx", .., count] => outcome.bad = count.parse()?,
            ["Socket", "errors:", ..] => {
                outcome.errors = words.iter().filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok()).sum();
            }
            _ => {}
        }
    }
    anyhow::ensure!(outcome.requests > 0, "no requests in wrk's words:\n{text}");
    Ok(outcome)
}

/// It prints the least, the greatest, the mean and the deviation of latencies: the mean stands in for the median.
pub fn h2load(text: &str) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["finished", "in", _, rate, "req/s,", ..] => outcome.rps = rate.parse()?,
            ["requests:", _, "total,", _, "started,", done, "done,", _, "succeeded,", failed, "failed,", ..] => {
                outcome.requests = done.parse()?;
                outcome.errors = failed.parse()?;
            }
            ["status", "codes:", ok, "2xx,", ..] => {
                outcome.bad = outcome.requests.saturating_sub(ok.parse()?);
            }
            ["time", "for", "request:", _, _, mean, ..] => outcome.p50 = microseconds(mean)?,
            _ => {}
        }
    }
    anyhow::ensure!(outcome.requests > 0, "no requests in h2load's words:\n{text}");
    Ok(outcome)
}

fn microseconds(text: &str) -> Result<f64> {
    let digits = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let number: f64 = text[..digits].parse()?;
    let unit = match &text[digits..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 6e7,
        _ => return None.with_context(|| format!("a time: {text}")),
    };
    Ok(number * unit)
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_wrk() {
        let text = "  Latency Distribution\n     50%    1.23ms\n     99%  900.00us\n  90941 requests in 3.00s, 1MB read\n  \
                    Socket errors: connect 0, read 2, write 0, timeout 1\n  Non-2xx or 3xx responses: 7\n\
                    Requests/sec:  30303.43\n";
        let outcome = super::wrk(text).unwrap();
        assert_eq!((outcome.requests, outcome.bad, outcome.errors), (90941, 7, 3));
        assert_eq!((outcome.p50, outcome.p99), (1230.0, 900.0));
    }

    #[test]
    fn reads_h2load() {
        let text = "finished in 3.00s, 12345.33 req/s, 13.00MB/s\n\
                    requests: 37036 total, 37136 started, 37036 done, 37036 succeeded, 0 failed, 0 errored, 0 timeout\n\
                    status codes: 37036 2xx, 0 3xx, 0 4xx, 0 5xx\n\
                    time for request:      345us     12.30ms      2.50ms       961us    78.47%\n";
        let outcome = super::h2load(text).unwrap();
        assert_eq!((outcome.requests, outcome.bad, outcome.errors, outcome.p50), (37036, 0, 0, 2500.0));
    }
}
