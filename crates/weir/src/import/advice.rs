//! What to do instead about settings of LiteLLM's that have no place of their own here.

/// By the name of the field, wherever it stands; a `*` stands for any end.
pub fn of(field: &str) -> &'static str {
    let found = ALL.iter().find(|(name, _)| match name.strip_suffix('*') {
        Some(beginning) => field.starts_with(beginning),
        None => *name == field,
    });
    found.map_or("nothing here has this meaning", |(_, advice)| advice)
}

const RETRIES: &str = "a call that fails goes to the next candidate rather than to the same again; give the model several, or \
                       `providers.NAME.retry`";
const RESTS: &str =
    "candidates and keys that fail rest by themselves, for as long as the provider says or two seconds and more";
const SHARED: &str = "write the store under `stores`, and `shared` at the limits that nodes are to share";
const LOGS: &str = "calls are told by the access log, metrics (`weir_model_*`) and OTLP (`telemetry`); what they cost by `ledger` \
                    and `weir spend`";
const CONTENT: &str = "Weir does not set parameters of calls; let callers do it, or a `transform` policy";
const DATABASE: &str = "Weir needs no database: consumers and their keys are in the document";
const GUARD: &str = "guards are not imported; `external` asks a service whether a call may pass";
const LIMITS: &str = "write a `limit` policy, `per: consumer`";
const CACHE: &str = "answers of models are not cached by what this setting says; see `cache` and docs/models.md";
const AZURE: &str = "Azure is asked by its v1 API, which has no versions";
const TIMEOUT: &str = "write `providers.NAME.timeouts`";
const ALWAYS: &str = "always so: what does not fit into a model's context is not sent to it";
const AWS: &str =
    "a provider of Bedrock has `ACCESS_KEY_ID:SECRET_ACCESS_KEY` as its key, and a session token after another `:`";

static ALL: &[(&str, &str)] = &[
    ("num_retries", RETRIES),
    ("max_retries", RETRIES),
    ("retry_*", RETRIES),
    ("model_group_retry_policy", RETRIES),
    ("allowed_fails*", RESTS),
    ("cooldown_time", RESTS),
    ("disable_cooldowns", RESTS),
    ("redis_*", SHARED),
    ("cache_responses", CACHE),
    ("cache*", CACHE),
    ("enable_pre_call_checks", ALWAYS),
    ("success_callback", LOGS),
    ("failure_callback", LOGS),
    ("callbacks", LOGS),
    ("callback_settings", LOGS),
    ("service_callback*", LOGS),
    ("set_verbose", "the variable `WEIR_LOG` says how much is logged"),
    ("json_logs", "the access log is under `telemetry`"),
    ("turn_off_message_logging", "always so: contents of calls are not logged"),
    ("alerting*", "alert on the metrics of docs/operations.md"),
    ("temperature", CONTENT),
    ("top_p", CONTENT),
    ("max_tokens", CONTENT),
    ("seed", CONTENT),
    ("extra_body", CONTENT),
    (
        "drop_params",
        "fields that the provider has no words for are left out and named in `weir-lost`; `strict` refuses them",
    ),
    ("extra_headers", "write a `headers` policy at a route of its own"),
    ("organization", "write a `headers` policy that sets `openai-organization`"),
    ("api_version", AZURE),
    ("azure_ad_token*", "give an API key; tokens of Entra ID are not fetched"),
    ("tenant_id", "give an API key; tokens of Entra ID are not fetched"),
    ("client_id", "give an API key; tokens of Entra ID are not fetched"),
    ("client_secret", "give an API key; tokens of Entra ID are not fetched"),
    ("aws_*", AWS),
    ("vertex_credentials", "a provider of Vertex has an access token as its key, which somebody must renew"),
    ("vertex_*", "a provider of Vertex has `region` and `project`"),
    ("rpm", LIMITS),
    ("tpm", LIMITS),
    ("max_parallel_requests", "write a `limit` policy with `concurrency`, or `limits` of the upstream"),
    ("global_max_parallel_requests", "write a `limit` policy with `concurrency`"),
    ("timeout", TIMEOUT),
    ("request_timeout", TIMEOUT),
    ("stream_timeout", "write `first-token` at the candidate"),
    ("content_policy_fallbacks", "an answer that a provider refused to give is given as it is"),
    ("tags", "write models of other names, or a `when` at the candidates"),
    ("enable_tag_filtering", "write models of other names, or a `when` at the candidates"),
    ("provider_budget_config", "write `budgets` with an api or a model for each"),
    ("max_budget", "write `budgets`; docs/money.md"),
    ("budget_duration", "write `budgets`; docs/money.md"),
    ("database_*", DATABASE),
    ("store_model_in_db", DATABASE),
    ("store_prompts_in_spend_logs", DATABASE),
    ("disable_spend_logs", DATABASE),
    ("default_team_*", "write `consumers`, each with its `team`"),
    ("default_internal_user_params", "write `consumers`"),
    ("enable_jwt_auth", "write `jwt` and `policies.authenticate.jwt`"),
    ("litellm_jwtauth", "write `jwt` and `policies.authenticate.jwt`"),
    ("custom_auth", "`external` asks a service whether a call may pass"),
    ("allowed_ips", "write an `ip` policy"),
    ("guardrails", GUARD),
    ("policies", GUARD),
    ("mcp_*", "servers of tools are not imported"),
    ("environment_variables", "set them where `weir run` is started"),
    ("pass_through_endpoints", "write an api with a route for each"),
    ("credential_list", "write the keys at the providers"),
    ("litellm_credential_name", "write the key at the provider"),
    ("vector_store_registry", "not imported"),
    ("files_settings", "files are not carried by an api of models"),
    ("finetune_settings", "fine-tuning is not carried by an api of models"),
    ("mode", "what is called says what is meant"),
    ("base_model", "write the candidate's `price`, if the price book does not know the model"),
    ("supports_*", "what a model can is not declared; `when` says which calls go to a candidate"),
    ("id", "a deployment has no name of its own"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_known_by_its_name_or_its_beginning() {
        assert_eq!(of("num_retries"), RETRIES);
        assert_eq!((of("redis_host"), of("redis_password")), (SHARED, SHARED));
        assert_eq!(of("timeout"), TIMEOUT);
        assert_eq!(of("no_such_thing"), "nothing here has this meaning");
    }
}
