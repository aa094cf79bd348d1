//! The document as a person writes it: every field optional that has a default. One-to-one with the
//! text; the comments here are the reference.

use policy::Specs;
use schemars::JsonSchema;
use serde::Deserialize;

/// Declares a map of the document: unknown fields are errors, keys are in kebab case.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
    };
}

mod apis;
mod consumers;
mod listeners;
mod models;
mod node;
mod shapes;
mod telemetry;
mod upstreams;

pub use apis::{Api, Match, Mirror, Redirect, Respond, Rewrite, Route, Split, Wanted};
pub use consumers::{ClientCertificate, Consumer, Key};
pub use listeners::{
    Acme, Certificate, Challenge, ClientCertificates, ExternalAccount, Listener, ListenerLimits, ListenerTls,
};
pub use models::{Candidate, Choose, Ledger, Llm, Model, OneOrManySecrets, Provider, Sync};
pub use node::{Admin, Cache, CacheDisk, Dns, Node, SharedStore};
pub use shapes::{FromText, Named, OneOrMany, OrNone, OrText};
pub use telemetry::{Otlp, OtlpProtocol, Telemetry};
pub use upstreams::{
    After, Balance, Breaker, ClientTls, Connections, Eject, Endpoint, EndpointLimits, HashBy, Health, Hedge, Limits,
    Protocol, Retry, Timeouts, Upstream, Zones,
};

section! {
    /// A Weir document.
    Document {
        /// The version of this format: 1.
        version: Option<u32>,
        /// What concerns the process as a whole.
        node: Node,
        /// Where calls come in. None given: one named `default` on 127.0.0.1:8080.
        listeners: Named<Listener>,
        /// Pools of endpoints that serve apis.
        upstreams: Named<Upstream>,
        /// Where nodes keep what they count together, by name: Redis or Valkey.
        stores: Named<SharedStore>,
        /// For every api, unless it says otherwise.
        policies: Specs,
        /// What is served, by name.
        apis: Named<Api>,
        /// Who serves models, by name.
        providers: Named<Provider>,
        /// What callers of models ask for, by name: `provider/model`, or a map with `candidates`. A name with a `*` at its
        /// end stands for all that begin so, and a `*` at the end of the candidate's model for what it stood for.
        models: Named<OrText<Model>>,
        /// What may be spent, by name.
        budgets: ledger::BudgetsSpec,
        /// Where what calls cost is written down.
        ledger: Ledger,
        /// Who calls, by name.
        consumers: Named<Consumer>,
        /// What is told, and to whom.
        telemetry: Telemetry,
        /// Where the node is operated.
        admin: Admin,
    }
}
