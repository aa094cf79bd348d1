//! Requests.

use std::borrow::Cow;

use super::REDACTED;
use crate::json::{Fields, Out, Value};
use crate::malformed::Malformed;
use crate::neutral::{
    Call, Content, Effort, Format, Losses, Media, MediaKind, Message, Outcome, Part, Placed, Request, Role, Setting,
    Source, Thinking, Thought, Tool, ToolChoice,
};
use crate::translate::Options;

pub(crate) fn read_request<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Request<'a>, Malformed> {
    let mut fields = value.fields("an object")?;
    let mut request = Request::default();
    if let Some(text) = fields.take("instructions") {
        request.system = read_content(Some(text), lost)?;
    }
    let input = fields.need("input")?;
    if input.is_string() {
        request.messages.push(Message { role: Role::User, parts: read_content(Some(input), lost)? });
    } else {
        for item in input.array("a string or an array of items")? {
            read_item(item, &mut request, lost)?;
        }
    }
    for tool in fields.array("tools")?.unwrap_or_default() {
        let at = tool.at;
        match read_tool(tool, lost)? {
            Some(tool) => request.tools.push(tool),
            None => lost.add(at),
        }
    }
    if let Some(choice) = fields.take("tool_choice") {
        let at = choice.at;
        match read_tool_choice(choice)? {
            Some(value) => request.tool_choice = Some(Placed { at, value }),
            None => lost.add(at),
        }
    }
    if let Some(parallel) = fields.take("parallel_tool_calls") {
        request.parallel = Some(Placed { at: parallel.at, value: parallel.bool()? });
    }
    request.max_output = fields.count("max_output_tokens")?;
    if let Some(mut reasoning) = fields.fields("reasoning")? {
        // Whether thoughts are shown is not for other providers to say.
        reasoning.take("summary");
        reasoning.take("generate_summary");
        if let Some(effort) = reasoning.take("effort") {
            let Some(word) = effort.as_str().and_then(Effort::parse) else {
                return Err(effort.wrong("none, minimal, low, medium, high, xhigh or max"));
            };
            request.thinking = Some(Placed { at: effort.at, value: Thinking { effort: Some(word), budget: None } });
        }
        lost.rest(&reasoning);
    }
    if let Some(text) = fields.fields("text")? {
        read_text(text, &mut request, lost)?;
    }
    request.stream = fields.bool("stream")?.unwrap_or(false);
    // Answered for by whoever sends the request on.
    fields.take("stream_options");
    fields.take("model");
    read_settings(&mut fields, &mut request.settings, lost)?;
    lost.rest(&fields);
    Ok(request)
}

fn read_item<'a>(item: Value<'a>, request: &mut Request<'a>, lost: &mut Losses) -> Result<(), Malformed> {
    let mut fields = item.fields("an item, which is an object")?;
    let at = fields.at();
    let kind = fields.string("type")?;
    // Its own id and state say nothing to others.
    fields.take("id");
    fields.take("status");
    match kind.as_deref() {
        None | Some("message") => {
            let role = fields.need("role")?;
            let parts = read_content(fields.take("content"), lost)?;
            fields.take("phase");
            match role.as_str() {
                Some("system" | "developer") => request.system.extend(parts),
                Some("user") => request.messages.push(Message { role: Role::User, parts }),
                Some("assistant") => parts.into_iter().for_each(|part| say(request, Role::Assistant, part)),
                _ => return Err(role.wrong("system, developer, user or assistant")),
            }
        }
        Some("function_call") => {
            let content = Content::Call(read_call(&mut fields)?);
            say(request, Role::Assistant, Part::new(at, content));
        }
        Some("function_call_output") => {
            let id = fields.need_string("call_id")?;
            let parts = read_content(fields.take("output"), lost)?;
            say(request, Role::User, Part::new(at, Content::Outcome(Outcome { id, parts, failed: None })));
        }
        Some("reasoning") => {
            let content = Content::Thought(read_thought(&mut fields)?);
            say(request, Role::Assistant, Part::new(at, content));
        }
        Some(_) => {
            lost.add(at);
            return Ok(());
        }
    }
    lost.rest(&fields);
    Ok(())
}

/// Items of one turn stand beside each other; elsewhere they are parts of one message.
fn say<'a>(request: &mut Request<'a>, role: Role, part: Part<'a>) {
    let outcome = |part: &Part<'_>| matches!(part.content, Content::Outcome(_));
    match request.messages.last_mut() {
        Some(last) if last.role == role && (role == Role::Assistant || last.parts.iter().all(outcome)) => {
            last.parts.push(part);
        }
        _ => request.messages.push(Message { role, parts: vec![part] }),
    }
}

