//! Requests.

use std::borrow::Cow;

use crate::json::{Fields, Out, Value, quote};
use crate::malformed::Malformed;
use crate::neutral::{
    Cache, Call, Content, Effort, Format, Losses, Media, MediaKind, Message, OfNumber, Outcome, Part, Placed, Request,
    Role, Setting, Source, Thinking, Thought, Tool, ToolChoice, plain_id,
};
use crate::translate::Options;

/// The dialect must have a limit. Where nobody knows one, this is what every model can.
const MAX_OUTPUT: u64 = 4096;
/// The smallest budget for thoughts that is taken.
const LEAST_BUDGET: u64 = 1024;

pub(crate) fn read_request<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Request<'a>, Malformed> {
    let mut fields = value.fields("an object")?;
    let system = read_content(fields.take("system"), lost)?;
    let mut request = Request { system, ..Request::default() };
    for message in fields.need("messages")?.array("an array of messages")? {
        read_message(message, &mut request, lost)?;
    }
    for tool in fields.array("tools")?.unwrap_or_default() {
        let at = tool.at;
        match read_tool(tool, lost)? {
            Some(tool) => request.tools.push(tool),
            None => lost.add(at),
        }
    }
    if let Some(choice) = fields.take("tool_choice") {
        read_tool_choice(choice, &mut request, lost)?;
    }
    request.max_output = fields.count("max_tokens")?;
    read_thinking(&mut fields, &mut request, lost)?;
    request.stream = fields.bool("stream")?.unwrap_or(false);
    fields.take("model");
    read_settings(&mut fields, &mut request.settings, lost)?;
    lost.rest(&fields);
    Ok(request)
}

fn read_message<'a>(value: Value<'a>, request: &mut Request<'a>, lost: &mut Losses) -> Result<(), Malformed> {
    let mut fields = value.fields("a message, which is an object")?;
    let role = fields.need("role")?;
    let parts = read_content(Some(fields.need("content")?), lost)?;
    match role.as_str() {
        Some("user") => request.messages.push(Message { role: Role::User, parts }),
        Some("assistant") => request.messages.push(Message { role: Role::Assistant, parts }),
        Some("system") => request.system.extend(parts),
        _ => return Err(role.wrong("user or assistant")),
    }
    lost.rest(&fields);
    Ok(())
}

/// A text, or blocks.
pub(super) fn read_content<'a>(content: Option<Value<'a>>, lost: &mut Losses) -> Result<Vec<Part<'a>>, Malformed> {
    let Some(content) = content else { return Ok(Vec::new()) };
    let at = content.at;
    if content.is_string() {
        return Ok(vec![Part::new(at, Content::Text(content.string("a string")?))]);
    }
    let mut parts = Vec::new();
    for block in content.array("a string or an array of blocks")? {
        let at = block.at;
        match read_block(block, lost)? {
            Some(part) => parts.push(part),
            None => lost.add(at),
        }
    }
    Ok(parts)
}

fn read_block<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Option<Part<'a>>, Malformed> {
    let mut fields = value.fields("a block, which is an object")?;
    let at = fields.at();
    let kind = fields.need_string("type")?;
    let content = match &*kind {
        "text" => {
            let text = fields.need_string("text")?;
            fields
                .take("citations")
                .filter(|citations| !citations.is_empty_array())
                .iter()
                .for_each(|all| lost.add(all.at));
            Content::Text(text)
        }
        "image" | "document" => {
            let kind = if kind == "image" { MediaKind::Image } else { MediaKind::Document };
            let name = fields.string("title")?;
            match read_source(fields.need("source")?)? {
                Some(source) => Content::Media(Media { kind, source, name, detail: None }),
                None => return Ok(None),
            }
        }
        "tool_use" => Content::Call(Call {
            id: fields.need_string("id")?,
            name: fields.need_string("name")?,
            arguments: fields.object("input")?.unwrap_or("{}").into(),
            signature: None,
        }),
        "tool_result" => {
            let id = fields.need_string("tool_use_id")?;
            let parts = read_content(fields.take("content"), lost)?;
            let failed = fields.take("is_error").filter(|failed| failed.bool() == Ok(true)).map(|failed| failed.at);
            Content::Outcome(Outcome { id, parts, failed })
        }
        "thinking" => Content::Thought(Thought {
            text: fields.need_string("thinking")?,
            signature: fields.string("signature")?.filter(|signature| !signature.is_empty()),
            redacted: false,
        }),
        "redacted_thinking" => {
            Content::Thought(Thought { text: fields.need_string("data")?, signature: None, redacted: true })
        }
        _ => return Ok(None),
    };
    let cache = read_cache(&mut fields)?;
    // Who calls a tool is always the model, where nobody else can.
    fields.take("caller");
    lost.rest(&fields);
    Ok(Some(Part { at, content, cache }))
}

