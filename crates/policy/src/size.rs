//! How large messages may be.

use base::{Call, Reply, RequestHead, Size};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CompileEnv, Filter, Outside, Policy, Refusal, Spec, Stop};

/// How large messages may be; what is not given is bounded by the listener's `limits` alone, and bodies by nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SizeSpec {
    /// How long path and query may be together; longer ones are refused with 414.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Size>,
    /// How large names and values of the request's fields may be together; larger ones are refused with 431.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Size>,
    /// How many fields a request may have; more are refused with 431.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<u64>,
    /// How large a request's body may be; `0B` for none. A larger one is refused with 413: at once if its length is
    /// announced, else where it goes beyond, and then the upstream has not got all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Size>,
    /// How large an answer's body may be. A larger one is replaced by a 502 if its length is announced; else it is
    /// cut where it goes beyond, so that the caller can see that it is not whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Size>,
}

/// The policy.
#[derive(Debug)]
pub struct Sizes {
    target: usize,
    head: usize,
    fields: usize,
    body: Option<u64>,
    response: Option<u64>,
}

/// Whether the request's body is to be counted.
pub struct Memo {
    counts: bool,
}

/// Lets so much pass.
struct Counter {
    left: u64,
    beyond: Refusal,
}

impl Policy for Sizes {
    const NAME: &'static str = "size";
    type Spec = SizeSpec;
    type Memo = Memo;

    fn compile(spec: &SizeSpec, env: &mut CompileEnv<'_>) -> Option<Sizes> {
        if *spec == SizeSpec::default() {
            env.error("size", "has no limit; expected at least one, such as `body: 10MiB`, or `none`");
            return None;
        }
        let SizeSpec { target, head, fields, body, response } = spec;
        if target.is_some_and(|size| size.0 == 0) {
            env.error("size.target", "no path is that short; expected at least `1B`");
        }
        let most = |limit: Option<u64>| limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Some(Sizes {
            target: most(target.map(|size| size.0)),
            head: most(head.map(|size| size.0)),
            fields: most(*fields),
            body: body.map(|size| size.0),
            response: response.map(|size| size.0),
        })
    }

    async fn request(&self, call: &mut Call, _: &dyn Outside) -> Result<Memo, Stop> {
        let Sizes { target, head, fields, body, response: _ } = self;
        if call.head.target.len() > *target {
            return Err(Refusal::TargetTooLong.into());
        }
        let headers = &call.head.headers;
        if headers.len() > *fields || headers.bytes() > *head {
            return Err(Refusal::FieldsTooLarge.into());
        }
        match (body, call.length) {
            (Some(most), Some(length)) if length > *most => Err(Refusal::ContentTooLarge.into()),
            // What is announced and comes differently is refused by the transport.
            (most, length) => Ok(Memo { counts: most.is_some() && length.is_none() }),
        }
    }

    fn request_body(&self, memo: &mut Memo, _: &mut RequestHead) -> Option<Box<dyn Filter>> {
        let left = self.body.filter(|_| memo.counts)?;
        Some(Box::new(Counter { left, beyond: Refusal::ContentTooLarge }))
    }

    fn response_body(&self, _: &mut Memo, _: &mut Reply) -> Option<Box<dyn Filter>> {
        Some(Box::new(Counter { left: self.response?, beyond: Refusal::AnswerTooLarge }))
    }
}

impl Filter for Counter {
    fn begin(&mut self, length: Option<u64>) -> Result<(), Stop> {
        match length.is_some_and(|length| length > self.left) {
            true => Err(self.beyond.clone().into()),
            false => Ok(()),
        }
    }

    fn piece(&mut self, data: Bytes) -> Result<Bytes, Stop> {
        self.left = self.left.checked_sub(data.len() as u64).ok_or_else(|| self.beyond.clone())?;
        Ok(data)
    }

    fn keeps_length(&self) -> bool {
        true
    }
}

impl Spec for SizeSpec {
    const EXPECTED: &'static str = "`none`, or limits, such as `body: 10MiB`";
}

