//! Requests.

use std::borrow::Cow;

use super::media;
use crate::format::anthropic::Think;
use crate::json::{Fields, Out, Value, quote};
use crate::malformed::Malformed;
use crate::neutral::{
    Cache, Call, Content, Effort, Format, Losses, Message, Outcome, Part, Placed, Request, Role, Setting, Thinking,
    Thought, Tool, ToolChoice, plain_id,
};
use crate::translate::Options;

pub(crate) fn read_request<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Request<'a>, Malformed> {
    let mut fields = value.fields("an object")?;
    let mut request = Request { system: read_blocks(fields.take("system"), lost)?, ..Request::default() };
    for message in fields.need("messages")?.array("an array of messages")? {
        let mut message = message.fields("a message, which is an object")?;
        let role = message.need("role")?;
        let parts = read_blocks(Some(message.need("content")?), lost)?;
        let role = match role.as_str() {
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            _ => return Err(role.wrong("user or assistant")),
        };
        request.messages.push(Message { role, parts });
        lost.rest(&message);
    }
    if let Some(mut config) = fields.fields("inferenceConfig")? {
        request.max_output = config.count("maxTokens")?;
        let numbers = [("temperature", Setting::Temperature as fn(&'a str) -> Setting<'a>), ("topP", Setting::TopP)];
        Setting::read_numbers(&mut config, &numbers, &mut request.settings)?;
        if let Some(stop) = config.take("stopSequences") {
            let at = stop.at;
            let words = stop.array("an array of strings")?.into_iter().map(|word| word.string("a string"));
            let value = Setting::Stop(words.collect::<Result<_, _>>()?);
            request.settings.push(Placed { at, value });
        }
        lost.rest(&config);
    }
    if let Some(config) = fields.fields("toolConfig")? {
        read_tools(config, &mut request, lost)?;
    }
    if let Some(mut config) = fields.fields("outputConfig")? {
        if let Some(format) = config.take("textFormat") {
            request.format = Some(read_format(format)?);
        }
        lost.rest(&config);
    }
    if let Some(metadata) = fields.take("requestMetadata") {
        request.settings.push(Placed { at: metadata.at, value: Setting::Metadata(metadata.raw) });
    }
    if let Some(mut tier) = fields.fields("serviceTier")? {
        let tier = tier.need("type")?;
        match tier.as_str() {
            Some("default" | "flex" | "priority") => {
                let value = Setting::OpenAi { name: "service_tier", json: tier.raw };
                request.settings.push(Placed { at: tier.at, value });
            }
            _ => lost.add(tier.at),
        }
    }
    if let Some(more) = fields.fields("additionalModelRequestFields")? {
        read_additional(more, &mut request, lost)?;
    }
    fields.take("modelId");
    lost.rest(&fields);
    Ok(request)
}

/// A mark for the cache is a block of its own, and belongs to the one before it.
pub(super) fn read_blocks<'a>(blocks: Option<Value<'a>>, lost: &mut Losses) -> Result<Vec<Part<'a>>, Malformed> {
    let mut parts: Vec<Part<'a>> = Vec::new();
    let Some(blocks) = blocks else { return Ok(parts) };
    for block in blocks.array("an array of blocks")? {
        let at = block.at;
        let mut fields = block.fields("a block, which is an object")?;
        if let Some(mark) = read_cache(&mut fields)? {
            match parts.last_mut() {
                Some(part) => part.cache = Some(mark),
                None => lost.add(at),
            }
            continue;
        }
        match read_block(fields, lost)? {
            Some(content) => parts.push(Part::new(at, content)),
            None => lost.add(at),
        }
    }
    Ok(parts)
}

fn read_block<'a>(mut fields: Fields<'a>, lost: &mut Losses) -> Result<Option<Content<'a>>, Malformed> {
    let content = if let Some(text) = fields.string("text")? {
        Content::Text(text)
    } else if let Some(mut call) = fields.fields("toolUse")? {
        // What the provider's own tools do has no word elsewhere.
        if call.string("type")?.is_some() {
            return Ok(None);
        }
        Content::Call(Call {
            id: call.need_string("toolUseId")?,
            name: call.need_string("name")?,
            arguments: call.object("input")?.unwrap_or("{}").into(),
            signature: None,
        })
    } else if let Some(mut result) = fields.fields("toolResult")? {
        let id = result.need_string("toolUseId")?;
        let parts = read_result(result.take("content"), lost)?;
        let failed = result.take("status").filter(|status| status.as_str() == Some("error")).map(|status| status.at);
        lost.rest(&result);
        Content::Outcome(Outcome { id, parts, failed })
    } else if let Some(thought) = fields.fields("reasoningContent")? {
        match read_thought(thought)? {
            Some(thought) => Content::Thought(thought),
            None => return Ok(None),
        }
    } else {
        for key in ["image", "document", "video", "audio"] {
            if let (Some(kind), Some(fields)) = (media::kind(key), fields.fields(key)?) {
                return Ok(media::read(kind, fields, lost)?.map(Content::Media));
            }
        }
        return Ok(None);
    };
    lost.rest(&fields);
    Ok(Some(content))
}