fn read_source(value: Value<'_>) -> Result<Option<Source<'_>>, Malformed> {
    let mut fields = value.fields("an object")?;
    let source = match &*fields.need_string("type")? {
        "base64" => Source::Data { mime: fields.need_string("media_type")?, base64: fields.need_string("data")? },
        "url" => Source::Url { mime: None, url: fields.need_string("url")? },
        "file" => Source::File(fields.need_string("file_id")?),
        "text" => Source::Text(fields.need_string("data")?),
        _ => return Ok(None),
    };
    Ok(Some(source))
}

fn read_cache(fields: &mut Fields<'_>) -> Result<Option<Placed<Cache>>, Malformed> {
    let Some(mark) = fields.take("cache_control") else { return Ok(None) };
    let at = mark.at;
    let ttl = mark.fields("an object")?.string("ttl")?;
    let value = if ttl.as_deref() == Some("1h") { Cache::Hour } else { Cache::Minutes };
    Ok(Some(Placed { at, value }))
}

/// `None` for the provider's own tools, which no other provider has.
fn read_tool<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Option<Tool<'a>>, Malformed> {
    let mut fields = value.fields("a tool, which is an object")?;
    if fields.string("type")?.is_some_and(|kind| kind != "custom") {
        return Ok(None);
    }
    let tool = Tool {
        name: fields.need_string("name")?,
        description: fields.string("description")?,
        schema: fields.object("input_schema")?.map(Cow::Borrowed),
        strict: fields.bool("strict")?,
        cache: read_cache(&mut fields)?,
    };
    // How arguments are streamed is the provider's business.
    fields.take("eager_input_streaming");
    lost.rest(&fields);
    Ok(Some(tool))
}

fn read_tool_choice<'a>(value: Value<'a>, request: &mut Request<'a>, lost: &mut Losses) -> Result<(), Malformed> {
    let at = value.at;
    let mut fields = value.fields("an object")?;
    let kind = fields.need("type")?;
    let value = match kind.as_str() {
        Some("auto") => ToolChoice::Auto,
        Some("any") => ToolChoice::Any,
        Some("none") => ToolChoice::None,
        Some("tool") => ToolChoice::One(fields.need_string("name")?),
        _ => return Err(kind.wrong("auto, any, tool or none")),
    };
    request.tool_choice = Some(Placed { at, value });
    if let Some(single) = fields.take("disable_parallel_tool_use") {
        request.parallel = Some(Placed { at: single.at, value: !single.bool()? });
    }
    lost.rest(&fields);
    Ok(())
}

