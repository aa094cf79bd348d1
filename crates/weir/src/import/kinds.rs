//! LiteLLM's names of providers, and what they are here.

pub struct Kind {
    /// As LiteLLM writes it before the model.
    pub theirs: &'static str,
    /// As the catalogue has it.
    pub ours: &'static str,
    /// The variable of its key, if LiteLLM has one.
    pub key: Option<&'static str>,
}

const fn kind(theirs: &'static str, ours: &'static str, key: &'static str) -> Kind {
    Kind { theirs, ours, key: Some(key) }
}

const fn open(theirs: &'static str, ours: &'static str) -> Kind {
    Kind { theirs, ours, key: None }
}

static ALL: &[Kind] = &[
    kind("openai", "openai", "OPENAI_API_KEY"),
    kind("anthropic", "anthropic", "ANTHROPIC_API_KEY"),
    kind("gemini", "gemini", "GEMINI_API_KEY"),
    kind("vertex_ai", "vertex", "VERTEX_ACCESS_TOKEN"),
    kind("vertex_ai_beta", "vertex", "VERTEX_ACCESS_TOKEN"),
    kind("bedrock", "bedrock", "BEDROCK_CREDENTIALS"),
    kind("azure", "azure", "AZURE_API_KEY"),
    kind("mistral", "mistral", "MISTRAL_API_KEY"),
    kind("groq", "groq", "GROQ_API_KEY"),
    kind("deepseek", "deepseek", "DEEPSEEK_API_KEY"),
    kind("together_ai", "together_ai", "TOGETHERAI_API_KEY"),
    kind("openrouter", "openrouter", "OPENROUTER_API_KEY"),
    kind("xai", "xai", "XAI_API_KEY"),
    kind("fireworks_ai", "fireworks_ai", "FIREWORKS_AI_API_KEY"),
    kind("perplexity", "perplexity", "PERPLEXITYAI_API_KEY"),
    kind("cerebras", "cerebras", "CEREBRAS_API_KEY"),
    kind("deepinfra", "deepinfra", "DEEPINFRA_API_KEY"),
    kind("nebius", "nebius", "NEBIUS_API_KEY"),
    kind("moonshot", "moonshot", "MOONSHOT_API_KEY"),
    kind("cohere", "cohere", "COHERE_API_KEY"),
    kind("cohere_chat", "cohere", "COHERE_API_KEY"),
    kind("nvidia_nim", "nvidia_nim", "NVIDIA_NIM_API_KEY"),
    kind("sambanova", "sambanova", "SAMBANOVA_API_KEY"),
    open("ollama", "ollama"),
    open("ollama_chat", "ollama"),
    open("lm_studio", "lm_studio"),
    open("hosted_vllm", "openai-compatible"),
    open("custom_openai", "openai-compatible"),
    open("openai_like", "openai-compatible"),
    open("litellm_proxy", "openai-compatible"),
    open("xinference", "openai-compatible"),
    open("docker_model_runner", "openai-compatible"),
];

/// The kind of a model and its name there, or why there is none.
pub fn whose<'a>(model: &'a str, said: Option<&str>) -> Result<(&'static Kind, &'a str), String> {
    let find = |name: &str| ALL.iter().find(|kind| kind.theirs == name);
    if let Some(said) = said {
        let rest = model.strip_prefix(said).and_then(|rest| rest.strip_prefix('/')).unwrap_or(model);
        return find(said).map(|kind| (kind, rest)).ok_or_else(|| unknown(said));
    }
    if let Some((prefix, rest)) = model.split_once('/') {
        return find(prefix).map(|kind| (kind, rest)).ok_or_else(|| unknown(prefix));
    }
    let begins = |words: &[&str]| words.iter().any(|word| model.starts_with(word));
    let name = match () {
        () if begins(&["gpt-", "chatgpt-", "o1", "o3", "o4", "text-embedding-", "ft:"]) => "openai",
        () if begins(&["claude-"]) => "anthropic",
        () => return Err(format!("whose model `{model}` is, is not said; write it as `provider/model`")),
    };
    find(name).map(|kind| (kind, model)).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> String {
    format!(
        "there is no kind of provider called `{name}`; if it speaks like OpenAI or Anthropic, write a provider of \
         `kind: openai-compatible` or `anthropic-compatible` with its URL as `upstream`"
    )
}