/// What a tool gave back may be JSON, which is a text elsewhere.
fn read_result<'a>(content: Option<Value<'a>>, lost: &mut Losses) -> Result<Vec<Part<'a>>, Malformed> {
    let mut parts = Vec::new();
    let Some(content) = content else { return Ok(parts) };
    for block in content.array("an array of blocks")? {
        let at = block.at;
        let mut fields = block.fields("a block, which is an object")?;
        let content = match fields.take("json") {
            Some(json) => Some(Content::Text(json.raw.into())),
            None => read_block(fields, lost)?,
        };
        match content {
            Some(content) => parts.push(Part::new(at, content)),
            None => lost.add(at),
        }
    }
    Ok(parts)
}

pub(super) fn read_thought<'a>(mut fields: Fields<'a>) -> Result<Option<Thought<'a>>, Malformed> {
    if let Some(text) = fields.string("redactedContent")? {
        return Ok(Some(Thought { text, signature: None, redacted: true }));
    }
    let Some(mut thought) = fields.fields("reasoningText")? else { return Ok(None) };
    let text = thought.string("text")?.unwrap_or_default();
    Ok(Some(Thought { text, signature: thought.string("signature")?, redacted: false }))
}

fn read_cache(fields: &mut Fields<'_>) -> Result<Option<Placed<Cache>>, Malformed> {
    let Some(mark) = fields.take("cachePoint") else { return Ok(None) };
    let at = mark.at;
    let ttl = mark.fields("an object")?.string("ttl")?;
    let value = if ttl.as_deref() == Some("1h") { Cache::Hour } else { Cache::Minutes };
    Ok(Some(Placed { at, value }))
}

fn read_tools<'a>(mut config: Fields<'a>, request: &mut Request<'a>, lost: &mut Losses) -> Result<(), Malformed> {
    for tool in config.array("tools")?.unwrap_or_default() {
        let at = tool.at;
        let mut fields = tool.fields("a tool, which is an object")?;
        if let Some(mark) = read_cache(&mut fields)? {
            match request.tools.last_mut() {
                Some(tool) => tool.cache = Some(mark),
                None => lost.add(at),
            }
            continue;
        }
        let Some(mut tool) = fields.fields("toolSpec")? else {
            lost.add(at);
            continue;
        };
        let schema = tool.fields("inputSchema")?.map(|mut schema| schema.object("json")).transpose()?.flatten();
        request.tools.push(Tool {
            name: tool.need_string("name")?,
            description: tool.string("description")?,
            schema: schema.map(Cow::Borrowed),
            strict: tool.bool("strict")?,
            cache: None,
        });
        lost.rest(&tool);
    }
    if let Some(choice) = config.take("toolChoice") {
        let at = choice.at;
        let mut choice = choice.fields("an object")?;
        let value = if choice.take("auto").is_some() {
            ToolChoice::Auto
        } else if choice.take("any").is_some() {
            ToolChoice::Any
        } else if let Some(mut tool) = choice.fields("tool")? {
            ToolChoice::One(tool.need_string("name")?)
        } else {
            return Err(Malformed::new("an unknown choice", at, "auto, any or tool"));
        };
        request.tool_choice = Some(Placed { at, value });
    }
    lost.rest(&config);
    Ok(())
}

/// The schema is a text in which JSON stands.
fn read_format<'a>(value: Value<'a>) -> Result<Placed<Format<'a>>, Malformed> {
    let at = value.at;
    let mut fields = value.fields("an object")?;
    let mut structure = fields.need("structure")?.fields("an object")?;
    let mut fields = structure.need("jsonSchema")?.fields("an object")?;
    let text = fields.need("schema")?;
    let place = text.at;
    let schema = text.string("JSON in a string")?;
    if !Value::parse(schema.as_bytes()).is_ok_and(|schema| schema.is_object()) {
        return Err(Malformed::new("a text that is no JSON object", place, "a JSON schema in a string"));
    }
    let (name, description) = (fields.string("name")?, fields.string("description")?);
    Ok(Placed { at, value: Format::Schema { name, description, schema, strict: Some(true) } })
}

