//! The compiled policies of one place in the document, and how a narrower place inherits them.

use std::sync::Arc;

use crate::{Authenticate, HeaderEdits, Keys, Limits, Setting, Specs};

/// The policies of the document, an api or a route; one for each that is on.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// Where in the document they stand; tells the routes under one limit apart.
    pub scope: Arc<str>,
    pub authenticate: Option<Arc<Authenticate>>,
    pub limit: Option<Arc<Limits>>,
    pub headers: Option<Arc<HeaderEdits>>,
}

/// What compiling policies needs from around them, and where it leaves its complaints.
pub struct CompileEnv<'a> {
    /// The keys of all consumers.
    pub keys: Arc<Keys>,
    /// Where in the document the policies stand, such as `apis.orders`; the same over reloads.
    pub scope: String,
    /// What the same scope had before a reload: limits that are still written so keep their counts.
    pub previous: Option<&'a Policies>,
    /// Where, relative to the policies' map (`limit[0].rate`), and what.
    pub errors: Vec<(String, String)>,
    /// How many consumers the document has.
    pub consumers: usize,
}

// === impl Policies ===

impl Policies {
    /// Compiles what is written at one place. What is wrong is told to `env` and left out.
    pub fn compile(specs: &Specs, env: &mut CompileEnv<'_>) -> Policies {
        let Specs { authenticate, limit, headers } = specs;
        Policies {
            scope: env.scope.as_str().into(),
            authenticate: on(authenticate).and_then(|spec| Authenticate::compile(spec, env)).map(Arc::new),
            limit: on(limit).and_then(|spec| Limits::compile(spec, env)).map(Arc::new),
            headers: on(headers).and_then(|spec| HeaderEdits::compile(spec, env)).map(Arc::new),
        }
    }

    /// These, compiled from `specs`, over those of the place around: what `specs` names replaces the
    /// policy above it, whole, also by nothing; what it does not name is shared with its state.
    pub fn over(&self, general: &Policies, specs: &Specs) -> Policies {
        let Policies { scope, authenticate, limit, headers } = self;
        let general_limit = general.limit.as_ref().map(|limit| Limits::for_route(limit, scope));
        Policies {
            scope: scope.clone(),
            authenticate: pick(&specs.authenticate, authenticate, general.authenticate.clone()),
            limit: pick(&specs.limit, limit, general_limit),
            headers: pick(&specs.headers, headers, general.headers.clone()),
        }
    }
}

fn on<T>(setting: &Option<Setting<T>>) -> Option<&T> {
    match setting {
        Some(Setting::On(spec)) => Some(spec),
        Some(Setting::Off) | None => None,
    }
}

fn pick<T, P>(named: &Option<Setting<T>>, own: &Option<Arc<P>>, general: Option<Arc<P>>) -> Option<Arc<P>> {
    match named {
        Some(_) => own.clone(),
        None => general,
    }
}

// === impl CompileEnv ===

impl CompileEnv<'_> {
    pub fn new(keys: Arc<Keys>, scope: impl Into<String>) -> CompileEnv<'static> {
        CompileEnv { keys, scope: scope.into(), previous: None, errors: Vec::new(), consumers: 0 }
    }

    pub(crate) fn error(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.errors.push((path.into(), message.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
