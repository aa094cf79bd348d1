//! A timeline drawn as text: one row a segment, its bar where it lies in the whole.

use std::fmt::Write;
use std::time::Duration;

use crate::{Layer, Timeline};

/// Rows of name, layer, bar and length; `width` is the bar's, in characters.
pub fn waterfall(timeline: &Timeline, width: usize, colour: bool) -> String {
    let width = width.max(1);
    let segments: Vec<_> = timeline.segments().collect();
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
        return String::new();
    };
    let whole = ((last.start + last.length) - first.start).as_nanos().max(1);
    let column = |length: Duration| (length.as_nanos() * width as u128 / whole) as usize;
    let mut text = String::new();
    for segment in &segments {
        let begin = column(segment.start - first.start).min(width - 1);
        let end = column(segment.start + segment.length - first.start).clamp(begin + 1, width);
        let (on, off) = if colour { (ansi(segment.layer), "\x1b[0m") } else { ("", "") };
        let _ = writeln!(
            text,
            "{:<12}  {:<8}  {:begin$}{on}{}{off}{:rest$}  {:>8}",
            segment.name,
            segment.layer.as_str(),
            "",
            "█".repeat(end - begin),
            "",
            length(segment.length),
            rest = width - end,
        );
    }
    let _ = writeln!(text, "{:<22}  {:width$}  {:>8}", "total", "", length(Duration::from_nanos(whole as u64)));
    text
}

fn length(length: Duration) -> String {
    let micros = length.as_nanos() as f64 / 1e3;
    match micros {
        ..1_000.0 => format!("{micros:.0}us"),
        ..1_000_000.0 => format!("{:.1}ms", micros / 1e3),
        _ => format!("{:.2}s", micros / 1e6),
    }
}

fn ansi(layer: Layer) -> &'static str {
    match layer {
        Layer::Client => "\x1b[36m",
        Layer::Gateway => "\x1b[32m",
        Layer::Network => "\x1b[33m",
        Layer::Upstream => "\x1b[35m",
    }
}

#[cfg(test)]
mod tests {
    use base::Time;

    use super::*;
    use crate::Stamp;

    #[test]
    fn bars_lie_where_their_segments_do() {
        let mut timeline = Timeline::default();
        for (stamp, millis) in
            [(Stamp::HeadRead, 1), (Stamp::PoliciesDone, 2), (Stamp::RequestSent, 3), (Stamp::FirstByte, 11)]
        {
            timeline.mark(stamp, Time::from_nanos(millis * 1_000_000));
        }
        let expected = "\
policies      gateway   █            1.0ms
send          network    █           1.0ms
upstream      upstream    ████████     8.0ms
";
        let drawn = waterfall(&timeline, 10, false);
        let squeeze = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(squeeze(&drawn)[..12], squeeze(expected)[..]);
        let widths: Vec<_> = drawn.lines().map(|line| line.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{drawn}");
        assert!(waterfall(&timeline, 10, true).contains("\x1b[35m"));
        assert_eq!(waterfall(&Timeline::default(), 10, false), "");
    }
}