/// What Anthropic's and OpenAI's models are told here.
fn read_additional<'a>(mut fields: Fields<'a>, request: &mut Request<'a>, lost: &mut Losses) -> Result<(), Malformed> {
    Setting::read_numbers(&mut fields, &[("top_k", Setting::TopK)], &mut request.settings)?;
    let mut effort = fields.take("reasoning_effort");
    if let Some(mut config) = fields.fields("output_config")? {
        effort = config.take("effort").or(effort);
        lost.rest(&config);
    }
    let at = effort.as_ref().map(|effort| effort.at);
    let effort = effort.and_then(|effort| Effort::parse(effort.as_str()?));
    if let Some(thinking) = fields.take("thinking") {
        let at = thinking.at;
        let mut thinking = thinking.fields("an object")?;
        let budget = thinking.count("budget_tokens")?;
        let disabled = thinking.string("type")?.as_deref() == Some("disabled");
        let effort = if disabled { Some(Effort::None) } else { effort };
        request.thinking = Some(Placed { at, value: Thinking { effort, budget } });
    } else if let (Some(at), Some(effort)) = (at, effort) {
        request.thinking = Some(Placed { at, value: Thinking { effort: Some(effort), budget: None } });
    }
    lost.rest(&fields);
    Ok(())
}

pub(crate) fn write_request(request: &Request<'_>, options: &Options<'_>, lost: &mut Losses, to: &mut Vec<u8>) {
    if options.count {
        // `CountTokens` has the conversation two levels down.
        return Out::object(to, |out| {
            out.fields("input", |input| input.fields("converse", |out| write_conversation(request, lost, out)));
        });
    }
    Out::object(to, |out| {
        write_conversation(request, lost, out);
        write_config(request, options.model, lost, out);
    });
}

fn write_conversation(request: &Request<'_>, lost: &mut Losses, out: &mut Out<'_>) {
    let mut names = Vec::new();
    if !request.system.is_empty() {
        write_blocks("system", &request.system, Blocks::System, &mut names, lost, out);
    }
    // Turns must alternate, and all that tools gave back stands in the one that follows the calls.
    let turns = request.messages.chunk_by(|one, other| one.role == other.role);
    out.items("messages", turns, |turn, to| {
        Out::object(to, |out| {
            out.text("role", if turn[0].role == Role::User { "user" } else { "assistant" });
            let parts = turn.iter().flat_map(|message| &message.parts);
            write_blocks("content", parts, Blocks::Message, &mut names, lost, out);
        });
    });
    write_tools(request, lost, out);
}

/// Where blocks stand, which says which there can be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocks {
    System,
    Message,
    Result,
}

fn write_blocks<'p, 'a: 'p>(
    key: &str,
    parts: impl IntoIterator<Item = &'p Part<'a>>,
    place: Blocks,
    names: &mut Vec<String>,
    lost: &mut Losses,
    out: &mut Out<'_>,
) {
    let mut parts: Vec<&Part<'_>> = parts.into_iter().filter(|part| !is_blank(part)).collect();
    // What tools gave back comes first.
    parts.sort_by_key(|part| !matches!(part.content, Content::Outcome(_)));
    let to = out.key(key);
    to.push(b'[');
    let empty = to.len();
    for part in parts {
        if !has_word(&part.content, place) {
            lost.add(part.at);
            continue;
        }
        if to.len() > empty {
            to.push(b',');
        }
        Out::object(to, |out| write_block(part, names, lost, out));
        match &part.cache {
            Some(mark) if place == Blocks::Result => lost.add(mark.at),
            Some(mark) => {
                to.push(b',');
                Out::object(to, |out| write_cache(mark, out));
            }
            None => {}
        }
    }
    to.push(b']');
}

/// Texts of nothing but blanks are refused.
fn is_blank(part: &Part<'_>) -> bool {
    matches!(&part.content, Content::Text(text) if text.trim().is_empty())
}

fn has_word(content: &Content<'_>, place: Blocks) -> bool {
    match content {
        Content::Text(_) => true,
        _ if place == Blocks::System => false,
        Content::Media(media) => media::can(media),
        _ if place == Blocks::Result => false,
        // Without its signature it is not taken back.
        Content::Thought(thought) => thought.redacted || thought.signature.is_some(),
        Content::Refusal(_) | Content::Call(_) | Content::Outcome(_) => true,
    }
}