/// `thinking` says whether, `output_config` how much, and what the answer looks like.
fn read_thinking<'a>(fields: &mut Fields<'a>, request: &mut Request<'a>, lost: &mut Losses) -> Result<(), Malformed> {
    let mut format = fields.take("output_format");
    let mut effort = None;
    if let Some(mut config) = fields.fields("output_config")? {
        format = config.take("format").or(format);
        if let Some(word) = config.take("effort") {
            let Some(known) = word.as_str().and_then(Effort::parse) else {
                return Err(word.wrong("low, medium, high, xhigh or max"));
            };
            effort = Some(Placed { at: word.at, value: known });
        }
        lost.rest(&config);
    }
    if let Some(thinking) = fields.take("thinking") {
        let at = thinking.at;
        let mut thinking = thinking.fields("an object")?;
        let kind = thinking.need("type")?;
        let budget = thinking.count("budget_tokens")?;
        // Whether thoughts are shown is not for other providers to say.
        thinking.take("display");
        let value = match kind.as_str() {
            Some("enabled" | "adaptive") => Thinking { effort: effort.as_ref().map(|effort| effort.value), budget },
            Some("disabled") => Thinking { effort: Some(Effort::None), budget: None },
            _ => return Err(kind.wrong("enabled, adaptive or disabled")),
        };
        request.thinking = Some(Placed { at, value });
        lost.rest(&thinking);
    } else if let Some(Placed { at, value }) = effort {
        request.thinking = Some(Placed { at, value: Thinking { effort: Some(value), budget: None } });
    }
    if let Some(format) = format {
        let at = format.at;
        let mut format = format.fields("an object")?;
        let kind = format.need("type")?;
        if kind.as_str() != Some("json_schema") {
            return Err(kind.wrong("json_schema"));
        }
        let Some(schema) = format.object("schema")? else {
            return Err(Malformed::new("without `schema`", at, "a field `schema`"));
        };
        let value = Format::Schema { name: None, description: None, schema: schema.into(), strict: Some(true) };
        request.format = Some(Placed { at, value });
        lost.rest(&format);
    }
    Ok(())
}

