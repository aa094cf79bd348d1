//! Which requests ask the same: written otherwise, a request has the same identity, and it has one or none, never a fault.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llm::identity::identity;
use llm::{Dialect, Operation};
use serde::de::IgnoredAny;

fuzz_target!(|data: &[u8]| {
    let Some((mode, body)) = data.split_first() else { return };
    let count = Dialect::ALL.len();
    let (dialect, stream) = (Dialect::ALL[usize::from(*mode) % count], usize::from(*mode) / count % 2 == 1);
    for operation in [Operation::Generate, Operation::Embed, Operation::CountTokens] {
        let found = identity(dialect, operation, body, stream);
        assert_eq!(found, identity(dialect, operation, body, stream), "it depends on nothing else");
        if found.is_err() {
            continue;
        }
        // Which may have numbers that are too large for a float.
        serde_json::from_slice::<IgnoredAny>(body).expect("what has an identity is JSON");
        let fields = fields(body);
        let reversed: Vec<&[u8]> = fields.into_iter().rev().collect();
        let reversed = [&b"{"[..], &reversed.join(&b','), b"}"].concat();
        assert_eq!(found, identity(dialect, operation, &reversed, stream), "the order of fields says nothing");
    }
});

/// The fields of an object, keys and values.
fn fields(body: &[u8]) -> Vec<&[u8]> {
    let body = body.trim_ascii();
    let (mut fields, mut begin, mut at) = (Vec::new(), 1, 0);
    words(body, |byte, depth| {
        if let (b',', 1) | (b'}', 0) = (byte.0, depth)
            && !byte.1
        {
            fields.push(&body[begin..at]);
            begin = at + 1;
        }
        at += 1;
    });
    fields.retain(|field| !field.trim_ascii().is_empty());
    fields
}

/// Each byte, whether it is in a string, and how deep one is behind it.
fn words(body: &[u8], mut each: impl FnMut((u8, bool), usize)) {
    let (mut within, mut escaped, mut depth) = (false, false, 0usize);
    for byte in body {
        let was = within;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if within => escaped = true,
            b'"' => within = !within,
            b'{' | b'[' if !within => depth += 1,
            b'}' | b']' if !within => depth = depth.saturating_sub(1),
            _ => {}
        }
        each((*byte, was), depth);
    }
}