fn write_block(part: &Part<'_>, names: &mut Vec<String>, lost: &mut Losses, out: &mut Out<'_>) {
    match &part.content {
        Content::Text(text) | Content::Refusal(text) => out.text("text", text),
        Content::Media(media) => media::write(media, names, out),
        Content::Thought(thought) => write_thought(thought, out),
        Content::Call(call) => out.fields("toolUse", |out| write_call(call, part.at, lost, out)),
        Content::Outcome(Outcome { id, parts, failed }) => out.fields("toolResult", |out| {
            out.text("toolUseId", &plain_id(id));
            write_blocks("content", parts, Blocks::Result, names, lost, out);
            if failed.is_some() {
                out.text("status", "error");
            }
        }),
    }
}

pub(super) fn write_call(call: &Call<'_>, at: usize, lost: &mut Losses, out: &mut Out<'_>) {
    out.text("toolUseId", &plain_id(&call.id));
    out.text("name", &call.name);
    call.write_arguments("input", at, lost, out);
}

pub(super) fn write_thought(Thought { text, signature, redacted }: &Thought<'_>, out: &mut Out<'_>) {
    out.fields("reasoningContent", |out| match redacted {
        true => out.text("redactedContent", text),
        false => out.fields("reasoningText", |out| {
            out.text("text", text);
            if let Some(signature) = signature {
                out.text("signature", signature);
            }
        }),
    });
}

fn write_cache(mark: &Placed<Cache>, out: &mut Out<'_>) {
    out.fields("cachePoint", |point| {
        point.text("type", "default");
        if mark.value == Cache::Hour {
            point.text("ttl", "1h");
        }
    });
}

fn write_tools(request: &Request<'_>, lost: &mut Losses, out: &mut Out<'_>) {
    if let Some(Placed { at, value: false }) = request.parallel {
        lost.add(at);
    }
    if request.tools.is_empty() {
        return;
    }
    let choice = match &request.tool_choice {
        // There is no word for none, other than to name no tools; but where some were called they must be named.
        Some(Placed { at, value: ToolChoice::None }) => {
            if !request.messages.iter().flat_map(|message| &message.parts).any(is_call) {
                return;
            }
            lost.add(*at);
            None
        }
        Some(choice) => Some(&choice.value),
        None => None,
    };
    out.fields("toolConfig", |config| {
        let to = config.key("tools");
        to.push(b'[');
        for (at, tool) in request.tools.iter().enumerate() {
            if at > 0 {
                to.push(b',');
            }
            write_tool(tool, to);
        }
        to.push(b']');
        match choice {
            Some(ToolChoice::Auto) => config.fields("toolChoice", |choice| choice.fields("auto", |_| {})),
            Some(ToolChoice::Any) => config.fields("toolChoice", |choice| choice.fields("any", |_| {})),
            Some(ToolChoice::One(name)) => config.fields("toolChoice", |choice| {
                choice.fields("tool", |tool| tool.text("name", name));
            }),
            Some(ToolChoice::None) | None => {}
        }
    });
}

fn is_call(part: &Part<'_>) -> bool {
    matches!(part.content, Content::Call(_) | Content::Outcome(_))
}

fn write_tool(tool: &Tool<'_>, to: &mut Vec<u8>) {
    Out::object(to, |out| {
        out.fields("toolSpec", |spec| {
            spec.text("name", &tool.name);
            if let Some(description) = tool.description.as_ref().filter(|description| !description.is_empty()) {
                spec.text("description", description);
            }
            spec.fields("inputSchema", |schema| schema.raw("json", tool.schema()));
            if tool.strict == Some(true) {
                spec.bool("strict", true);
            }
        });
    });
    if let Some(mark) = &tool.cache {
        to.push(b',');
        Out::object(to, |out| write_cache(mark, out));
    }
}

