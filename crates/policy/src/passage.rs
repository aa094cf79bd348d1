//! One call's passage through the policies of its route; their order is in `order.rs`.

use std::sync::Arc;

use base::{Call, Reply, RequestHead};

use crate::order::{Memos, POLICIES};
use crate::{Filter, Filters, Outside, Policies, Policy, Refusal, Stop, Usage};

/// Settles when dropped, unless it was settled before, so that what was reserved comes back wherever the call ends.
pub struct Passage {
    policies: Arc<Policies>,
    memos: Memos,
}

/// Which policies a call has met, and whether they let it pass. For observers; never read to decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    steps: [(&'static str, bool); POLICIES],
    len: u8,
}

// === impl Passage ===

impl Passage {
    pub fn new(policies: Arc<Policies>) -> Passage {
        Passage { policies, memos: Memos::default() }
    }

    /// Inwards, through one policy after another, as far as the call is let.
    pub async fn request(&mut self, call: &mut Call, outside: &dyn Outside, steps: &mut Steps) -> Result<(), Stop> {
        self.policies.request(&mut self.memos, call, outside, steps).await
    }

    /// Inwards once more, when it is known what the call asks of a model; asked once. Who stops it is named.
    pub async fn understood(&mut self, call: &mut Call, outside: &dyn Outside) -> Result<(), (&'static str, Stop)> {
        self.policies.understood(&mut self.memos, call, outside).await
    }

    /// The call goes to its upstream, and not to an answer that is known; asked once.
    pub fn forward(&mut self, call: &Call, outside: &dyn Outside) -> Result<(), Refusal> {
        self.policies.forward(&mut self.memos, call, outside)
    }

    /// What the request's body passes through on its way to the upstream.
    pub fn request_body(&mut self, head: &mut RequestHead) -> Filters {
        Filters::new(self.policies.request_body(&mut self.memos, head))
    }

    /// Backwards, and only through the policies that the call has met; refused calls too.
    pub fn response(&mut self, reply: &mut Reply) {
        self.policies.response(&mut self.memos, reply);
    }

    /// What the answer's body passes through on its way to the client.
    pub fn response_body(&mut self, reply: &mut Reply) -> Filters {
        Filters::new(self.policies.response_body(&mut self.memos, reply))
    }

    /// The call is over, and this is what it came to.
    pub fn settle(&mut self, usage: Usage) {
        self.policies.settle(&mut self.memos, usage);
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.policies.settle(&mut self.memos, Usage::default());
    }
}

/// The one wrapper round every policy's request half.
pub(crate) async fn enter<P: Policy>(
    policy: &Option<Arc<P>>,
    memo: &mut Option<P::Memo>,
    call: &mut Call,
    outside: &dyn Outside,
    steps: &mut Steps,
) -> Result<(), Stop> {
    let Some(policy) = policy else { return Ok(()) };
    let verdict = policy.request(call, outside).await;
    steps.push(P::NAME, verdict.is_ok());
    match verdict {
        Ok(left) => {
            *memo = Some(left);
            Ok(())
        }
        Err(stop) => {
            *memo = policy.refused(call);
            Err(stop)
        }
    }
}

pub(crate) async fn understand<P: Policy>(
    policy: &Option<Arc<P>>,
    memo: &mut Option<P::Memo>,
    call: &mut Call,
    outside: &dyn Outside,
) -> Result<(), (&'static str, Stop)> {
    match (policy, memo) {
        (Some(policy), Some(memo)) => policy.understood(memo, call, outside).await.map_err(|stop| (P::NAME, stop)),
        _ => Ok(()),
    }
}

pub(crate) fn forward<P: Policy>(
    policy: &Option<Arc<P>>,
    memo: &mut Option<P::Memo>,
    call: &Call,
    outside: &dyn Outside,
) -> Result<(), Refusal> {
    match (policy, memo) {
        (Some(policy), Some(memo)) => policy.forward(memo, call, outside),
        _ => Ok(()),
    }
}

