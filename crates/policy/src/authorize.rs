//! Who may do what.

use base::Call;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CompileEnv, Expr, Gives, Outside, Policy, Refusal, Scope, Spec, Stop};

/// What lets a call pass and what keeps it out, as expressions in CEL that are true or false. They may ask about
/// `api`, `route`, `consumer` (`name`, `team`), `claims` (what the verified token says) and `request` (`method`,
/// `scheme`, `version`, `host`, `path`, `query`, `headers`, `address`, `tls`), and of a call to a model about `model`
/// (`name`, `dialect`, `stream`, `prompt`, `output`, `tools`, `images`, `audio`, `documents`, `json_schema`,
/// `reasoning`): a rule that names it is asked when the call's body is understood, all others before. To use what is
/// absent is an error, and an error never lets a call pass; `has(claims.scope)` asks first.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AuthorizeSpec {
    /// One of these must be true, or the call is refused; one that cannot be evaluated is not. If it is not given,
    /// every call passes that `deny` does not keep out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// If one of these is true the call is refused, whatever `allow` says; also if one cannot be evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny: Option<Vec<String>>,
}

/// The policy.
#[derive(Debug)]
pub struct Authorize {
    allow: Option<Vec<Rule>>,
    deny: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    expr: Expr,
    /// It asks about `model`.
    of_model: bool,
}

impl Policy for Authorize {
    const NAME: &'static str = "authorize";
    type Spec = AuthorizeSpec;
    /// Whether a rule has allowed the call, or none need to.
    type Memo = bool;

    fn compile(AuthorizeSpec { allow, deny }: &AuthorizeSpec, env: &mut CompileEnv<'_>) -> Option<Authorize> {
        let before = env.errors.len();
        if allow.is_none() && deny.is_none() {
            env.error("authorize", "has no rules; expected `allow`, `deny` or both, or `none` to let every call pass");
        }
        if allow.as_ref().is_some_and(Vec::is_empty) {
            env.error("authorize.allow", "has no rules, so no call would pass; expected at least one");
        }
        let mut rules = |field: &str, rules: &[String]| {
            let mut compiled = Vec::new();
            for (at, rule) in rules.iter().enumerate() {
                match Expr::compile(rule, Gives::Truth) {
                    Ok(expr) => compiled.push(Rule { of_model: expr.names_model(), expr }),
                    Err(message) => env.error(format!("authorize.{field}[{at}]"), message),
                }
            }
            compiled
        };
        let allow = allow.as_ref().map(|it| rules("allow", it));
        let deny = rules("deny", deny.as_deref().unwrap_or_default());
        (env.errors.len() == before).then_some(Authorize { allow, deny })
    }

    async fn request(&self, call: &mut Call, _: &dyn Outside) -> Result<bool, Stop> {
        // Of a call that is for no model, what it asks of one is as absent as any other thing.
        let waits = |rule: &Rule| call.to_model && rule.of_model;
        let scope = Scope::of(call);
        if self.deny.iter().any(|rule| !waits(rule) && rule.holds(&scope, true)) {
            return Err(Refusal::Forbidden.into());
        }
        let Some(allow) = &self.allow else { return Ok(true) };
        let allowed = allow.iter().any(|rule| !waits(rule) && rule.holds(&scope, false));
        if allowed || allow.iter().any(waits) { Ok(allowed) } else { Err(Refusal::Forbidden.into()) }
    }

    async fn understood(&self, allowed: &mut bool, call: &mut Call, _: &dyn Outside) -> Result<(), Stop> {
        let scope = Scope::of(call);
        let any = |rules: &[Rule], otherwise| rules.iter().any(|it| it.of_model && it.holds(&scope, otherwise));
        let denied = any(&self.deny, true);
        if denied || !(*allowed || any(self.allow.as_deref().unwrap_or_default(), false)) {
            return Err(Refusal::Forbidden.into());
        }
        Ok(())
    }
}

impl Rule {
    /// `otherwise`, if that cannot be said.
    fn holds(&self, scope: &Scope<'_>, otherwise: bool) -> bool {
        self.expr.truth(scope).unwrap_or_else(|error| {
            tracing::debug!(rule = self.expr.text(), %error, "a rule cannot be evaluated");
            otherwise
        })
    }
}

impl Spec for AuthorizeSpec {
    const EXPECTED: &'static str = "`none`, or rules such as `allow: [\"consumer.team == 'research'\"]`";
}

#[cfg(test)]
mod tests {
    use base::Method;

    use super::*;
    use crate::Nowhere;
    use crate::testing::{call, consumer, errors, model, ready};