fn read_settings<'a>(
    fields: &mut Fields<'a>,
    settings: &mut Vec<Placed<Setting<'a>>>,
    lost: &mut Losses,
) -> Result<(), Malformed> {
    let numbers: [(&str, OfNumber<'a>); 3] =
        [("temperature", Setting::Temperature), ("top_p", Setting::TopP), ("top_k", Setting::TopK)];
    Setting::read_numbers(fields, &numbers, settings)?;
    if let Some(stop) = fields.take("stop_sequences") {
        let at = stop.at;
        let words = stop.array("an array of strings")?.into_iter().map(|word| word.string("a string"));
        let words: Vec<_> = words.collect::<Result<_, _>>()?;
        if !words.is_empty() {
            settings.push(Placed { at, value: Setting::Stop(words) });
        }
    }
    if let Some(mut metadata) = fields.fields("metadata")? {
        if let Some(user) = metadata.take("user_id") {
            settings.push(Placed { at: user.at, value: Setting::User(user.string("a string")?) });
        }
        lost.rest(&metadata);
    }
    // `auto` is what everybody does.
    fields.take("service_tier").filter(|tier| tier.as_str() != Some("auto")).iter().for_each(|tier| lost.add(tier.at));
    Ok(())
}

pub(crate) fn write_request(request: &Request<'_>, options: &Options<'_>, lost: &mut Losses, to: &mut Vec<u8>) {
    let most = request.max_output.or(options.max_output).unwrap_or(MAX_OUTPUT);
    let thinking = Think::plan(request, options.model, most, lost);
    Out::object(to, |out| {
        out.text("model", options.model);
        if !options.count {
            out.number("max_tokens", most);
        }
        if !request.system.is_empty() {
            match &request.system[..] {
                [Part { content: Content::Text(text), cache: None, .. }] => out.text("system", text),
                parts => write_blocks("system", parts, lost, out),
            }
        }
        write_messages(&request.messages, lost, out);
        if request.stream && !options.count {
            out.bool("stream", true);
        }
        if !request.tools.is_empty() {
            out.items("tools", &request.tools, write_tool);
        }
        write_tool_choice(request, out);
        thinking.write(out);
        thinking.write_config(request, lost, out);
        for setting in &request.settings {
            write_setting(setting, &thinking, lost, out);
        }
    });
}

/// How the model is told to think.
pub(crate) enum Think {
    Not,
    /// Models up to Claude 4.5: so many tokens.
    Budget(u64),
    /// Later ones: as much as they find right, at this effort.
    Adaptive(Option<Effort>),
}

impl Think {
    pub(crate) fn plan(request: &Request<'_>, model: &str, most: u64, lost: &mut Losses) -> Think {
        let Some(Placed { at, value: Thinking { effort, budget } }) = request.thinking else { return Think::Not };
        if effort == Some(Effort::None) {
            return Think::Not;
        }
        if !thinks_by_budget(model) {
            return Think::Adaptive(effort.or(budget.map(Effort::of_budget)));
        }
        let budget = budget.or(effort.map(Effort::budget)).unwrap_or(Effort::Medium.budget());
        // It is part of the whole, and the answer needs some.
        let budget = budget.max(LEAST_BUDGET).min(most.saturating_sub(LEAST_BUDGET));
        let forced = matches!(request.tool_choice, Some(Placed { value: ToolChoice::Any | ToolChoice::One(_), .. }));
        // Such a model must not be forced to a tool, and wants the thoughts that led to a call given back with the call.
        if budget < LEAST_BUDGET || forced || calls_without_thought(&request.messages) {
            lost.add(at);
            return Think::Not;
        }
        Think::Budget(budget)
    }

    pub(crate) fn write(&self, out: &mut Out<'_>) {
        match *self {
            Think::Not => {}
            Think::Budget(budget) => out.fields("thinking", |thinking| {
                thinking.text("type", "enabled");
                thinking.number("budget_tokens", budget);
            }),
            Think::Adaptive(_) => out.fields("thinking", |thinking| thinking.text("type", "adaptive")),
        }
    }

    fn write_config(&self, request: &Request<'_>, lost: &mut Losses, out: &mut Out<'_>) {
        let effort = match *self {
            Think::Adaptive(effort) => effort,
            Think::Not | Think::Budget(_) => None,
        };
        let schema = match &request.format {
            Some(Placed { value: Format::Schema { schema, .. }, .. }) => Some(schema),
            // There is no word for JSON without a schema.
            Some(Placed { at, value: Format::Json }) => {
                lost.add(*at);
                None
            }
            None => None,
        };
        if effort.is_none() && schema.is_none() {
            return;
        }
        out.fields("output_config", |config| {
            if let Some(effort) = effort {
                config.text("effort", effort.max(Effort::Low).word());
            }
            if let Some(schema) = schema {
                config.fields("format", |format| {
                    format.text("type", "json_schema");
                    format.raw("schema", schema);
                });
            }
        });
    }
}

/// The families that came before adaptive thinking; whatever comes later has it.
fn thinks_by_budget(model: &str) -> bool {
    const BEFORE: [&str; 9] = [
        "claude-3",
        "claude-opus-4-0",
        "claude-opus-4-1",
        "claude-opus-4-5",
        "claude-opus-4-2025",
        "claude-sonnet-4-0",
        "claude-sonnet-4-5",
        "claude-sonnet-4-2025",
        "claude-haiku-4-5",
    ];
    BEFORE.iter().any(|family| model.contains(family))
}

/// Whether the turn that is under way has a call before which no signed thought stands.
fn calls_without_thought(messages: &[Message<'_>]) -> bool {
    let outcome = |part: &Part<'_>| matches!(part.content, Content::Outcome(_));
    let turn = messages
        .iter()
        .rev()
        .take_while(|message| message.role == Role::Assistant || message.parts.iter().any(outcome));
    turn.filter(|message| message.role == Role::Assistant).any(|message| {
        let thought = message.parts.iter().any(|part| match &part.content {
            Content::Thought(thought) => thought.redacted || thought.signature.is_some(),
            _ => false,
        });
        !thought && message.parts.iter().any(|part| matches!(part.content, Content::Call(_)))
    })
}

fn write_setting(setting: &Placed<Setting<'_>>, thinking: &Think, lost: &mut Losses, out: &mut Out<'_>) {
    let is = |number: &str, value: f64| number.parse() == Ok(value);
    let thinks = !matches!(thinking, Think::Not);
    match &setting.value {
        // Who thinks does so at the temperature of one.
        Setting::Temperature(_) | Setting::TopK(_) if thinks => match &setting.value {
            Setting::Temperature(number) if is(number, 1.0) => {}
            _ => lost.add(setting.at),
        },
        Setting::Temperature(number) if number.parse().is_ok_and(|number: f64| number > 1.0) => {
            // OpenAI's scale goes to two.
            lost.add(setting.at);
            out.raw("temperature", "1");
        }
        Setting::Temperature(number) => out.raw("temperature", number),
        Setting::TopP(number) if thinks && number.parse().is_ok_and(|number: f64| number < 0.95) => {
            lost.add(setting.at)
        }
        Setting::TopP(number) => out.raw("top_p", number),
        Setting::TopK(number) => out.raw("top_k", number),
        Setting::Stop(words) => out.items("stop_sequences", words, |word, to| quote(word, to)),
        Setting::User(user) => out.fields("metadata", |metadata| metadata.text("user_id", user)),
        // Said, but nothing is wanted.
        Setting::PresencePenalty(number) | Setting::FrequencyPenalty(number) if is(number, 0.0) => {}
        Setting::Choices(1) | Setting::Logprobs(false) => {}
        Setting::PresencePenalty(_)
        | Setting::FrequencyPenalty(_)
        | Setting::Seed(_)
        | Setting::Choices(_)
        | Setting::Logprobs(_)
        | Setting::TopLogprobs(_)
        | Setting::Metadata(_)
        | Setting::OpenAi { .. } => lost.add(setting.at),
    }
}

/// Turns must alternate, and all that tools gave back stands in the one that follows the calls.
fn write_messages(messages: &[Message<'_>], lost: &mut Losses, out: &mut Out<'_>) {
    let turns = messages.chunk_by(|one, other| one.role == other.role);
    out.items("messages", turns, |turn, to| {
        Out::object(to, |out| {
            out.text("role", if turn[0].role == Role::User { "user" } else { "assistant" });
            match turn {
                [Message { parts, .. }] if plain_text(parts).is_some() => {
                    out.text("content", plain_text(parts).unwrap_or_default());
                }
                _ => write_blocks("content", turn.iter().flat_map(|message| &message.parts), lost, out),
            }
        });
    });
}

fn plain_text<'p>(parts: &'p [Part<'_>]) -> Option<&'p str> {
    match parts {
        [Part { content: Content::Text(text), cache: None, .. }] => Some(text),
        _ => None,
    }
}

fn write_blocks<'p, 'a: 'p>(
    key: &str,
    parts: impl IntoIterator<Item = &'p Part<'a>>,
    lost: &mut Losses,
    out: &mut Out<'_>,
) {
    let mut parts: Vec<&Part<'_>> = parts.into_iter().filter(|part| !is_empty_text(part)).collect();
    // What tools gave back comes first.
    parts.sort_by_key(|part| !matches!(part.content, Content::Outcome(_)));
    parts.retain(|part| {
        let known = has_word(&part.content);
        if !known {
            lost.add(part.at);
        }
        known
    });
    out.items(key, parts, |part, to| Out::object(to, |out| write_block(part, lost, out)));
}

/// Empty texts are refused.
fn is_empty_text(part: &Part<'_>) -> bool {
    matches!(&part.content, Content::Text(text) if text.is_empty())
}

fn has_word(content: &Content<'_>) -> bool {
    match content {
        Content::Text(_) | Content::Refusal(_) | Content::Call(_) | Content::Outcome(_) => true,
        // Without its signature it is not taken back.
        Content::Thought(thought) => thought.redacted || thought.signature.is_some(),
        Content::Media(media) => match (media.kind, &media.source) {
            // Files lie with the caller's own provider.
            (_, Source::File(_)) => false,
            (MediaKind::Image, Source::Data { .. } | Source::Url { .. }) => true,
            (MediaKind::Document, Source::Data { mime, .. }) => mime == "application/pdf",
            (MediaKind::Document, Source::Url { .. } | Source::Text(_)) => true,
            _ => false,
        },
    }
}

fn write_block(part: &Part<'_>, lost: &mut Losses, out: &mut Out<'_>) {
    match &part.content {
        Content::Text(text) | Content::Refusal(text) => {
            out.text("type", "text");
            out.text("text", text);
        }
        Content::Media(media) => write_media(media, out),
        Content::Thought(Thought { text, redacted: true, .. }) => {
            out.text("type", "redacted_thinking");
            out.text("data", text);
        }
        Content::Thought(Thought { text, signature, .. }) => {
            out.text("type", "thinking");
            out.text("thinking", text);
            out.text("signature", signature.as_deref().unwrap_or_default());
        }
        Content::Call(call) => {
            out.text("type", "tool_use");
            out.text("id", &plain_id(&call.id));
            out.text("name", &call.name);
            call.write_arguments("input", part.at, lost, out);
        }
        Content::Outcome(Outcome { id, parts, failed }) => {
            out.text("type", "tool_result");
            out.text("tool_use_id", &plain_id(id));
            match plain_text(parts) {
                Some(text) => out.text("content", text),
                None => write_blocks("content", parts, lost, out),
            }
            if failed.is_some() {
                out.bool("is_error", true);
            }
        }
    }
    write_cache(part.cache.as_ref(), out);
}

fn write_media(media: &Media<'_>, out: &mut Out<'_>) {
    out.text("type", if media.kind == MediaKind::Image { "image" } else { "document" });
    out.fields("source", |source| match &media.source {
        Source::Data { mime, base64 } => {
            source.text("type", "base64");
            source.text("media_type", mime);
            source.text("data", base64);
        }
        Source::Url { url, .. } => {
            source.text("type", "url");
            source.text("url", url);
        }
        Source::Text(text) => {
            source.text("type", "text");
            source.text("media_type", "text/plain");
            source.text("data", text);
        }
        Source::File(id) => {
            source.text("type", "file");
            source.text("file_id", id);
        }
    });
    if let (MediaKind::Document, Some(name)) = (media.kind, &media.name) {
        out.text("title", name);
    }
}

fn write_tool(tool: &Tool<'_>, to: &mut Vec<u8>) {
    Out::object(to, |out| {
        out.text("name", &tool.name);
        if let Some(description) = &tool.description {
            out.text("description", description);
        }
        out.raw("input_schema", tool.schema());
        if tool.strict == Some(true) {
            out.bool("strict", true);
        }
        write_cache(tool.cache.as_ref(), out);
    });
}

fn write_cache(mark: Option<&Placed<Cache>>, out: &mut Out<'_>) {
    let Some(mark) = mark else { return };
    out.fields("cache_control", |control| {
        control.text("type", "ephemeral");
        if mark.value == Cache::Hour {
            control.text("ttl", "1h");
        }
    });
}

fn write_tool_choice(request: &Request<'_>, out: &mut Out<'_>) {
    // Without tools nothing may be said about them.
    if request.tools.is_empty() {
        return;
    }
    let single = request.parallel.as_ref().is_some_and(|parallel| !parallel.value);
    let choice = match (&request.tool_choice, single) {
        (Some(choice), _) => &choice.value,
        (None, true) => &ToolChoice::Auto,
        (None, false) => return,
    };
    out.fields("tool_choice", |out| {
        match choice {
            ToolChoice::Auto => out.text("type", "auto"),
            ToolChoice::Any => out.text("type", "any"),
            ToolChoice::None => out.text("type", "none"),
            ToolChoice::One(name) => {
                out.text("type", "tool");
                out.text("name", name);
            }
        }
        if single && !matches!(choice, ToolChoice::None) {
            out.bool("disable_parallel_tool_use", true);
        }
    });
}
