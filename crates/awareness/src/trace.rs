//! W3C Trace Context: which trace a call is part of, and what the next hop is told of it.
//!
//! <https://www.w3.org/TR/trace-context/>. A context that cannot be read is as good as none: the call
//! begins a new trace, and the state that came with the broken context is dropped with it.

use std::fmt;

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    pub trace: TraceId,
    /// The gateway's own span.
    pub span: SpanId,
    /// The caller's, if it sent one.
    pub parent: Option<SpanId>,
    pub sampled: bool,
    /// `tracestate`, passed on as it came.
    pub state: Option<Box<str>>,
}

// === impl TraceContext ===

impl TraceContext {
    /// Continues the caller's trace or begins one. `sample` decides only where the caller does not.
    pub fn accept(
        traceparent: Option<&[u8]>,
        tracestate: Option<&[u8]>,
        sample: bool,
        mut random: impl FnMut() -> u64,
    ) -> TraceContext {
        let span = SpanId::random(&mut random);
        let Some((trace, parent, sampled)) = traceparent.and_then(parse) else {
            return TraceContext {
                trace: TraceId::random(&mut random),
                span,
                parent: None,
                sampled: sample,
                state: None,
            };
        };
        let state = tracestate.and_then(|state| std::str::from_utf8(state).ok()).map(str::trim);
        let state = state.filter(|state| !state.is_empty()).map(Box::from);
        TraceContext { trace, span, parent: Some(parent), sampled, state }
    }

    /// The field for an upstream whose parent is `span`, an attempt's.
    pub fn traceparent(&self, span: SpanId) -> [u8; 55] {
        let mut field = [b'-'; 55];
        field[..2].copy_from_slice(b"00");
        write_hex(&self.trace.0, &mut field[3..35]);
        write_hex(&span.0, &mut field[36..52]);
        write_hex(&[u8::from(self.sampled)], &mut field[53..]);
        field
    }
}

/// Version 00 has exactly four parts; a later one may have more behind them, and `ff` is forbidden.
fn parse(field: &[u8]) -> Option<(TraceId, SpanId, bool)> {
    let (head, rest) = field.trim_ascii().split_at_checked(55)?;
    let [version] = read_hex(&head[..2])?;
    let dashes = [2, 35, 52].into_iter().all(|at| head[at] == b'-');
    if !dashes || version == 0xff || (version == 0 && !rest.is_empty()) || !(rest.is_empty() || rest[0] == b'-') {
        return None;
    }
    let trace = TraceId(read_hex(&head[3..35])?);
    let span = SpanId(read_hex(&head[36..52])?);
    let [flags] = read_hex(&head[53..])?;
    let valid = trace != TraceId::default() && span != SpanId::default();
    valid.then_some((trace, span, flags & 1 == 1))
}

fn read_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn write_hex(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

// === impl TraceId, SpanId ===

impl TraceId {
    /// Never all zero, which means "none".
    pub fn random(mut random: impl FnMut() -> u64) -> TraceId {
        TraceId(((u128::from(random()) << 64) | u128::from(random().max(1))).to_be_bytes())
    }

    /// As it is written everywhere.
    pub fn hex(self) -> [u8; 32] {
        let mut text = [0; 32];
        write_hex(&self.0, &mut text);
        text
    }
}

impl SpanId {
    pub fn random(mut random: impl FnMut() -> u64) -> SpanId {
        SpanId(random().max(1).to_be_bytes())
    }

    /// As it is written everywhere.
    pub fn hex(self) -> [u8; 16] {
        let mut text = [0; 16];
        write_hex(&self.0, &mut text);
        text
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.hex()).unwrap_or_default())
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.hex()).unwrap_or_default())
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn check(field: &str, continued: bool) {
        let context = TraceContext::accept(Some(field.as_bytes()), Some(b"a=1"), false, || 7);
        assert_eq!(context.parent.is_some(), continued, "{field}");
        assert_eq!(context.state.is_some(), continued, "{field}");
    }

    #[test]
    fn only_a_valid_context_is_continued() {
        check(GOOD, true);
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", false);
        check("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", true);
        check("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x", false);
        check("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false);
        check("00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false);
        check("00-00000000000000000000000000000000-b7ad6b7169203331-01", false);
        check("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false);
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", false);
        check("", false);
    }

    #[test]
    fn what_is_passed_on_names_the_attempt_as_parent() {
        let context = TraceContext::accept(Some(GOOD.as_bytes()), None, false, || 9);
        let field = context.traceparent(SpanId(10u64.to_be_bytes()));
        assert_eq!(&field[..], b"00-0af7651916cd43dd8448eb211c80319c-000000000000000a-01");
        assert!(context.sampled);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(field in proptest::collection::vec(any::<u8>(), 0..80)) {
            TraceContext::accept(Some(&field), Some(&field), true, || 0);
        }
    }
}