    fn check(json: &str, method: Method, known: bool, passes: bool) {
        let mut env = CompileEnv::new(Default::default(), "policies");
        let policy = Authorize::compile(&serde_json::from_str(json).unwrap(), &mut env).unwrap();
        let mut call = call(&[]);
        call.head.method = method.clone();
        call.consumer = known.then(|| consumer("agent"));
        match ready(policy.request(&mut call, &Nowhere)) {
            Ok(_) => assert!(passes, "{json} {method} {known}"),
            Err(Stop::Refuse(Refusal::Forbidden)) => assert!(!passes, "{json} {method} {known}"),
            Err(stop) => panic!("{stop:?}"),
        }
    }

    #[test]
    fn deny_wins_and_what_is_not_allowed_is_refused() {
        let both =
            r#"{"allow":["consumer.name == 'agent'","request.method == 'GET'"],"deny":["request.method == 'PUT'"]}"#;
        check(both, Method::GET, true, true);
        check(both, Method::POST, true, true);
        check(both, Method::PUT, true, false);
        // The first rule cannot be evaluated for nobody, the second can.
        check(both, Method::GET, false, true);
        check(both, Method::POST, false, false);

        let deny = r#"{"deny":["request.method == 'PUT'"]}"#;
        check(deny, Method::GET, false, true);
        check(deny, Method::PUT, true, false);
        check(r#"{"deny":[]}"#, Method::GET, false, true);
    }

    #[test]
    fn an_error_never_lets_a_call_pass() {
        check(r#"{"deny":["consumer.name == 'other'"]}"#, Method::GET, true, true);
        check(r#"{"deny":["consumer.name == 'other'"]}"#, Method::GET, false, false);
        check(r#"{"allow":["consumer.name != 'other'"]}"#, Method::GET, false, false);
        check(r#"{"allow":["claims.admin"]}"#, Method::GET, true, false);
    }

    #[test]
    fn rules_about_the_model_wait_until_it_is_known() {
        // Whether it passes before it is understood, and then, asking 10 and 1000 tokens.
        let check = |json: &str, to_model: bool, before: bool, then: [bool; 2]| {
            let mut env = CompileEnv::new(Default::default(), "policies");
            let policy = Authorize::compile(&serde_json::from_str(json).unwrap(), &mut env).unwrap();
            for (prompt, passes) in [10, 1000].into_iter().zip(then) {
                let mut call = call(&[]);
                call.to_model = to_model;
                let first = ready(policy.request(&mut call, &Nowhere));
                assert_eq!(first.is_ok(), before, "{json}");
                let Ok(mut memo) = first else { continue };
                call.model = model(prompt, 10, 0);
                let second = ready(policy.understood(&mut memo, &mut call, &Nowhere));
                assert_eq!(second.is_ok(), passes, "{json} {prompt}");
            }
        };
        check(r#"{"allow":["model.prompt < 100"]}"#, true, true, [true, false]);
        check(r#"{"deny":["model.prompt > 100"]}"#, true, true, [true, false]);
        check(r#"{"allow":["request.method == 'GET'"],"deny":["model.prompt > 100"]}"#, true, true, [true, false]);
        check(r#"{"allow":["request.method == 'PUT'","model.prompt > 100"]}"#, true, true, [false, true]);
        check(r#"{"allow":["request.method == 'GET'","model.prompt > 100"]}"#, true, true, [true, true]);
        check(r#"{"allow":["model.prompt < 100"],"deny":["request.method == 'GET'"]}"#, true, false, [false; 2]);
        check(r#"{"allow":["request.method == 'PUT'"],"deny":["model.tools"]}"#, true, false, [false; 2]);
        // Of a call for no model there is nothing to wait for.
        check(r#"{"allow":["model.prompt < 100"]}"#, false, false, [false; 2]);
        check(r#"{"deny":["model.prompt > 100"]}"#, false, false, [false; 2]);
        check(r#"{"deny":["has(model.prompt) && model.prompt > 100"]}"#, false, true, [true, false]);
    }

    #[test]
    fn wrong_rules_are_told() {
        let check = |json: &str, path: &[&str]| assert_eq!(errors(json), path, "{json}");
        check(r#"{"authorize":{}}"#, &["authorize"]);
        check(r#"{"authorize":{"allow":[]}}"#, &["authorize.allow"]);
        check(
            r#"{"authorize":{"allow":["true","reqest"],"deny":["request.path"]}}"#,
            &["authorize.allow[1]", "authorize.deny[0]"],
        );
    }
}