pub(crate) fn leave<P: Policy>(policy: &Option<Arc<P>>, memo: &mut Option<P::Memo>, reply: &mut Reply) {
    if let (Some(policy), Some(memo)) = (policy, memo) {
        policy.response(memo, reply);
    }
}

pub(crate) fn filter<P: Policy>(
    policy: &Option<Arc<P>>,
    memo: &mut Option<P::Memo>,
    filters: &mut Vec<Box<dyn Filter>>,
    of: impl FnOnce(&P, &mut P::Memo) -> Option<Box<dyn Filter>>,
) {
    if let (Some(policy), Some(memo)) = (policy, memo) {
        filters.extend(of(policy, memo));
    }
}

pub(crate) fn settle<P: Policy>(policy: &Option<Arc<P>>, memo: Option<P::Memo>, usage: Usage) {
    if let (Some(policy), Some(memo)) = (policy, memo) {
        policy.settle(memo, usage);
    }
}

// === impl Steps ===

impl Steps {
    pub fn new() -> Steps {
        Steps::default()
    }

    /// In the order the call met them; only the last can be false.
    pub fn as_slice(&self) -> &[(&'static str, bool)] {
        &self.steps[..usize::from(self.len)]
    }

    /// The policy that stopped the call, if one did.
    pub fn stopped_by(&self) -> Option<&'static str> {
        self.as_slice().iter().find(|(_, passed)| !passed).map(|(name, _)| *name)
    }

    fn push(&mut self, name: &'static str, passed: bool) {
        // A record that is used twice keeps what it saw first.
        if let Some(step) = self.steps.get_mut(usize::from(self.len)) {
            *step = (name, passed);
            self.len += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{call, compile, ready};
    use crate::{Nowhere, testing};
    use base::StatusCode;

    fn walk(policies: &Arc<Policies>, headers: &[(&str, &str)]) -> (Result<(), Stop>, Steps, Reply) {
        let mut call = call(headers);
        let mut steps = Steps::new();
        let mut passage = Passage::new(policies.clone());
        let verdict = ready(passage.request(&mut call, &Nowhere, &mut steps));
        let mut reply = Reply::new(StatusCode::OK);
        passage.response(&mut reply);
        (verdict, steps, reply)
    }

    #[test]
    fn policies_are_met_in_order_and_no_further_than_the_first_that_stops() {
        let policies = Arc::new(compile(
            r#"{
                "authenticate": { "api-key": {} },
                "limit": [{ "per": "consumer", "rate": "1/h" }],
                "headers": { "response": { "set": { "x-a": "1" } } }
            }"#,
        ));
        let key = [("x-api-key", testing::KEY)];

        let (verdict, steps, reply) = walk(&policies, &[]);
        assert!(matches!(verdict, Err(Stop::Refuse(Refusal::Unauthenticated { .. }))));
        assert_eq!(steps.as_slice(), [("authenticate", false)]);
        assert!(reply.headers.is_empty());

        let (verdict, steps, reply) = walk(&policies, &key);
        assert!(verdict.is_ok());
        assert_eq!(steps.as_slice(), [("authenticate", true), ("limit", true), ("headers", true)]);
        assert_eq!(steps.stopped_by(), None);
        assert!(reply.headers.contains("x-a") && reply.headers.contains("ratelimit"));

        let (verdict, steps, reply) = walk(&policies, &key);
        assert!(matches!(verdict, Err(Stop::Refuse(Refusal::RateLimited { .. }))));
        assert_eq!(steps.stopped_by(), Some("limit"));
        assert!(!reply.headers.contains("x-a"), "not met");
        assert_eq!(reply.headers.get_str("ratelimit"), Some("\"consumer\";r=0;t=3600"), "the refuser has its say");
    }

    #[test]
    fn no_policies_let_everything_pass() {
        let (verdict, steps, reply) = walk(&Arc::default(), &[]);
        assert!(verdict.is_ok() && steps.as_slice().is_empty() && reply.headers.is_empty());
    }
}