#[cfg(test)]
mod tests {
    use base::StatusCode;

    use super::*;
    use crate::Nowhere;
    use crate::testing::{call, compile, errors, ready};

    fn refusal(stop: Stop) -> Refusal {
        match stop {
            Stop::Refuse(refusal) => refusal,
            Stop::Answer(..) => panic!("an answer"),
        }
    }

    #[test]
    fn what_is_beyond_a_limit_is_refused_and_what_is_at_it_passes() {
        let check = |size: &str, target: &str, length: Option<u64>, expected: Option<Refusal>| {
            let policy = compile(&format!(r#"{{"size":{size}}}"#)).size.unwrap();
            let mut call = call(&[("x-a", "12345"), ("x-b", "12345")]);
            call.head.target = target.into();
            call.length = length;
            let verdict = ready(policy.request(&mut call, &Nowhere)).err().map(refusal);
            assert_eq!(verdict, expected, "{size} {target} {length:?}");
        };
        check(r#"{"target":"5B"}"#, "/abc?", None, None);
        check(r#"{"target":"5B"}"#, "/abc?d", None, Some(Refusal::TargetTooLong));
        check(r#"{"fields":2}"#, "/", None, None);
        check(r#"{"fields":1}"#, "/", None, Some(Refusal::FieldsTooLarge));
        check(r#"{"head":"16B"}"#, "/", None, None);
        check(r#"{"head":"15B"}"#, "/", None, Some(Refusal::FieldsTooLarge));
        check(r#"{"body":"1KiB"}"#, "/", Some(1024), None);
        check(r#"{"body":"1KiB"}"#, "/", Some(1025), Some(Refusal::ContentTooLarge));
        check(r#"{"body":"1KiB"}"#, "/", None, None);
        check(r#"{"body":"0B"}"#, "/", Some(0), None);
        check(r#"{"body":"0B"}"#, "/", Some(1), Some(Refusal::ContentTooLarge));
        check(r#"{"response":"1B"}"#, "/", Some(1 << 40), None);
    }

    #[test]
    fn a_body_is_counted_only_if_its_length_is_not_told() {
        let policy = compile(r#"{"size":{"body":"4B"}}"#).size.unwrap();
        let mut call = call(&[]);
        for (length, counted) in [(Some(3), false), (None, true)] {
            call.length = length;
            let mut memo = ready(policy.request(&mut call, &Nowhere)).ok().unwrap();
            assert_eq!(policy.request_body(&mut memo, &mut call.head).is_some(), counted);
            assert!(policy.response_body(&mut memo, &mut Reply::new(StatusCode::OK)).is_none());
        }
        let mut memo = Memo { counts: true };
        let mut filter = policy.request_body(&mut memo, &mut call.head).unwrap();
        assert_eq!(filter.piece("abc".into()).unwrap(), "abc");
        assert_eq!(filter.piece("d".into()).unwrap(), "d");
        assert_eq!(refusal(filter.piece("e".into()).unwrap_err()), Refusal::ContentTooLarge);
    }

    #[test]
    fn an_answer_that_says_it_is_too_large_is_stopped_before_it_begins() {
        let policy = compile(r#"{"size":{"response":"4B"}}"#).size.unwrap();
        let filter = || policy.response_body(&mut Memo { counts: false }, &mut Reply::new(StatusCode::OK)).unwrap();
        assert!(filter().begin(Some(4)).is_ok() && filter().begin(None).is_ok());
        assert_eq!(refusal(filter().begin(Some(5)).unwrap_err()), Refusal::AnswerTooLarge);
        assert_eq!(refusal(filter().piece("abcde".into()).unwrap_err()), Refusal::AnswerTooLarge);
    }

    #[test]
    fn limits_that_limit_nothing_are_told() {
        assert_eq!(errors(r#"{"size":{}}"#), ["size"]);
        assert_eq!(errors(r#"{"size":{"target":"0B"}}"#), ["size.target"]);
    }
}