fn write_config(request: &Request<'_>, model: &str, lost: &mut Losses, out: &mut Out<'_>) {
    let is_claude = model.contains("anthropic.") || model.contains("claude");
    let most = request.max_output.unwrap_or(MAX_OUTPUT);
    let think = if is_claude { Think::plan(request, model, most, lost) } else { Think::Not };
    let thinks = !matches!(think, Think::Not);
    let mut top_k = None;
    out.fields("inferenceConfig", |config| {
        // A budget for thoughts is part of the whole, which must be said then.
        if request.max_output.is_some() || matches!(think, Think::Budget(_)) {
            config.number("maxTokens", most);
        }
        for setting in &request.settings {
            match &setting.value {
                Setting::Temperature(number) => match number.parse::<f64>() {
                    // Who thinks does so at the temperature of one.
                    Ok(number) if thinks => {
                        if number != 1.0 {
                            lost.add(setting.at);
                        }
                    }
                    // OpenAI's scale goes to two.
                    Ok(number) if number > 1.0 => {
                        lost.add(setting.at);
                        config.raw("temperature", "1");
                    }
                    _ => config.raw("temperature", number),
                },
                Setting::TopP(number) => config.raw("topP", number),
                Setting::Stop(words) => config.items("stopSequences", words, |word, to| quote(word, to)),
                Setting::TopK(number) if is_claude && !thinks => top_k = Some(*number),
                _ => {}
            }
        }
    });
    for setting in &request.settings {
        write_setting(setting, top_k.is_some(), lost, out);
    }
    write_additional(request, model, &think, top_k, lost, out);
    match &request.format {
        Some(Placed { value: Format::Schema { name, description, schema, strict: _ }, .. }) => {
            out.fields("outputConfig", |config| {
                config.fields("textFormat", |format| {
                    format.text("type", "json_schema");
                    format.fields("structure", |structure| {
                        structure.fields("jsonSchema", |out| {
                            out.text("schema", schema);
                            if let Some(name) = name {
                                out.text("name", name);
                            }
                            if let Some(description) = description {
                                out.text("description", description);
                            }
                        });
                    });
                });
            });
        }
        // There is no word for JSON without a schema.
        Some(Placed { at, value: Format::Json }) => lost.add(*at),
        None => {}
    }
}

/// What a model may write where nobody says how much.
const MAX_OUTPUT: u64 = 4096;

fn write_setting(setting: &Placed<Setting<'_>>, top_k: bool, lost: &mut Losses, out: &mut Out<'_>) {
    match &setting.value {
        // Written already.
        Setting::Temperature(_) | Setting::TopP(_) | Setting::Stop(_) => {}
        Setting::TopK(_) if top_k => {}
        // Said, but nothing is wanted.
        Setting::PresencePenalty(number) | Setting::FrequencyPenalty(number) if number.parse() == Ok(0.0) => {}
        Setting::Choices(1) | Setting::Logprobs(false) => {}
        Setting::Metadata(json) if is_plain_map(json) => out.raw("requestMetadata", json),
        Setting::OpenAi { name: "service_tier", json: r#""auto""# } => {}
        Setting::OpenAi { name: "service_tier", json: json @ (r#""default""# | r#""flex""# | r#""priority""#) } => {
            out.fields("serviceTier", |tier| tier.raw("type", json));
        }
        Setting::TopK(_)
        | Setting::PresencePenalty(_)
        | Setting::FrequencyPenalty(_)
        | Setting::Seed(_)
        | Setting::Choices(_)
        | Setting::Logprobs(_)
        | Setting::TopLogprobs(_)
        | Setting::User(_)
        | Setting::Metadata(_)
        | Setting::OpenAi { .. } => lost.add(setting.at),
    }
}

/// Notes are at most sixteen, and of few characters.
fn is_plain_map(json: &str) -> bool {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || " _:@$#=/+,-.".contains(letter);
    let plain = |text: &str| text.len() <= 256 && text.chars().all(allowed);
    let Ok(fields) = Value::parse(json.as_bytes()).and_then(|value| value.fields("an object")) else { return false };
    let entries = fields.into_entries();
    entries.len() <= 16
        && entries.iter().all(|(key, value)| !key.is_empty() && plain(key) && value.as_str().is_some_and(plain))
}

fn write_additional(
    request: &Request<'_>,
    model: &str,
    think: &Think,
    top_k: Option<&str>,
    lost: &mut Losses,
    out: &mut Out<'_>,
) {
    let mut effort = None;
    if let (Think::Not, Some(Placed { at, value })) = (think, &request.thinking) {
        let wanted = value.effort.or(value.budget.map(Effort::of_budget)).unwrap_or(Effort::Medium);
        match wanted {
            Effort::None => {}
            wanted if model.contains("openai.") => effort = Some(wanted),
            _ => lost.add(*at),
        }
    }
    if matches!(think, Think::Not) && top_k.is_none() && effort.is_none() {
        return;
    }
    out.fields("additionalModelRequestFields", |more| {
        if let Some(number) = top_k {
            more.raw("top_k", number);
        }
        if let Some(effort) = effort {
            more.text("reasoning_effort", effort.word());
        }
        think.write(more);
        if let Think::Adaptive(Some(effort)) = think {
            more.fields("output_config", |config| config.text("effort", effort.word()));
        }
    });
}
