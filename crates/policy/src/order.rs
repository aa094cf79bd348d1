//! The policies there are, in the order in which a call meets them. Each has its line here, and the reason why it
//! stands there; answers meet them the other way round, and so does what passes through them of a body.

use std::sync::Arc;

use base::{Call, Reply, RequestHead};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::passage::{Steps, enter, filter, forward, leave, settle, understand};
use crate::policies::{CompileEnv, compile, pick};
use crate::specs::Setting;
use crate::{
    Admit, AnswerCache, Authenticate, Authorize, Cache, Compress, Cors, External, Filter, HeaderEdits, Ip, Limits,
    Outside, Policy, Refusal, Sizes, Stop, Transform, Usage,
};

policies! {
    // Smaller: first, and so last on the way out: it sees answers as they will be, and what other policies do to
    // bodies they do to plain ones. On the way in it only notes what the caller can read.
    /// Answers made smaller on their way to callers that can undo it.
    compress: Compress,

    // From where: before all else, since it costs least and nothing is owed to those it turns away.
    /// From which networks calls may come.
    ip: Ip,

    // Browsers: before whatever else refuses, so that pages can read why; before who, since preflights carry no
    // credentials.
    /// Which web pages of other origins may call, and read the answers.
    cors: Cors,

    // How large: before who, since what is too large is not worth a look at its sender.
    /// How large messages may be.
    size: Sizes,

    // Who: all that follows may ask who calls.
    /// Who calls, and how callers prove it.
    authenticate: Authenticate,

    // May: before how much, so that what is not allowed uses up nobody's share.
    /// Which calls are let through, by what is known of them.
    authorize: Authorize,

    // Somebody else's word: after all that is decided here, since it takes a question over the network; before how
    // much, as is authorize.
    /// Somebody else who is asked whether a call may pass.
    external: External,

    // How much: after who, so that a stranger cannot use up a consumer's share.
    /// How many calls are let through per time; a call must be within all of the rules.
    limit: Limits,

    // How much there is room for: after how much, so that who has used up his share takes nobody's place. Whether there
    // is room is asked when the call goes to its upstream, so that an answer that is stored needs none.
    /// How many calls at a time go to the upstream, by how it does.
    admit: Admit,

    // Already known: what is kept is given only to those whom all before have let in. The policy is the settings; the
    // stage behind the policies uses them, so that an answer is known by the request as the upstream would see it.
    /// Answers that are given again without asking the upstream.
    cache: Cache,

    // Already known, of models: as `cache`, for calls whose body says what is asked. Also settings: a call to a model is
    // understood behind the policies.
    /// Answers of models that are given again without asking a provider.
    answer_cache: AnswerCache,

    // Changes by what is known: late, so that no policy decides by what they make of a call; before the edits, which
    // have the last word.
    /// Changes to requests and answers by expressions.
    transform: Transform,

    // Edits: last, so that no policy decides by a field that the operator and not the caller wrote.
    /// Changes to the fields of requests and responses.
    headers: HeaderEdits,
}

macro_rules! policies {
    ($($(#[doc = $doc:literal])+ $name:ident: $policy:ident,)+) => {
        /// What is done to calls on their way. A policy named here replaces the one of the same name further
        /// out (document, api, route), whole; `none` switches it off; one that is not named is inherited.
        #[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        pub struct Specs {
            $(
                $(#[doc = $doc])+
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $name: Option<Setting<<$policy as Policy>::Spec>>,
            )+
        }

        /// The policies of the document, an api or a route; one for each that is on.
        #[derive(Clone, Debug, Default)]
        pub struct Policies {
            /// Where in the document they stand; tells the routes under one limit apart.
            pub scope: Arc<str>,
            $(pub $name: Option<Arc<$policy>>,)+
        }

        /// What each policy that a call has met keeps for the way back.
        #[derive(Default)]
        pub(crate) struct Memos {
            $($name: Option<<$policy as Policy>::Memo>,)+
        }

        /// How many there are.
        pub(crate) const POLICIES: usize = [$(<$policy as Policy>::NAME),+].len();

        impl Specs {
            /// These over those of the place around.
            pub fn over(&self, general: &Specs) -> Specs {
                let own = self.clone();
                Specs { $($name: own.$name.or_else(|| general.$name.clone()),)+ }
            }
        }

        impl Policies {
            /// Compiles what is written at one place. What is wrong is told to `env` and left out.
            pub fn compile(specs: &Specs, env: &mut CompileEnv<'_>) -> Policies {
                Policies { scope: env.scope.as_str().into(), $($name: compile(&specs.$name, env),)+ }
            }

            /// These, compiled from `specs`, over those of the place around: what `specs` names replaces the
            /// policy above it, whole, also by nothing; what it does not name is shared with its state.
            pub fn over(&self, general: &Policies, specs: &Specs) -> Policies {
                Policies {
                    scope: self.scope.clone(),
                    $($name: pick(&specs.$name, &self.$name, &general.$name, &self.scope),)+
                }
            }

            /// True if no call has anything to do with them.
            pub fn is_empty(&self) -> bool {
                true $(&& self.$name.is_none())+
            }

            /// Inwards, as far as the call is let.
            pub(crate) async fn request(
                &self,
                memos: &mut Memos,
                call: &mut Call,
                outside: &dyn Outside,
                steps: &mut Steps,
            ) -> Result<(), Stop> {
                $(enter(&self.$name, &mut memos.$name, call, outside, steps).await?;)+
                Ok(())
            }

            /// Inwards once more, when it is known what a call asks of a model. Who stops it is named.
            pub(crate) async fn understood(
                &self,
                memos: &mut Memos,
                call: &mut Call,
                outside: &dyn Outside,
            ) -> Result<(), (&'static str, Stop)> {
                $(understand(&self.$name, &mut memos.$name, call, outside).await?;)+
                Ok(())
            }

            /// The call goes to its upstream, if nobody keeps it from that.
            pub(crate) fn forward(
                &self,
                memos: &mut Memos,
                call: &Call,
                outside: &dyn Outside,
            ) -> Result<(), Refusal> {
                $(forward(&self.$name, &mut memos.$name, call, outside)?;)+
                Ok(())
            }

            /// What the request's body passes through, the outermost first.
            pub(crate) fn request_body(&self, memos: &mut Memos, head: &mut RequestHead) -> Vec<Box<dyn Filter>> {
                let mut filters = Vec::new();
                $(filter(&self.$name, &mut memos.$name, &mut filters, |policy, memo| policy.request_body(memo, head));)+
                filters
            }
        }

        backwards! { [] $($name)+ }
    };
}

/// The halves that run against the order.
macro_rules! backwards {
    ([$($done:ident)*] $next:ident $($rest:ident)*) => {
        backwards! { [$next $($done)*] $($rest)* }
    };
    ([$($name:ident)+]) => {
        impl Policies {
            /// Outwards, and only through the policies that the call has met; refused calls too.
            pub(crate) fn response(&self, memos: &mut Memos, reply: &mut Reply) {
                $(leave(&self.$name, &mut memos.$name, reply);)+
            }

            /// What the answer's body passes through, the innermost first.
            pub(crate) fn response_body(&self, memos: &mut Memos, reply: &mut Reply) -> Vec<Box<dyn Filter>> {
                let mut filters = Vec::new();
                $(filter(&self.$name, &mut memos.$name, &mut filters, |policy, memo| policy.response_body(memo, reply));)+
                filters
            }

            pub(crate) fn settle(&self, memos: &mut Memos, usage: Usage) {
                $(settle(&self.$name, memos.$name.take(), usage);)+
            }
        }
    };
}

use {backwards, policies};
