//! Requests.

use std::borrow::Cow;

use crate::json::{Fields, Out, Value, quote};
use crate::malformed::Malformed;
use crate::neutral::{
    Cache, Call, Content, Effort, Format, Losses, Media, MediaKind, Message, OfNumber, Outcome, Part, Placed, Request,
    Role, Setting, Source, Thinking, Thought, Tool, ToolChoice,
};
use crate::translate::Options;

pub(crate) fn read_request<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Request<'a>, Malformed> {
    let mut fields = value.fields("an object")?;
    let mut request = Request::default();
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
        let at = choice.at;
        match read_tool_choice(choice)? {
            Some(value) => request.tool_choice = Some(Placed { at, value }),
            None => lost.add(at),
        }
    }
    if let Some(parallel) = fields.take("parallel_tool_calls") {
        request.parallel = Some(Placed { at: parallel.at, value: parallel.bool()? });
    }
    // The older name; who sends both means the newer.
    let older = fields.count("max_tokens")?;
    request.max_output = fields.count("max_completion_tokens")?.or(older);
    if let Some(effort) = fields.take("reasoning_effort") {
        let Some(word) = effort.as_str().and_then(Effort::parse) else {
            return Err(effort.wrong("none, minimal, low, medium, high, xhigh or max"));
        };
        request.thinking = Some(Placed { at: effort.at, value: Thinking { effort: Some(word), budget: None } });
    }
    if let Some(format) = fields.take("response_format") {
        request.format = read_format(format, lost)?;
    }
    request.stream = fields.bool("stream")?.unwrap_or(false);
    // Answered for by whoever sends the request on.
    fields.take("stream_options");
    fields.take("model");
    read_settings(&mut fields, &mut request.settings)?;
    lost.rest(&fields);
    Ok(request)
}

fn read_message<'a>(value: Value<'a>, request: &mut Request<'a>, lost: &mut Losses) -> Result<(), Malformed> {
    let mut fields = value.fields("a message, which is an object")?;
    let at = fields.at();
    let role = fields.need("role")?;
    let content = fields.take("content");
    match role.as_str() {
        Some("system" | "developer") => request.system.extend(read_content(content, lost)?),
        Some("user") => {
            let parts = read_content(content, lost)?;
            request.messages.push(Message { role: Role::User, parts });
        }
        Some("assistant") => {
            let parts = read_assistant(&mut fields, content, lost)?;
            request.messages.push(Message { role: Role::Assistant, parts });
        }
        Some("tool") => {
            let id = fields.need_string("tool_call_id")?;
            let parts = read_content(content, lost)?;
            let outcome = Part::new(at, Content::Outcome(Outcome { id, parts, failed: None }));
            request.messages.push(Message { role: Role::User, parts: vec![outcome] });
        }
        _ => return Err(role.wrong("system, developer, user, assistant or tool")),
    }
    lost.rest(&fields);
    Ok(())
}

fn read_assistant<'a>(
    fields: &mut Fields<'a>,
    content: Option<Value<'a>>,
    lost: &mut Losses,
) -> Result<Vec<Part<'a>>, Malformed> {
    let mut parts = read_thoughts(fields, lost)?;
    parts.extend(read_content(content, lost)?);
    if let Some(refusal) = fields.take("refusal") {
        parts.push(Part::new(refusal.at, Content::Refusal(refusal.string("a string")?)));
    }
    for call in fields.array("tool_calls")?.unwrap_or_default() {
        let at = call.at;
        match read_call(call, lost)? {
            Some(call) => parts.push(Part::new(at, Content::Call(call))),
            None => lost.add(at),
        }
    }
    Ok(parts)
}

/// The thoughts of a message: signed ones by preference, since plain ones are the same without their signature.
pub(super) fn read_thoughts<'a>(fields: &mut Fields<'a>, lost: &mut Losses) -> Result<Vec<Part<'a>>, Malformed> {
    let mut parts = Vec::new();
    let plain = fields.take("reasoning_content").or_else(|| fields.take("reasoning"));
    for block in fields.array("thinking_blocks")?.unwrap_or_default() {
        let mut block = block.fields("an object")?;
        let at = block.at();
        let kind = block.string("type")?;
        // A piece of a stream that was put together.
        block.take("index");
        let thought = match kind.as_deref() {
            Some("redacted_thinking") => Thought { text: block.need_string("data")?, signature: None, redacted: true },
            _ => Thought {
                text: block.string("thinking")?.unwrap_or_default(),
                signature: block.string("signature")?,
                redacted: false,
            },
        };
        lost.rest(&block);
        parts.push(Part::new(at, Content::Thought(thought)));
    }
    if let (true, Some(plain)) = (parts.is_empty(), plain) {
        let at = plain.at;
        let text = plain.string("a string")?;
        if !text.is_empty() {
            parts.push(Part::new(at, Content::Thought(Thought { text, signature: None, redacted: false })));
        }
    }
    Ok(parts)
}