pub(super) fn read_call<'a>(fields: &mut Fields<'a>) -> Result<Call<'a>, Malformed> {
    Ok(Call {
        id: fields.need_string("call_id")?,
        name: fields.need_string("name")?,
        arguments: fields.string("arguments")?.unwrap_or_default(),
        signature: None,
    })
}

/// What was thought, or the summary of it.
pub(super) fn read_thought<'a>(fields: &mut Fields<'a>) -> Result<Thought<'a>, Malformed> {
    let signature = fields.string("encrypted_content")?.filter(|signature| !signature.is_empty());
    let mut text = String::new();
    let summary = fields.array("summary")?.unwrap_or_default();
    let content = fields.array("content")?.unwrap_or_default();
    for part in if content.is_empty() { summary } else { content } {
        let mut part = part.fields("an object")?;
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&part.string("text")?.unwrap_or_default());
    }
    match signature.as_deref().and_then(|signature| signature.strip_prefix(REDACTED)) {
        Some(data) => Ok(Thought { text: data.to_owned().into(), signature: None, redacted: true }),
        None => Ok(Thought { text: text.into(), signature, redacted: false }),
    }
}

/// A text, or parts.
pub(super) fn read_content<'a>(content: Option<Value<'a>>, lost: &mut Losses) -> Result<Vec<Part<'a>>, Malformed> {
    let Some(content) = content else { return Ok(Vec::new()) };
    let at = content.at;
    if content.is_string() {
        let text = content.string("a string")?;
        return Ok(if text.is_empty() { Vec::new() } else { vec![Part::new(at, Content::Text(text))] });
    }
    let mut parts = Vec::new();
    for part in content.array("a string or an array of parts")? {
        let at = part.at;
        match read_part(part, lost)? {
            Some(content) => parts.push(Part::new(at, content)),
            None => lost.add(at),
        }
    }
    Ok(parts)
}

fn read_part<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Option<Content<'a>>, Malformed> {
    let mut fields = value.fields("a part, which is an object")?;
    let kind = fields.need_string("type")?;
    let content = match &*kind {
        "input_text" | "output_text" | "text" => {
            fields.take("annotations").filter(|all| !all.is_empty_array()).iter().for_each(|all| lost.add(all.at));
            fields.take("logprobs");
            Content::Text(fields.need_string("text")?)
        }
        "refusal" => Content::Refusal(fields.need_string("refusal")?),
        "input_image" => {
            let detail = fields.string("detail")?;
            let source = match (fields.string("image_url")?, fields.string("file_id")?) {
                (Some(url), _) => Source::of_url(url),
                (None, Some(id)) => Source::File(id),
                (None, None) => return Ok(None),
            };
            Content::Media(Media { kind: MediaKind::Image, source, name: None, detail })
        }
        "input_file" => {
            let name = fields.string("filename")?;
            let url = fields.string("file_url")?.map(|url| Source::Url { mime: None, url });
            let source = match (fields.string("file_data")?, url, fields.string("file_id")?) {
                (Some(data), ..) => Source::of_url(data),
                (None, Some(url), _) => url,
                (None, None, Some(id)) => Source::File(id),
                (None, None, None) => return Ok(None),
            };
            Content::Media(Media { kind: MediaKind::Document, source, name, detail: None })
        }
        _ => return Ok(None),
    };
    lost.rest(&fields);
    Ok(Some(content))
}

fn read_tool<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Option<Tool<'a>>, Malformed> {
    let mut fields = value.fields("a tool, which is an object")?;
    if fields.string("type")?.as_deref() != Some("function") {
        return Ok(None);
    }
    let tool = Tool {
        name: fields.need_string("name")?,
        description: fields.string("description")?,
        schema: fields.object("parameters")?.map(Cow::Borrowed),
        strict: fields.bool("strict")?,
        cache: None,
    };
    lost.rest(&fields);
    Ok(Some(tool))
}

