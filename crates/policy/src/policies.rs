//! How policies are compiled, and how a narrower place inherits them.

use std::sync::Arc;

use base::SecretRef;

use crate::{Credentials, Policies, Policy, Setting};

/// What compiling policies needs from around them, and where it leaves its complaints.
pub struct CompileEnv<'a> {
    /// By what the consumers are known.
    pub credentials: Arc<Credentials>,
    /// Where in the document the policies stand, such as `apis.orders`; the same over reloads.
    pub scope: String,
    /// What the same scope had before a reload: limits that are still written so keep their counts.
    pub previous: Option<&'a Policies>,
    /// Where, relative to the policies' map (`limit[0].rate`), and what.
    pub errors: Vec<(String, String)>,
    /// How many consumers the document has.
    pub consumers: usize,
    /// The stores that nodes share, by the names that the document gives them, and how many nodes there are at least.
    pub stores: Vec<(Arc<str>, u32)>,
    /// Reads what a policy refers to, a file or a variable; says why if it cannot.
    pub read: &'a dyn Fn(&SecretRef) -> Result<Vec<u8>, String>,
}

pub(crate) fn compile<P: Policy>(setting: &Option<Setting<P::Spec>>, env: &mut CompileEnv<'_>) -> Option<Arc<P>> {
    match setting {
        Some(Setting::On(spec)) => P::compile(spec, env).map(Arc::new),
        Some(Setting::Off) | None => None,
    }
}

/// What a place has: its own if it names one, else that of the place around.
pub(crate) fn pick<P: Policy>(
    named: &Option<Setting<P::Spec>>,
    own: &Option<Arc<P>>,
    general: &Option<Arc<P>>,
    scope: &str,
) -> Option<Arc<P>> {
    match named {
        Some(_) => own.clone(),
        None => general.as_ref().map(|policy| P::inherited(policy, scope)),
    }
}

// === impl CompileEnv ===

impl CompileEnv<'_> {
    pub fn new(credentials: Arc<Credentials>, scope: impl Into<String>) -> CompileEnv<'static> {
        let read = &|reference: &SecretRef| Err(format!("there is nowhere to read {reference}"));
        CompileEnv {
            credentials,
            scope: scope.into(),
            previous: None,
            errors: Vec::new(),
            consumers: 0,
            stores: Vec::new(),
            read,
        }
    }

    pub(crate) fn error(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.errors.push((path.into(), message.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Specs;

    fn specs(json: &str) -> Specs {
        serde_json::from_str(json).unwrap()
    }

    fn compile(scope: &str, specs: &Specs) -> Policies {
        let mut env = CompileEnv::new(Arc::default(), scope);
        let policies = Policies::compile(specs, &mut env);
        assert!(env.errors.is_empty(), "{:?}", env.errors);
        policies
    }

    #[test]
    fn what_is_named_replaces_and_what_is_not_is_shared() {
        let general = specs(
            r#"{"authenticate":{"api-key":{}},"limit":[{"per":"all","rate":"1/s"}],
                "headers":{"request":{"set":{"x-a":"1"}}}}"#,
        );
        let narrow = specs(r#"{"authenticate":"none","headers":{"request":{"set":{"x-a":"2"}}}}"#);
        let above = compile("policies", &general);
        let own = compile("apis.a", &narrow);
        let both = own.over(&above, &narrow);
        assert!(both.authenticate.is_none());
        assert!(Arc::ptr_eq(both.limit.as_ref().unwrap(), above.limit.as_ref().unwrap()));
        assert!(Arc::ptr_eq(both.headers.as_ref().unwrap(), own.headers.as_ref().unwrap()));
        assert_eq!(&*both.scope, "apis.a");
    }
}