pub(super) fn read_call<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Option<Call<'a>>, Malformed> {
    let mut fields = value.fields("a call of a tool, which is an object")?;
    let id = fields.string("id")?.unwrap_or_default();
    // `index` is of streams, `type` says what the rest does.
    fields.take("index");
    fields.take("type");
    let Some(mut function) = fields.fields("function")? else { return Ok(None) };
    let name = function.need_string("name")?;
    let arguments = function.string("arguments")?.unwrap_or_default();
    lost.rest(&function);
    lost.rest(&fields);
    Ok(Some(Call { id, name, arguments, signature: None }))
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
            Some(part) => parts.push(part),
            None => lost.add(at),
        }
    }
    Ok(parts)
}

fn read_part<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Option<Part<'a>>, Malformed> {
    let mut fields = value.fields("a part, which is an object")?;
    let at = fields.at();
    let kind = fields.need_string("type")?;
    let content = match &*kind {
        "text" => Content::Text(fields.need_string("text")?),
        "refusal" => Content::Refusal(fields.need_string("refusal")?),
        "image_url" => {
            let mut image = fields.need("image_url")?.fields("an object")?;
            let source = Source::of_url(image.need_string("url")?);
            let detail = image.string("detail")?;
            lost.rest(&image);
            Content::Media(Media { kind: MediaKind::Image, source, name: None, detail })
        }
        "input_audio" => {
            let mut audio = fields.need("input_audio")?.fields("an object")?;
            let base64 = audio.need_string("data")?;
            let mime = match &*audio.need_string("format")? {
                "mp3" => Cow::Borrowed("audio/mpeg"),
                other => Cow::Owned(format!("audio/{other}")),
            };
            lost.rest(&audio);
            let source = Source::Data { mime, base64 };
            Content::Media(Media { kind: MediaKind::Audio, source, name: None, detail: None })
        }
        "file" => {
            let mut file = fields.need("file")?.fields("an object")?;
            let name = file.string("filename")?;
            let source = match (file.string("file_data")?, file.string("file_id")?) {
                (Some(data), _) => Source::of_url(data),
                (None, Some(id)) => Source::File(id),
                (None, None) => return Ok(None),
            };
            lost.rest(&file);
            Content::Media(Media { kind: MediaKind::Document, source, name, detail: None })
        }
        _ => return Ok(None),
    };
    let cache = fields.take("prompt_cache_breakpoint").map(|mark| Placed { at: mark.at, value: Cache::Minutes });
    lost.rest(&fields);
    Ok(Some(Part { at, content, cache }))
}

fn read_tool<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Option<Tool<'a>>, Malformed> {
    let mut fields = value.fields("a tool, which is an object")?;
    if fields.string("type")?.as_deref() != Some("function") {
        return Ok(None);
    }
    let mut function = fields.need("function")?.fields("an object")?;
    let tool = Tool {
        name: function.need_string("name")?,
        description: function.string("description")?,
        schema: function.object("parameters")?.map(Cow::Borrowed),
        strict: function.bool("strict")?,
        cache: None,
    };
    lost.rest(&function);
    lost.rest(&fields);
    Ok(Some(tool))
}

