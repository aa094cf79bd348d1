//! `weir import litellm`: what it makes is a document that is right, and what it leaves it names.

use std::fmt::Write;

use testkit::Folder;

use crate::weir::{Said, weir_with};

/// In the manner of LiteLLM's documentation: groups of deployments, a router, keys in the environment and in the file.
const EVERYTHING: &str = r#"
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-eu
      api_base: https://my-endpoint-europe.openai.azure.com/
      api_key: "os.environ/AZURE_API_KEY_EU"
      api_version: "2023-05-15"
      rpm: 6
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-ca
      api_base: https://my-endpoint-canada.openai.azure.com/
      api_key: "os.environ/AZURE_API_KEY_CA"
      rpm: 18
      timeout: 300
      stream_timeout: 0.5
  - model_name: claude
    litellm_params:
      model: bedrock/converse/anthropic.claude-3-haiku-20240307-v1:0
      aws_region_name: us-west-2
      aws_access_key_id: os.environ/AWS_ACCESS_KEY_ID
      aws_secret_access_key: os.environ/AWS_SECRET_ACCESS_KEY
  - model_name: vllm-models
    litellm_params:
      model: openai/facebook/opt-125m
      api_base: http://127.0.0.1:8000/v1
      api_key: none
      input_cost_per_token: 0.00000015
      output_cost_per_token: 6e-7
    model_info:
      max_input_tokens: 2048
      version: 2
  - model_name: tuned
    litellm_params:
      model: openai/gpt-4o-mini
      api_key: sk-in-the-file
      temperature: 0.2
  - model_name: "anthropic/*"
    litellm_params: { model: "anthropic/*", api_key: os.environ/ANTHROPIC_API_KEY }
  - model_name: voice
    litellm_params: { model: elevenlabs/scribe_v1 }
  - model_name: somewhere
    litellm_params: { model: openai/x, api_base: os.environ/NOWHERE }

litellm_settings:
  drop_params: true
  num_retries: 3
  request_timeout: 10
  fallbacks: [{ "gpt-4o": ["claude"] }]
  context_window_fallbacks: [{ "vllm-models": ["gpt-4o"] }, { "gone": ["gpt-4o"] }]
  success_callback: [langfuse]
  max_budget: 100
  budget_duration: 30d

router_settings:
  routing_strategy: simple-shuffle
  model_group_alias: { "gpt-4": "gpt-4o" }
  redis_host: localhost

general_settings:
  master_key: os.environ/LITELLM_MASTER_KEY
  database_url: postgresql://db
  alerting: [slack]
"#;

#[test]
fn all_of_a_configuration_is_carried_or_named() {
    let folder = Folder::new();
    folder.write("config.yaml", EVERYTHING);
    let said = import(&folder, &[("LITELLM_MASTER_KEY", "sk-1234")]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(said.out, include_str!("import/everything.yaml"));
    assert!(!said.out.contains("sk-"), "a secret is in the document");
    assert_eq!(said.err, include_str!("import/everything.txt"));
}

#[test]
fn what_is_made_is_a_document_that_is_right() {
    let mut count = 0;
    let mut check = |config: &str| {
        let folder = Folder::new();
        folder.write("config.yaml", config);
        let said = import(&folder, &[]);
        assert_eq!(said.code, Some(0), "{config}\n{}", said.err);
        folder.write("weir.yaml", &said.out);
        // Whatever keys it names are there.
        let variables: Vec<&str> = said.out.split("env:").skip(1).map(variable).collect();
        let variables: Vec<(&str, &str)> = variables.into_iter().map(|name| (name, "id:secret")).collect();
        let checked = weir_with(folder.base(), &["check"], &variables);
        assert_eq!(checked.code, Some(0), "{config}\n{}\n{}", said.out, checked.err);
        count += 1;
    };
    check(EVERYTHING);
    for strategy in
        ["simple-shuffle", "least-busy", "usage-based-routing-v2", "latency-based-routing", "cost-based-routing"]
    {
        check(&format!("{EVERYTHING}\n").replace("simple-shuffle", strategy));
    }
    // One deployment of each kind.
    let mut all = String::from("model_list:\n");
    for kind in [
        "openai",
        "anthropic",
        "gemini",
        "mistral",
        "groq",
        "deepseek",
        "together_ai",
        "openrouter",
        "xai",
        "fireworks_ai",
        "perplexity",
        "cerebras",
        "deepinfra",
        "nebius",
        "moonshot",
        "cohere",
        "nvidia_nim",
        "sambanova",
        "ollama",
        "lm_studio",
    ] {
        let _ = writeln!(all, "  - {{ model_name: {kind}, litellm_params: {{ model: {kind}/m }} }}");
    }
    all += "  - { model_name: v, litellm_params: { model: vertex_ai/gemini-2.5-pro, vertex_project: p } }\n";
    all += "  - { model_name: h, litellm_params: { model: hosted_vllm/m, api_base: 'http://127.0.0.1:8000/v1' } }\n";
    all += "  - { model_name: o, litellm_params: { model: ollama/m, api_base: 'http://127.0.0.1:11434' } }\n";
    all += "  - { model_name: short, litellm_params: { model: gpt-4o } }\n";
    check(&all);
    assert_eq!(count, 7);
}

#[test]
fn what_is_none_of_litellms_is_refused_with_its_place() {
    let folder = Folder::new();
    for (config, expected) in [
        ("version: 1\n", "no `model_list`"),
        ("model_list: [\n", "config.yaml:"),
        ("a: 1\na: 2\n", "config.yaml:2"),
        ("model_list: [{ model_name: a, litellm_params: { model: nobody/a } }]\n", "no model of"),
    ] {
        folder.write("config.yaml", config);
        let said = import(&folder, &[]);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{config}");
        assert!(said.err.contains(expected), "{config}: {}", said.err);
    }
}

fn import(folder: &Folder, variables: &[(&str, &str)]) -> Said {
    weir_with(folder.base(), &["import", "litellm", "config.yaml"], variables)
}

fn variable(text: &str) -> &str {
    text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_').next().unwrap_or_default()
}