fn read_tool_choice(value: Value<'_>) -> Result<Option<ToolChoice<'_>>, Malformed> {
    match value.as_str() {
        Some("auto") => return Ok(Some(ToolChoice::Auto)),
        Some("required") => return Ok(Some(ToolChoice::Any)),
        Some("none") => return Ok(Some(ToolChoice::None)),
        Some(_) => return Err(value.wrong("none, auto, required, or an object that names a tool")),
        None => {}
    }
    let mut fields = value.fields("none, auto, required, or an object that names a tool")?;
    if fields.string("type")?.as_deref() != Some("function") {
        return Ok(None);
    }
    Ok(Some(ToolChoice::One(fields.need_string("name")?)))
}

fn read_text<'a>(mut text: Fields<'a>, request: &mut Request<'a>, lost: &mut Losses) -> Result<(), Malformed> {
    if let Some(verbosity) = text.take("verbosity") {
        let value = Setting::OpenAi { name: "verbosity", json: verbosity.raw };
        request.settings.push(Placed { at: verbosity.at, value });
    }
    if let Some(format) = text.take("format") {
        let at = format.at;
        let mut format = format.fields("an object")?;
        let kind = format.need("type")?;
        let value = match kind.as_str() {
            Some("text") => None,
            Some("json_object") => Some(Format::Json),
            Some("json_schema") => Some(Format::Schema {
                name: format.string("name")?,
                description: format.string("description")?,
                schema: format.object("schema")?.unwrap_or("{}").into(),
                strict: format.bool("strict")?,
            }),
            _ => return Err(kind.wrong("text, json_object or json_schema")),
        };
        request.format = value.map(|value| Placed { at, value });
        lost.rest(&format);
    }
    lost.rest(&text);
    Ok(())
}

/// Options that both of OpenAI's dialects have.
const SHARED: [&str; 4] = ["service_tier", "store", "prompt_cache_key", "prompt_cache_retention"];
const LOGPROBS: &str = "message.output_text.logprobs";