fn read_tool_choice(value: Value<'_>) -> Result<Option<ToolChoice<'_>>, Malformed> {
    match value.as_str() {
        Some("auto") => return Ok(Some(ToolChoice::Auto)),
        Some("required" | "any") => return Ok(Some(ToolChoice::Any)),
        Some("none") => return Ok(Some(ToolChoice::None)),
        Some(_) => return Err(value.wrong("none, auto, required, or an object that names a tool")),
        None => {}
    }
    let mut fields = value.fields("none, auto, required, or an object that names a tool")?;
    if fields.string("type")?.as_deref() != Some("function") {
        return Ok(None);
    }
    let mut function = fields.need("function")?.fields("an object")?;
    Ok(Some(ToolChoice::One(function.need_string("name")?)))
}

fn read_format<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Option<Placed<Format<'a>>>, Malformed> {
    let at = value.at;
    let mut fields = value.fields("an object")?;
    let kind = fields.need("type")?;
    let format = match kind.as_str() {
        Some("text") => return Ok(None),
        Some("json_object") => Format::Json,
        Some("json_schema") => {
            let mut schema = fields.need("json_schema")?.fields("an object")?;
            let format = Format::Schema {
                name: schema.string("name")?,
                description: schema.string("description")?,
                schema: schema.object("schema")?.unwrap_or("{}").into(),
                strict: schema.bool("strict")?,
            };
            lost.rest(&schema);
            format
        }
        _ => return Err(kind.wrong("text, json_object or json_schema")),
    };
    lost.rest(&fields);
    Ok(Some(Placed { at, value: format }))
}

/// Options that both of OpenAI's dialects have.
const SHARED: [&str; 5] = ["service_tier", "store", "prompt_cache_key", "prompt_cache_retention", "verbosity"];

fn read_settings<'a>(fields: &mut Fields<'a>, settings: &mut Vec<Placed<Setting<'a>>>) -> Result<(), Malformed> {
    let numbers: [(&str, OfNumber<'a>); 6] = [
        ("temperature", Setting::Temperature),
        ("top_p", Setting::TopP),
        ("presence_penalty", Setting::PresencePenalty),
        ("frequency_penalty", Setting::FrequencyPenalty),
        ("seed", Setting::Seed),
        // Not of OpenAI's own, but of many that speak its dialect.
        ("top_k", Setting::TopK),
    ];
    Setting::read_numbers(fields, &numbers, settings)?;
    if let Some(stop) = fields.take("stop") {
        let at = stop.at;
        let words = match stop.is_string() {
            true => vec![stop.string("a string")?],
            false => stop
                .array("a string or an array of strings")?
                .into_iter()
                .map(|word| word.string("a string"))
                .collect::<Result<_, _>>()?,
        };
        settings.push(Placed { at, value: Setting::Stop(words) });
    }
    if let Some(n) = fields.take("n") {
        settings.push(Placed { at: n.at, value: Setting::Choices(n.count()?) });
    }
    if let Some(logprobs) = fields.take("logprobs")
        && logprobs.bool()?
    {
        settings.push(Placed { at: logprobs.at, value: Setting::Logprobs(true) });
    }
    if let Some(top) = fields.take("top_logprobs") {
        settings.push(Placed { at: top.at, value: Setting::TopLogprobs(top.count()?) });
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
    Ok(())
}

pub(crate) fn write_request(request: &Request<'_>, options: &Options<'_>, lost: &mut Losses, to: &mut Vec<u8>) {
    Out::object(to, |out| {
        out.text("model", options.model);
        let messages = out.key("messages");
        write_messages(request, options, lost, messages);
        if let Some(most) = request.max_output {
            let word = if options.quirks.max_tokens { "max_tokens" } else { "max_completion_tokens" };
            out.number(word, most);
        }
        if request.stream {
            out.bool("stream", true);
            if options.include_usage {
                out.fields("stream_options", |stream| stream.bool("include_usage", true));
            }
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
                    choice.fields("function", |function| function.text("name", name));
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
                effort => out.text("reasoning_effort", effort.word()),
            }
        }
        if let Some(format) = &request.format {
            out.fields("response_format", |out| write_format(&format.value, out));
        }
        for setting in &request.settings {
            write_setting(setting, lost, out);
        }
    });
}

fn write_setting(setting: &Placed<Setting<'_>>, lost: &mut Losses, out: &mut Out<'_>) {
    match &setting.value {
        Setting::Temperature(number) => out.raw("temperature", number),
        Setting::TopP(number) => out.raw("top_p", number),
        Setting::TopK(_) => lost.add(setting.at),
        Setting::PresencePenalty(number) => out.raw("presence_penalty", number),
        Setting::FrequencyPenalty(number) => out.raw("frequency_penalty", number),
        Setting::Seed(number) => out.raw("seed", number),
        Setting::Stop(words) => out.items("stop", words, |word, to| quote(word, to)),
        Setting::Choices(count) => out.number("n", count),
        Setting::Logprobs(wanted) => out.bool("logprobs", *wanted),
        Setting::TopLogprobs(count) => out.number("top_logprobs", count),
        Setting::User(user) => out.text("user", user),
        Setting::Metadata(json) => out.raw("metadata", json),
        Setting::OpenAi { name, json } => out.raw(name, json),
    }
}

