//! The same body with the little that must differ, byte for byte otherwise.

use std::borrow::Cow;
use std::ops::Range;

use crate::json;
use crate::peek::Peek;

/// What to change in a body on its way to a provider of the same dialect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Splice<'m> {
    /// The name of the model there.
    pub model: Option<&'m str>,
    /// Ask for the usage at the end of a stream of chat completions, whether or not the caller did. If he did not
    /// ([`Peek::usage_asked`]), it is to be kept from him: [`stream::Options::hide_usage`](crate::stream::Options).
    pub include_usage: bool,
}

/// The body with what [`Splice`] says. `peek` is what was found in this very body.
pub fn splice<'b>(body: &'b [u8], peek: &Peek, change: &Splice<'_>) -> Cow<'b, [u8]> {
    let mut edits: Vec<(Range<usize>, Vec<u8>)> = Vec::with_capacity(2);
    if let (Some(model), Some(at)) = (change.model, &peek.model) {
        let mut quoted = Vec::with_capacity(model.len() + 2);
        json::quote(model, &mut quoted);
        if body.get(at.clone()) != quoted.get(1..quoted.len() - 1) {
            edits.push((at.start - 1..at.end + 1, quoted));
        }
    }
    for at in change.model.iter().flat_map(|_| &peek.places.models) {
        let mut quoted = Vec::with_capacity(64);
        json::quote(&format!("models/{}", change.model.unwrap_or_default()), &mut quoted);
        edits.push((at.start - 1..at.end + 1, quoted));
    }
    if change.include_usage && peek.stream && !peek.usage_asked {
        edits.push(include_usage(body, peek));
    }
    if edits.is_empty() {
        return Cow::Borrowed(body);
    }
    edits.sort_by_key(|(at, _)| at.start);
    let mut out = Vec::with_capacity(body.len() + edits.iter().map(|(_, new)| new.len()).sum::<usize>());
    let mut from = 0;
    for (at, new) in edits {
        out.extend_from_slice(&body[from..at.start]);
        out.extend_from_slice(&new);
        from = at.end;
    }
    out.extend_from_slice(&body[from..]);
    Cow::Owned(out)
}

fn include_usage(body: &[u8], peek: &Peek) -> (Range<usize>, Vec<u8>) {
    let places = &peek.places;
    match (&places.include_usage, &places.stream_options) {
        (Some(value), _) => (value.clone(), b"true".to_vec()),
        (None, Some(options)) if body[options.start] == b'{' => {
            let empty = body[options.start + 1..options.end - 1].trim_ascii().is_empty();
            let field = if empty { "\"include_usage\":true" } else { "\"include_usage\":true," };
            (options.start + 1..options.start + 1, field.into())
        }
        (None, Some(null)) => (null.clone(), br#"{"include_usage":true}"#.to_vec()),
        // The body is not empty: it has `stream`.
        (None, None) => (places.open..places.open, br#""stream_options":{"include_usage":true},"#.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;
    use crate::peek::peek;

    fn check(body: &str, change: Splice<'_>, expected: &str) {
        let found = peek(Dialect::OpenAiChat, body.as_bytes()).unwrap();
        let out = splice(body.as_bytes(), &found, &change);
        assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
    }

    #[test]
    fn only_the_model_changes() {
        let model = Splice { model: Some("gpt \"x\""), include_usage: false };
        check(r#"{ "model" : "a\u0062",  "x":1e400 }"#, model, r#"{ "model" : "gpt \"x\"",  "x":1e400 }"#);
        check(r#"{"model":"","messages":[]}"#, model, r#"{"model":"gpt \"x\"","messages":[]}"#);
        check(r#"{"messages":[]}"#, model, r#"{"messages":[]}"#);
        let same = Splice { model: Some("a"), include_usage: false };
        let body = br#"{"model":"a"}"#;
        let found = peek(Dialect::OpenAiChat, body).unwrap();
        assert!(matches!(splice(body, &found, &same), Cow::Borrowed(_)));
    }

    #[test]
    fn usage_is_asked_for_whatever_the_caller_wrote() {
        let usage = Splice { model: Some("b"), include_usage: true };
        check(
            r#"{"stream":true,"model":"a"}"#,
            usage,
            r#"{"stream_options":{"include_usage":true},"stream":true,"model":"b"}"#,
        );
        check(
            r#"{"stream":true,"stream_options":{ },"model":"a"}"#,
            usage,
            r#"{"stream":true,"stream_options":{"include_usage":true },"model":"b"}"#,
        );
        check(
            r#"{"stream":true,"stream_options":{"x":1},"model":"a"}"#,
            usage,
            r#"{"stream":true,"stream_options":{"include_usage":true,"x":1},"model":"b"}"#,
        );
        check(
            r#"{"stream_options":{"x":1,"include_usage":false},"stream":true}"#,
            usage,
            r#"{"stream_options":{"x":1,"include_usage":true},"stream":true}"#,
        );
        check(
            r#"{"stream_options":{"include_usage":null},"stream":true}"#,
            usage,
            r#"{"stream_options":{"include_usage":true},"stream":true}"#,
        );
        check(
            r#"{"stream_options":null,"stream":true}"#,
            usage,
            r#"{"stream_options":{"include_usage":true},"stream":true}"#,
        );
        check(
            r#"{"stream_options":{"include_usage":true},"stream":true}"#,
            usage,
            r#"{"stream_options":{"include_usage":true},"stream":true}"#,
        );
        check(r#"{"stream":false,"model":"b"}"#, usage, r#"{"stream":false,"model":"b"}"#);
    }
}