fn read_settings<'a>(
    fields: &mut Fields<'a>,
    settings: &mut Vec<Placed<Setting<'a>>>,
    lost: &mut Losses,
) -> Result<(), Malformed> {
    let numbers = [("temperature", Setting::Temperature as fn(&'a str) -> Setting<'a>), ("top_p", Setting::TopP)];
    Setting::read_numbers(fields, &numbers, settings)?;
    let mut logprobs = None;
    for include in fields.array("include")?.unwrap_or_default() {
        match include.as_str() {
            Some(LOGPROBS) => logprobs = Some(include.at),
            // Thoughts are given with their proof anyhow.
            Some("reasoning.encrypted_content") => {}
            _ => lost.add(include.at),
        }
    }
    if let Some(top) = fields.take("top_logprobs") {
        let count = top.count()?;
        if count > 0 {
            logprobs = logprobs.or(Some(top.at));
            settings.push(Placed { at: top.at, value: Setting::TopLogprobs(count) });
        }
    }
    if let Some(at) = logprobs {
        settings.push(Placed { at, value: Setting::Logprobs(true) });
    }
    if let Some(user) = fields.take("user").or_else(|| fields.take("safety_identifier")) {
        settings.push(Placed { at: user.at, value: Setting::User(user.string("a string")?) });
    }
    if let Some(metadata) = fields.take("metadata") {
        settings.push(Placed { at: metadata.at, value: Setting::Metadata(metadata.raw) });
    }
    for name in SHARED {
        if let Some(value) = fields.take(name) {
            settings.push(Placed { at: value.at, value: Setting::OpenAi { name, json: value.raw } });
        }
    }
    // What everybody does.
    fields.take("truncation").filter(|value| value.as_str() != Some("disabled")).iter().for_each(|it| lost.add(it.at));
    fields.take("background").filter(|value| value.bool() != Ok(false)).iter().for_each(|it| lost.add(it.at));
    Ok(())
}

pub(crate) fn write_request(request: &Request<'_>, options: &Options<'_>, lost: &mut Losses, to: &mut Vec<u8>) {
    Out::object(to, |out| {
        out.text("model", options.model);
        write_instructions(&request.system, lost, out);
        let mut items = Items { to: out.key("input"), first: true };
        items.to.push(b'[');
        for message in &request.messages {
            write_message(message, lost, &mut items);
        }
        items.to.push(b']');
        if let Some(most) = request.max_output.filter(|_| !options.count) {
            out.number("max_output_tokens", most);
        }
        if request.stream && !options.count {
            out.bool("stream", true);
        }
        if !request.tools.is_empty() {
            out.items("tools", &request.tools, |tool, to| write_tool(tool, lost, to));
        }
        if let Some(choice) = &request.tool_choice {
            match &choice.value {
                ToolChoice::Auto => out.text("tool_choice", "auto"),
                ToolChoice::Any => out.text("tool_choice", "required"),
                ToolChoice::None => out.text("tool_choice", "none"),
                ToolChoice::One(name) => out.fields("tool_choice", |choice| {
                    choice.text("type", "function");
                    choice.text("name", name);
                }),
            }
        }
        if let Some(parallel) = &request.parallel {
            out.bool("parallel_tool_calls", parallel.value);
        }
        if let Some(thinking) = &request.thinking {
            let effort = thinking.value.effort.or(thinking.value.budget.map(Effort::of_budget));
            // Models that do not think refuse to be told not to.
            match effort.unwrap_or(Effort::Medium) {
                Effort::None => {}
                effort => out.fields("reasoning", |reasoning| reasoning.text("effort", effort.word())),
            }
        }
        write_text(request, out);
        // What is not of the prompt is not asked about.
        if options.count {
            return;
        }
        let said = |name: &str| {
            request.settings.iter().any(|it| matches!(it.value, Setting::OpenAi { name: known, .. } if known == name))
        };
        // This dialect keeps what is asked and answered unless it is told not to; no other does.
        if !said("store") {
            out.bool("store", false);
        }
        for setting in &request.settings {
            write_setting(setting, lost, out);
        }
    });
}

fn write_instructions(system: &[Part<'_>], lost: &mut Losses, out: &mut Out<'_>) {
    let mut texts: Vec<&str> = Vec::new();
    for part in system {
        match &part.content {
            Content::Text(text) => texts.push(text),
            _ => lost.add(part.at),
        }
        part.cache.iter().for_each(|mark| lost.add(mark.at));
    }
    if !texts.is_empty() {
        out.text("instructions", &texts.join("\n\n"));
    }
}

struct Items<'o> {
    to: &'o mut Vec<u8>,
    first: bool,
}

impl Items<'_> {
    fn item(&mut self, fields: impl FnOnce(&mut Out<'_>)) {
        if !std::mem::replace(&mut self.first, false) {
            self.to.push(b',');
        }
        Out::object(self.to, fields);
    }
}

/// What is said stands together as one message; the rest are items of their own.
fn write_message(message: &Message<'_>, lost: &mut Losses, items: &mut Items<'_>) {
    let mut said: Vec<&Part<'_>> = Vec::new();
    let mut after: Vec<&Part<'_>> = Vec::new();
    for part in &message.parts {
        part.cache.iter().for_each(|mark| lost.add(mark.at));
        match &part.content {
            // Only its own are taken back.
            Content::Thought(_) => lost.add(part.at),
            Content::Text(text) if text.is_empty() => {}
            Content::Text(_) | Content::Refusal(_) | Content::Media(_) => said.push(part),
            Content::Call(_) => after.push(part),
            Content::Outcome(outcome) => items.item(|item| write_outcome(outcome, lost, item)),
        }
    }
    let said: Vec<&Part<'_>> = said
        .into_iter()
        .filter(|part| {
            let can = has_word(&part.content, message.role);
            if !can {
                lost.add(part.at);
            }
            can
        })
        .collect();
    if !said.is_empty() {
        items.item(|item| {
            item.text("role", if message.role == Role::User { "user" } else { "assistant" });
            match (&said[..], message.role) {
                ([Part { content: Content::Text(text), .. }], _) => item.text("content", text),
                _ => item.items("content", said, |part, to| {
                    Out::object(to, |out| write_part(&part.content, message.role, out));
                }),
            }
        });
    }
    for part in after {
        if let Content::Call(call) = &part.content {
            items.item(|item| {
                item.text("type", "function_call");
                write_call(call, item);
            });
        }
    }
}

pub(super) fn write_call(call: &Call<'_>, out: &mut Out<'_>) {
    out.text("call_id", &call.id);
    out.text("name", &call.name);
    out.text("arguments", if call.arguments.is_empty() { "{}" } else { &call.arguments });
}

fn write_outcome(outcome: &Outcome<'_>, lost: &mut Losses, item: &mut Out<'_>) {
    item.text("type", "function_call_output");
    item.text("call_id", &outcome.id);
    // The word for it is missing; the text tells it, if anything does.
    outcome.failed.iter().for_each(|at| lost.add(*at));
    let mut parts: Vec<&Part<'_>> = Vec::new();
    for part in &outcome.parts {
        part.cache.iter().for_each(|mark| lost.add(mark.at));
        match has_word(&part.content, Role::User) {
            true => parts.push(part),
            false => lost.add(part.at),
        }
    }
    match &parts[..] {
        [] => item.text("output", ""),
        [Part { content: Content::Text(text), .. }] => item.text("output", text),
        _ => item.items("output", parts, |part, to| {
            Out::object(to, |out| write_part(&part.content, Role::User, out));
        }),
    }
}

fn has_word(content: &Content<'_>, role: Role) -> bool {
    match (content, role) {
        (Content::Text(_), _) | (Content::Refusal(_), Role::Assistant) => true,
        (Content::Media(media), Role::User) => match (media.kind, &media.source) {
            (MediaKind::Image, Source::Data { .. } | Source::Url { .. }) => true,
            (MediaKind::Document, Source::Data { .. } | Source::Url { .. } | Source::Text(_)) => true,
            // Files lie with the caller's own provider; sound and films it does not take.
            _ => false,
        },
        _ => false,
    }
}

/// Writes what [`has_word`].
fn write_part(content: &Content<'_>, role: Role, out: &mut Out<'_>) {
    let text_type = if role == Role::User { "input_text" } else { "output_text" };
    match content {
        Content::Text(text) => {
            out.text("type", text_type);
            out.text("text", text);
        }
        Content::Refusal(text) => {
            out.text("type", "refusal");
            out.text("refusal", text);
        }
        Content::Media(Media { source: Source::Text(text), .. }) => {
            out.text("type", text_type);
            out.text("text", text);
        }
        Content::Media(media) if media.kind == MediaKind::Image => {
            out.text("type", "input_image");
            write_url(["image_url"; 2], &media.source, out);
            out.text("detail", media.detail.as_deref().unwrap_or("auto"));
        }
        Content::Media(media) => {
            out.text("type", "input_file");
            if let Source::Data { .. } = media.source {
                out.text("filename", media.name.as_deref().unwrap_or("document.pdf"));
            }
            write_url(["file_data", "file_url"], &media.source, out);
        }
        Content::Thought(_) | Content::Call(_) | Content::Outcome(_) => {}
    }
}

/// Data by the first key, an address by the second.
fn write_url(keys: [&str; 2], source: &Source<'_>, out: &mut Out<'_>) {
    match source {
        Source::Data { mime, base64 } => out.text(keys[0], &format!("data:{mime};base64,{base64}")),
        Source::Url { url, .. } => out.text(keys[1], url),
        Source::File(_) | Source::Text(_) => {}
    }
}

fn write_tool(tool: &Tool<'_>, lost: &mut Losses, to: &mut Vec<u8>) {
    Out::object(to, |out| {
        out.text("type", "function");
        out.text("name", &tool.name);
        if let Some(description) = &tool.description {
            out.text("description", description);
        }
        out.raw("parameters", tool.schema());
        // Unless it is told otherwise this dialect is strict, and the others are not.
        out.bool("strict", tool.strict.unwrap_or(false));
    });
    tool.cache.iter().for_each(|mark| lost.add(mark.at));
}

fn write_text(request: &Request<'_>, out: &mut Out<'_>) {
    let verbosity = request.settings.iter().find_map(|setting| match setting.value {
        Setting::OpenAi { name: "verbosity", json } => Some(json),
        _ => None,
    });
    if verbosity.is_none() && request.format.is_none() {
        return;
    }
    out.fields("text", |text| {
        if let Some(json) = verbosity {
            text.raw("verbosity", json);
        }
        if let Some(Placed { value, .. }) = &request.format {
            text.fields("format", |format| match value {
                Format::Json => format.text("type", "json_object"),
                Format::Schema { name, description, schema, strict } => {
                    format.text("type", "json_schema");
                    format.text("name", name.as_deref().unwrap_or("answer"));
                    if let Some(description) = description {
                        format.text("description", description);
                    }
                    format.raw("schema", schema);
                    if let Some(strict) = strict {
                        format.bool("strict", *strict);
                    }
                }
            });
        }
    });
}

fn write_setting(setting: &Placed<Setting<'_>>, lost: &mut Losses, out: &mut Out<'_>) {
    match &setting.value {
        Setting::Temperature(number) => out.raw("temperature", number),
        Setting::TopP(number) => out.raw("top_p", number),
        Setting::TopLogprobs(count) => out.number("top_logprobs", count),
        Setting::Logprobs(true) => out.items("include", [LOGPROBS], crate::json::quote),
        Setting::User(user) => out.text("user", user),
        Setting::Metadata(json) => out.raw("metadata", json),
        // Stands with the text.
        Setting::OpenAi { name: "verbosity", .. } => {}
        Setting::OpenAi { name, json } => out.raw(name, json),
        // Said, but nothing is wanted.
        Setting::PresencePenalty(number) | Setting::FrequencyPenalty(number) if number.parse() == Ok(0.0) => {}
        Setting::Choices(1) | Setting::Logprobs(false) => {}
        Setting::TopK(_)
        | Setting::PresencePenalty(_)
        | Setting::FrequencyPenalty(_)
        | Setting::Seed(_)
        | Setting::Stop(_)
        | Setting::Choices(_) => lost.add(setting.at),
    }
}