fn write_messages(request: &Request<'_>, options: &Options<'_>, lost: &mut Losses, to: &mut Vec<u8>) {
    let mut list = List::new(to);
    if !request.system.is_empty() {
        list.message("system", |out| write_content(&request.system, lost, out));
    }
    for Message { role, parts } in &request.messages {
        match role {
            Role::User => write_user(parts, lost, &mut list),
            Role::Assistant => list.message("assistant", |out| write_assistant(parts, options, lost, out)),
        }
    }
    list.end();
}

/// What tools gave back is a message each, which must follow the call at once; so it comes before what the user says.
fn write_user(parts: &[Part<'_>], lost: &mut Losses, list: &mut List<'_>) {
    let mut said = Vec::new();
    for part in parts {
        let Content::Outcome(outcome) = &part.content else {
            said.push(part);
            continue;
        };
        let mut texts: Vec<&str> = Vec::new();
        for part in &outcome.parts {
            match &part.content {
                Content::Text(text) => texts.push(text),
                // A tool can say text only: the rest is said by the user.
                _ => said.push(part),
            }
        }
        list.message("tool", |out| {
            out.text("tool_call_id", &outcome.id);
            out.text("content", &texts.join("\n"));
        });
        lost_marks(outcome.parts.iter().chain([part]), lost);
        // The word for it is missing; the text tells it, if anything does.
        outcome.failed.iter().for_each(|at| lost.add(*at));
    }
    if !said.is_empty() {
        list.message("user", |out| write_content(said, lost, out));
    }
}

fn write_assistant(parts: &[Part<'_>], options: &Options<'_>, lost: &mut Losses, out: &mut Out<'_>) {
    let mut said = String::new();
    let mut refusal: Option<&str> = None;
    let mut thoughts = String::new();
    let mut calls = Vec::new();
    for part in parts {
        match &part.content {
            Content::Text(text) => said.push_str(text),
            Content::Refusal(text) => refusal = Some(text),
            Content::Call(call) => calls.push(call),
            Content::Thought(thought) if options.quirks.reasoning_content && !thought.redacted => {
                thoughts.push_str(&thought.text);
            }
            Content::Thought(_) | Content::Media(_) | Content::Outcome(_) => lost.add(part.at),
        }
    }
    lost_marks(parts, lost);
    // `null` is allowed where something else is said.
    match said.is_empty() && (!calls.is_empty() || refusal.is_some()) {
        true => out.null("content"),
        false => out.text("content", &said),
    }
    if !thoughts.is_empty() {
        out.text("reasoning_content", &thoughts);
    }
    if let Some(refusal) = refusal {
        out.text("refusal", refusal);
    }
    if !calls.is_empty() {
        out.items("tool_calls", calls, |call, to| Out::object(to, |out| write_call(call, out)));
    }
}

pub(super) fn write_call(call: &Call<'_>, out: &mut Out<'_>) {
    out.text("id", &call.id);
    out.text("type", "function");
    out.fields("function", |function| {
        function.text("name", &call.name);
        function.text("arguments", if call.arguments.is_empty() { "{}" } else { &call.arguments });
    });
}

/// One text as a string, which everybody understands; more as parts.
fn write_content<'p, 'a: 'p>(parts: impl IntoIterator<Item = &'p Part<'a>>, lost: &mut Losses, out: &mut Out<'_>) {
    let parts: Vec<&Part<'_>> = parts.into_iter().collect();
    lost_marks(parts.iter().copied(), lost);
    match &parts[..] {
        [Part { content: Content::Text(text), .. }] => out.text("content", text),
        _ => {
            let mut first = true;
            let to = out.key("content");
            to.push(b'[');
            for part in parts {
                let before = to.len();
                if !first {
                    to.push(b',');
                }
                match write_part(part, to) {
                    true => first = false,
                    false => {
                        to.truncate(before);
                        lost.add(part.at);
                    }
                }
            }
            to.push(b']');
        }
    }
}

/// Whether there is a word for it.
fn write_part(part: &Part<'_>, to: &mut Vec<u8>) -> bool {
    let media = match &part.content {
        Content::Text(text) => {
            write_text(text, to);
            return true;
        }
        Content::Media(media) => media,
        Content::Refusal(_) | Content::Thought(_) | Content::Call(_) | Content::Outcome(_) => return false,
    };
    match (media.kind, &media.source) {
        (MediaKind::Image, Source::Data { .. } | Source::Url { .. }) => Out::object(to, |out| {
            out.text("type", "image_url");
            out.fields("image_url", |image| {
                write_url("url", &media.source, image);
                if let Some(detail) = &media.detail {
                    image.text("detail", detail);
                }
            });
        }),
        (MediaKind::Audio, Source::Data { mime, base64 }) => Out::object(to, |out| {
            out.text("type", "input_audio");
            out.fields("input_audio", |audio| {
                audio.text("data", base64);
                audio.text(
                    "format",
                    match &**mime {
                        "audio/mpeg" | "audio/mp3" => "mp3",
                        other => other.strip_prefix("audio/").unwrap_or(other).trim_start_matches("x-"),
                    },
                );
            });
        }),
        (MediaKind::Document, Source::Data { .. }) => Out::object(to, |out| {
            out.text("type", "file");
            out.fields("file", |file| {
                file.text("filename", media.name.as_deref().unwrap_or("document.pdf"));
                write_url("file_data", &media.source, file);
            });
        }),
        (MediaKind::Document, Source::Text(text)) => write_text(text, to),
        _ => return false,
    }
    true
}

fn write_text(text: &str, to: &mut Vec<u8>) {
    Out::object(to, |out| {
        out.text("type", "text");
        out.text("text", text);
    });
}

fn write_url(key: &str, source: &Source<'_>, out: &mut Out<'_>) {
    match source {
        Source::Data { mime, base64 } => out.text(key, &format!("data:{mime};base64,{base64}")),
        Source::Url { url, .. } => out.text(key, url),
        Source::File(_) | Source::Text(_) => {}
    }
}

fn write_tool(tool: &Tool<'_>, lost: &mut Losses, to: &mut Vec<u8>) {
    Out::object(to, |out| {
        out.text("type", "function");
        out.fields("function", |function| {
            function.text("name", &tool.name);
            if let Some(description) = &tool.description {
                function.text("description", description);
            }
            function.raw("parameters", tool.schema());
            if let Some(strict) = tool.strict {
                function.bool("strict", strict);
            }
        });
    });
    tool.cache.iter().for_each(|mark| lost.add(mark.at));
}

fn write_format(format: &Format<'_>, out: &mut Out<'_>) {
    match format {
        Format::Json => out.text("type", "json_object"),
        Format::Schema { name, description, schema, strict } => {
            out.text("type", "json_schema");
            out.fields("json_schema", |out| {
                out.text("name", name.as_deref().unwrap_or("answer"));
                if let Some(description) = description {
                    out.text("description", description);
                }
                out.raw("schema", schema);
                if let Some(strict) = strict {
                    out.bool("strict", *strict);
                }
            });
        }
    }
}

/// OpenAI keeps prompts by itself; marks for it are lost on servers that only speak its dialect.
fn lost_marks<'p, 'a: 'p>(parts: impl IntoIterator<Item = &'p Part<'a>>, lost: &mut Losses) {
    parts.into_iter().filter_map(|part| part.cache.as_ref()).for_each(|mark| lost.add(mark.at));
}

/// A list of messages that is being written.
struct List<'o> {
    to: &'o mut Vec<u8>,
    first: bool,
}

impl<'o> List<'o> {
    fn new(to: &'o mut Vec<u8>) -> List<'o> {
        to.push(b'[');
        List { to, first: true }
    }

    fn message(&mut self, role: &str, fields: impl FnOnce(&mut Out<'_>)) {
        if !self.first {
            self.to.push(b',');
        }
        self.first = false;
        Out::object(self.to, |out| {
            out.text("role", role);
            fields(out);
        });
    }

    fn end(self) {
        self.to.push(b']');
    }
}
