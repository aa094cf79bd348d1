//! Streams of models: the same goes out and is learned in whatever pieces the bytes come.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llm::stream::{Options, Seen};
use llm::{Dialect, Stream};

fuzz_target!(|data: &[u8]| {
    let Some((mode, body)) = data.split_first() else { return };
    let provider = Dialect::ALL[usize::from(*mode) % Dialect::ALL.len()];
    for caller in Dialect::ALL {
        let whole = run(caller, provider, body, body.len().max(1));
        let pieces = run(caller, provider, body, usize::from(*mode) / Dialect::ALL.len() + 1);
        assert_eq!(whole, pieces, "the pieces in which it comes make a difference");
        if let Some((out, seen)) = whole {
            assert!(seen.done || seen.stop.is_some() || seen.fault.is_some(), "it has an end, if a bad one");
            assert!(caller != provider || out.starts_with(body), "the same dialect passes untouched");
        }
    }
});

fn run(caller: Dialect, provider: Dialect, body: &[u8], piece: usize) -> Option<(Vec<u8>, Seen)> {
    let options = Options { model: "m", id: "id", now: 1, max_event: 1024, hide_usage: false };
    let mut stream = Stream::new(caller, provider, &options)?;
    let mut out = Vec::new();
    body.chunks(piece).for_each(|piece| stream.push(piece, &mut out));
    stream.finish(&mut out);
    Some((out, stream.seen().clone()))
}
