//! All resources, each once: what it is called, what it takes and gives, and who answers. The server, the
//! description in OpenAPI and docs/admin.md are all made of this table.

use base::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::answer::{Answer, Asked, Problem};
use super::server::decoded;
use super::{budgets, cache, certificates, document, flows, node, openapi as description, upstreams};

pub struct Resource {
    pub method: Method,
    /// `/v1/upstreams/{name}`.
    pub path: &'static str,
    /// Its name for programs that are made from the description.
    pub id: &'static str,
    pub summary: &'static str,
    pub query: &'static [Parameter],
    /// `If-Match` or `If-None-Match`, where it is heeded.
    pub condition: Option<&'static str>,
    pub takes: Content,
    pub gives: Content,
    pub run: fn(&Asked<'_>) -> Result<Answer, Problem>,
}

pub struct Parameter {
    pub name: &'static str,
    pub summary: &'static str,
    /// What it may be; empty for any text.
    pub values: &'static [&'static str],
}

pub enum Content {
    Nothing,
    Json(fn(&mut SchemaGenerator) -> Schema),
    /// A document, in one of the formats there are.
    Document,
    /// Any JSON object.
    Object,
}

pub struct Registry(Vec<Resource>);

impl Registry {
    pub fn new() -> Registry {
        Registry(resources())
    }

    /// The resources at a path, one a method, with what stands for their parameters.
    pub fn at(&self, path: &str) -> Vec<(&Resource, Vec<String>)> {
        let found = self.0.iter().filter_map(|resource| Some((resource, params(resource.path, path)?)));
        found.collect()
    }
}

fn params(template: &str, path: &str) -> Option<Vec<String>> {
    let mut params = Vec::new();
    let mut given = path.split('/');
    for wanted in template.split('/') {
        let given = given.next()?;
        if wanted.starts_with('{') {
            params.push(decoded(given).filter(|text| !text.is_empty())?);
        } else if wanted != given {
            return None;
        }
    }
    given.next().is_none().then_some(params)
}

fn json<T: JsonSchema>() -> Content {
    Content::Json(|generator| generator.subschema_for::<T>())
}

fn get(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    gives: Content,
    run: fn(&Asked<'_>) -> Result<Answer, Problem>,
) -> Resource {
    let (query, condition, takes) = (&[][..], None, Content::Nothing);
    Resource { method: Method::GET, path, id, summary, query, condition, takes, gives, run }
}

fn post(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    takes: Content,
    gives: Content,
    run: fn(&Asked<'_>) -> Result<Answer, Problem>,
) -> Resource {
    Resource { method: Method::POST, takes, ..get(path, id, summary, gives, run) }
}

#[rustfmt::skip]
fn resources() -> Vec<Resource> {
    vec![
        get("/openapi.json", "describe", "This description, in OpenAPI 3.1.",
            Content::Object, |_| Ok(Answer::json(&openapi()))),
        get("/v1/health", "health", "Whether the node takes calls, and on which document.",
            json::<node::Health>(), node::health),
        get("/v1/resources", "resources", "What the process uses, and what its cgroup lets it use.",
            json::<node::Resources>(), node::resources),
        Resource { condition: Some("if-none-match"),
            ..get("/v1/document", "document", "The document in force, as JSON and without secrets. Its ETag is its revision.",
                json::<document::InForce>(), document::in_force) },
        post("/v1/document/check", "check", "What a document would be, without putting it in force: a dry run.",
            Content::Document, json::<document::Checked>(), document::check),
        Resource { condition: Some("if-match"),
            ..post("/v1/reload", "reload", "Reads the document again and puts it in force, all or nothing. If-Match names the revision it must have now.",
                Content::Nothing, json::<document::Reloaded>(), document::reload) },
        post("/v1/explain", "explain", "What becomes of a call, and why. Nobody is called, and no limit is used up.",
            json::<document::Call>(), json::<crate::explain::Explanation>(), document::explain),
        get("/v1/routes", "routes", "All routes, in the order of the document.",
            json::<document::Routes>(), document::routes),
        get("/v1/upstreams", "upstreams", "All upstreams: how their endpoints are, and where attempts spend their time.",
            json::<upstreams::Upstreams>(), upstreams::all),
        get("/v1/upstreams/{upstream}", "upstream", "One upstream.",
            json::<upstreams::Upstream>(), upstreams::one),
        post("/v1/upstreams/{upstream}/drain", "drain", "Gives an endpoint no new calls, over reloads too; those under way end as they would.",
            json::<upstreams::Which>(), json::<upstreams::Upstream>(), upstreams::drain),
        post("/v1/upstreams/{upstream}/undrain", "undrain", "Gives an endpoint calls again, unless the document says otherwise.",
            json::<upstreams::Which>(), json::<upstreams::Upstream>(), upstreams::undrain),
        get("/v1/certificates", "certificates", "All certificates that listeners show: how long they are valid, and how it is with those that an authority issues.",
            json::<certificates::Certificates>(), certificates::all),
        Resource { query: &[Parameter { name: "of", summary: "Only the accounts of this holder; 404 if nobody is called so.", values: &[] }],
            ..get("/v1/budgets", "budgets", "All budgets: who has how much, what is spent and reserved of it, what is left, and when it renews.",
                json::<budgets::Budgets>(), budgets::all) },
        post("/v1/cache/purge", "purge", "Forgets answers that the cache keeps: by URL, by prefix, by tag, or all.",
            json::<cache::Forget>(), json::<cache::Forgotten>(), cache::purge),
        Resource { query: &[Parameter { name: "kind", summary: "Only these.", values: &["api", "route", "consumer"] }],
            ..get("/v1/flows", "flows", "Volume, velocity and variance of every api, route and consumer that was called.",
                json::<flows::Flows>(), flows::all) },
    ]
}

/// The description, in OpenAPI 3.1.
pub fn openapi() -> Value {
    description::describe(&resources())
}

/// The same for people: docs/admin.md.
pub fn markdown() -> String {
    description::markdown(&resources())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_path_is_a_template_with_its_parameters_filled_in() {
        let check = |path: &str, expected: Option<&[&str]>| {
            let expected = expected.map(|it| it.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
            assert_eq!(params("/v1/upstreams/{upstream}", path), expected, "{path}");
        };
        check("/v1/upstreams/a", Some(&["a"]));
        check("/v1/upstreams/a%2Fb", Some(&["a/b"]));
        for path in
            ["/v1/upstreams/", "/v1/upstreams", "/v1/upstreams/a/", "/v1/upstreams/a/b", "", "/v1/upstreams/%ff"]
        {
            check(path, None);
        }
    }

    #[test]
    fn no_two_resources_are_the_same() {
        let resources = resources();
        let places: HashSet<_> = resources.iter().map(|it| (it.method.clone(), it.path)).collect();
        let names: HashSet<_> = resources.iter().map(|it| it.id).collect();
        assert_eq!((places.len(), names.len()), (resources.len(), resources.len()));
    }

    #[test]
    fn every_reference_of_the_description_leads_somewhere() {
        let openapi = openapi();
        let text = openapi.to_string();
        let references = text.match_indices("\"$ref\":\"#").map(|(at, found)| {
            let rest = &text[at + found.len()..];
            &rest[..rest.find('"').unwrap()]
        });
        let mut count = 0;
        for reference in references {
            count += 1;
            assert!(openapi.pointer(reference).is_some(), "{reference}");
        }
        assert!(count > 10, "{count}");
    }
}
