//! Requests.

use std::borrow::Cow;

use super::{fields, maybe_fields, schema};
use crate::json::{Fields, Out, Value, quote};
use crate::malformed::Malformed;
use crate::neutral::{
    Call, Content, Effort, Format, Losses, Media, MediaKind, Message, OfNumber, Outcome, Part, Placed, Request, Role,
    Setting, Source, Thinking, Thought, Tool, ToolChoice, plain_id,
};
use crate::translate::Options;

pub(crate) fn read_request<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Request<'a>, Malformed> {
    let mut body = fields(value)?;
    let mut request = Request::default();
    let mut ids = Ids::default();
    if let Some(system) = body.take("systemInstruction") {
        let at = system.at;
        match system.is_string() {
            true => request.system.push(Part::new(at, Content::Text(system.string("a string")?))),
            false => request.system = read_parts(fields(system)?.take("parts"), &mut ids, lost)?,
        }
    }
    for content in body.need("contents")?.array("an array of contents")? {
        let mut content = fields(content)?;
        let role = match content.take("role") {
            None => Role::User,
            Some(role) => match role.as_str() {
                Some("user" | "function") => Role::User,
                Some("model") => Role::Assistant,
                _ => return Err(role.wrong("user or model")),
            },
        };
        let parts = read_parts(content.take("parts"), &mut ids, lost)?;
        request.messages.push(Message { role, parts });
        lost.rest(&content);
    }
    for tool in body.array("tools")?.unwrap_or_default() {
        read_tools(tool, &mut request, lost)?;
    }
    if let Some(mut config) = maybe_fields(&mut body, "toolConfig")? {
        if let Some(calling) = config.take("functionCallingConfig") {
            request.tool_choice = read_tool_choice(calling, lost)?;
        }
        lost.rest(&config);
    }
    if let Some(config) = maybe_fields(&mut body, "generationConfig")? {
        read_config(config, &mut request, lost)?;
    }
    if let Some(labels) = body.take("labels") {
        request.settings.push(Placed { at: labels.at, value: Setting::Metadata(labels.raw) });
    }
    body.take("model");
    lost.rest(&body);
    Ok(request)
}

/// Ids for calls that have none, and which of them still wait for an answer.
#[derive(Default)]
pub(super) struct Ids<'a> {
    /// What ids begin with, so that those of two answers differ.
    of: String,
    made: u32,
    waiting: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Ids<'a> {
    pub(super) fn of(answer: &str) -> Ids<'a> {
        Ids { of: answer.to_owned(), ..Ids::default() }
    }

    fn call(&mut self, id: Option<Cow<'a, str>>, name: &Cow<'a, str>) -> Cow<'a, str> {
        let id = id.filter(|id| !id.is_empty()).unwrap_or_else(|| {
            self.made += 1;
            call_id(&self.of, self.made)
        });
        self.waiting.push((name.clone(), id.clone()));
        id
    }

    /// The first call of that name that has got no answer.
    fn answer(&mut self, id: Option<Cow<'a, str>>, name: &str) -> Cow<'a, str> {
        let id = id.filter(|id| !id.is_empty());
        let found = self.waiting.iter().position(|(of, known)| match &id {
            Some(id) => id == known,
            None => of == name,
        });
        match (found, id) {
            (Some(at), _) => self.waiting.remove(at).1,
            (None, Some(id)) => id,
            (None, None) => self.call(None, &Cow::Owned(name.to_owned())),
        }
    }
}

/// An id for a call that came without one.
pub(super) fn call_id(of: &str, number: u32) -> Cow<'static, str> {
    Cow::Owned(format!("call_{}{}{number}", plain_id(of), if of.is_empty() { "" } else { "_" }))
}

pub(super) fn read_parts<'a>(
    parts: Option<Value<'a>>,
    ids: &mut Ids<'a>,
    lost: &mut Losses,
) -> Result<Vec<Part<'a>>, Malformed> {
    let mut out: Vec<Part<'a>> = Vec::new();
    let Some(parts) = parts else { return Ok(out) };
    for part in parts.array("an array of parts")? {
        let at = part.at;
        let mut part = fields(part)?;
        let signature = part.take("thoughtSignature");
        let signed_at = signature.as_ref().map(|signature| signature.at);
        let signature = signature.map(|signature| signature.string("a string")).transpose()?;
        let thought = part.bool("thought")?.unwrap_or(false);
        let content = if let Some(text) = part.string("text")? {
            if thought {
                // A thought comes in pieces, the last of which is signed.
                match out.last_mut() {
                    Some(Part { content: Content::Thought(before), .. }) if before.signature.is_none() => {
                        before.text.to_mut().push_str(&text);
                        before.signature = signature;
                        continue;
                    }
                    _ => Content::Thought(Thought { text, signature, redacted: false }),
                }
            } else {
                // There is a place for a signature only at thoughts and calls.
                lost_at(signed_at, lost);
                if text.is_empty() {
                    continue;
                }
                Content::Text(text)
            }
        } else if let Some(mut call) = maybe_fields(&mut part, "functionCall")? {
            let name = call.need_string("name")?;
            let id = ids.call(call.string("id")?, &name);
            let arguments = call.object("args")?.unwrap_or("{}").into();
            lost.rest(&call);
            Content::Call(Call { id, name, arguments, signature })
        } else if let Some(response) = maybe_fields(&mut part, "functionResponse")? {
            Content::Outcome(read_outcome(response, ids, lost)?)
        } else if let Some(media) = read_media(&mut part, lost)? {
            Content::Media(media)
        } else {
            lost.add(at);
            continue;
        };
        lost.rest(&part);
        out.push(Part::new(at, content));
    }
    Ok(out)
}

fn lost_at(at: Option<usize>, lost: &mut Losses) {
    at.iter().for_each(|at| lost.add(*at));
}

/// What a tool gave back is an object; by custom a text is its `result` or `output`, and a failure its `error`.
fn read_outcome<'a>(mut response: Fields<'a>, ids: &mut Ids<'a>, lost: &mut Losses) -> Result<Outcome<'a>, Malformed> {
    let name = response.string("name")?.unwrap_or_default();
    let id = ids.answer(response.string("id")?, &name);
    let mut parts = Vec::new();
    let mut failed = None;
    if let Some(given) = response.take("response") {
        let (at, raw) = (given.at, given.raw);
        let mut entries = given.fields("an object")?.into_entries();
        let text = match &entries[..] {
            [(key, value)] if matches!(&**key, "result" | "output" | "error") => {
                failed = (key == "error").then_some(value.at);
                let (_, value) = entries.remove(0);
                if value.is_string() { value.string("a string")? } else { value.raw.into() }
            }
            _ => raw.into(),
        };
        parts.push(Part::new(at, Content::Text(text)));
    }
    for part in response.array("parts")?.unwrap_or_default() {
        let at = part.at;
        match read_media(&mut fields(part)?, lost)? {
            Some(media) => parts.push(Part::new(at, Content::Media(media))),
            None => lost.add(at),
        }
    }
    lost.rest(&response);
    Ok(Outcome { id, parts, failed })
}

fn read_media<'a>(part: &mut Fields<'a>, lost: &mut Losses) -> Result<Option<Media<'a>>, Malformed> {
    let Some(data) = part.take("inlineData").or_else(|| part.take("fileData")) else { return Ok(None) };
    let mut data = fields(data)?;
    let mime = data.string("mimeType")?.unwrap_or_default();
    let name = data.string("displayName")?;
    let kind = match mime.split('/').next() {
        Some("image") => MediaKind::Image,
        Some("audio") => MediaKind::Audio,
        Some("video") => MediaKind::Video,
        _ => MediaKind::Document,
    };
    let source = match data.string("data")? {
        Some(base64) => Source::Data { mime, base64 },
        None => Source::Url { mime: Some(mime).filter(|mime| !mime.is_empty()), url: data.need_string("fileUri")? },
    };
    lost.rest(&data);
    Ok(Some(Media { kind, source, name, detail: None }))
}

/// One entry has all functions; the others are the provider's own tools.
fn read_tools<'a>(value: Value<'a>, request: &mut Request<'a>, lost: &mut Losses) -> Result<(), Malformed> {
    let mut entry = fields(value)?;
    for function in entry.array("functionDeclarations")?.unwrap_or_default() {
        let mut function = fields(function)?;
        let schema = match (function.take("parametersJsonSchema"), function.take("parameters")) {
            (Some(schema), _) => Some(Cow::Borrowed(schema.raw)),
            (None, Some(schema)) => Some(json_schema(schema)),
            (None, None) => None,
        };
        request.tools.push(Tool {
            name: function.need_string("name")?,
            description: function.string("description")?,
            schema,
            strict: None,
            cache: None,
        });
        lost.rest(&function);
    }
    lost.rest(&entry);
    Ok(())
}

fn json_schema(value: Value<'_>) -> Cow<'static, str> {
    let mut to = Vec::with_capacity(value.raw.len());
    schema::to_json(value, &mut to);
    // It is made of texts and the marks between them.
    Cow::Owned(String::from_utf8(to).unwrap_or_default())
}

fn read_tool_choice<'a>(value: Value<'a>, lost: &mut Losses) -> Result<Option<Placed<ToolChoice<'a>>>, Malformed> {
    let at = value.at;
    let mut calling = fields(value)?;
    let mode = calling.string("mode")?;
    let mut names = calling.array("allowedFunctionNames")?.unwrap_or_default();
    let value = match mode.as_deref() {
        Some("ANY") if names.len() == 1 => ToolChoice::One(names.remove(0).string("a string")?),
        Some("ANY") => ToolChoice::Any,
        Some("NONE") => ToolChoice::None,
        // That arguments are by the schema is what most others do anyhow.
        None | Some("AUTO" | "VALIDATED" | "MODE_UNSPECIFIED") => ToolChoice::Auto,
        Some(_) => {
            lost.add(at);
            return Ok(None);
        }
    };
    names.iter().for_each(|name| lost.add(name.at));
    lost.rest(&calling);
    Ok(Some(Placed { at, value }))
}

fn read_config<'a>(mut config: Fields<'a>, request: &mut Request<'a>, lost: &mut Losses) -> Result<(), Malformed> {
    request.max_output = config.count("maxOutputTokens")?;
    let numbers: [(&str, OfNumber<'a>); 6] = [
        ("temperature", Setting::Temperature),
        ("topP", Setting::TopP),
        ("topK", Setting::TopK),
        ("presencePenalty", Setting::PresencePenalty),
        ("frequencyPenalty", Setting::FrequencyPenalty),
        ("seed", Setting::Seed),
    ];
    let settings = &mut request.settings;
    Setting::read_numbers(&mut config, &numbers, settings)?;
    if let Some(stop) = config.take("stopSequences") {
        let at = stop.at;
        let words = stop.array("an array of strings")?.into_iter().map(|word| word.string("a string"));
        settings.push(Placed { at, value: Setting::Stop(words.collect::<Result<_, _>>()?) });
    }
    if let Some(count) = config.take("candidateCount") {
        settings.push(Placed { at: count.at, value: Setting::Choices(count.count()?) });
    }
    if let Some(wanted) = config.take("responseLogprobs") {
        settings.push(Placed { at: wanted.at, value: Setting::Logprobs(wanted.bool()?) });
    }
    if let Some(top) = config.take("logprobs") {
        settings.push(Placed { at: top.at, value: Setting::TopLogprobs(top.count()?) });
    }
    if let Some(modalities) = config.take("responseModalities") {
        let at = modalities.at;
        // Text is what everybody gives.
        let is_text = |one: &Value<'_>| one.as_str().is_some_and(|word| word.eq_ignore_ascii_case("text"));
        if !modalities.array("an array")?.iter().all(is_text) {
            lost.add(at);
        }
    }
    read_format(&mut config, request, lost)?;
    if let Some(thinking) = config.take("thinkingConfig") {
        request.thinking = Some(read_thinking(thinking, lost)?);
    }
    lost.rest(&config);
    Ok(())
}

fn read_format<'a>(config: &mut Fields<'a>, request: &mut Request<'a>, lost: &mut Losses) -> Result<(), Malformed> {
    let mime = config.take("responseMimeType");
    let schema = match (config.take("responseJsonSchema"), config.take("responseSchema")) {
        (Some(schema), _) => Some((schema.at, Cow::Borrowed(schema.raw))),
        (None, Some(schema)) => Some((schema.at, json_schema(schema))),
        (None, None) => None,
    };
    let word = mime.as_ref().and_then(Value::as_str).unwrap_or("text/plain");
    request.format = match (schema, mime.as_ref().map(|mime| mime.at)) {
        (Some((at, schema)), _) if word != "text/plain" || mime.is_none() => {
            let value = Format::Schema { name: None, description: None, schema, strict: None };
            Some(Placed { at, value })
        }
        (_, Some(at)) if word == "application/json" => Some(Placed { at, value: Format::Json }),
        (_, Some(at)) if word != "text/plain" => {
            lost.add(at);
            None
        }
        _ => None,
    };
    Ok(())
}

fn read_thinking(value: Value<'_>, lost: &mut Losses) -> Result<Placed<Thinking>, Malformed> {
    let at = value.at;
    let mut config = fields(value)?;
    // Whether thoughts are shown is not for other providers to say.
    config.take("includeThoughts");
    let mut thinking = Thinking::default();
    if let Some(level) = config.take("thinkingLevel") {
        let word = level.as_str().unwrap_or_default().to_ascii_lowercase();
        thinking.effort = Effort::parse(&word);
        if thinking.effort.is_none() {
            lost.add(level.at);
        }
    }
    if let Some(budget) = config.take("thinkingBudget") {
        // Less than nothing: as much as the model likes.
        match budget.number()?.parse::<i64>() {
            Ok(0) => thinking.effort = Some(Effort::None),
            Ok(tokens) if tokens > 0 => thinking.budget = Some(tokens.unsigned_abs()),
            _ => {}
        }
    }
    lost.rest(&config);
    Ok(Placed { at, value: thinking })
}

pub(crate) fn write_request(request: &Request<'_>, options: &Options<'_>, lost: &mut Losses, to: &mut Vec<u8>) {
    if options.count {
        return Out::object(to, |out| {
            out.fields("generateContentRequest", |out| {
                out.text("model", &format!("models/{}", options.model));
                write_conversation(request, options.model, lost, out);
            });
        });
    }
    Out::object(to, |out| {
        write_conversation(request, options.model, lost, out);
        write_config(request, options.model, lost, out);
    });
}

fn write_conversation(request: &Request<'_>, model: &str, lost: &mut Losses, out: &mut Out<'_>) {
    if !request.system.is_empty() {
        out.fields("systemInstruction", |system| {
            let to = system.key("parts");
            write_parts(&request.system, &mut Vec::new(), model, lost, to);
        });
    }
    let mut names = Vec::new();
    let turns = request.messages.chunk_by(|one, other| one.role == other.role);
    out.items("contents", turns, |turn, to| {
        Out::object(to, |out| {
            out.text("role", if turn[0].role == Role::User { "user" } else { "model" });
            let parts = turn.iter().flat_map(|message| &message.parts);
            write_parts(parts, &mut names, model, lost, out.key("parts"));
        });
    });
    if !request.tools.is_empty() {
        out.items("tools", [()], |(), to| {
            Out::object(to, |out| {
                out.items("functionDeclarations", &request.tools, |tool, to| write_tool(tool, lost, to))
            });
        });
    }
    if let (Some(Placed { value, .. }), false) = (&request.tool_choice, request.tools.is_empty()) {
        out.fields("toolConfig", |config| {
            config.fields("functionCallingConfig", |calling| match value {
                ToolChoice::Auto => calling.text("mode", "AUTO"),
                ToolChoice::Any => calling.text("mode", "ANY"),
                ToolChoice::None => calling.text("mode", "NONE"),
                ToolChoice::One(name) => {
                    calling.text("mode", "ANY");
                    calling.items("allowedFunctionNames", [name], |name, to| quote(name, to));
                }
            });
        });
    }
    if let Some(Placed { at, value: false }) = request.parallel {
        lost.add(at);
    }
}

/// `names` are the calls so far, since an outcome has the name of its call.
fn write_parts<'p, 'a: 'p>(
    parts: impl IntoIterator<Item = &'p Part<'a>>,
    names: &mut Vec<(&'p str, &'p str)>,
    model: &str,
    lost: &mut Losses,
    to: &mut Vec<u8>,
) {
    let mut parts: Vec<&Part<'_>> = parts.into_iter().collect();
    // What tools gave back comes first.
    parts.sort_by_key(|part| !matches!(part.content, Content::Outcome(_)));
    let mut list = List { first: true, to };
    list.to.push(b'[');
    let mut called = false;
    let mut shown = Vec::new();
    for part in parts {
        match &part.content {
            Content::Text(text) if text.is_empty() => {}
            Content::Text(text) | Content::Refusal(text) => list.part(|out| out.text("text", text)),
            Content::Media(media) => write_media(part.at, media, lost, &mut list),
            Content::Call(call) => {
                names.push((&call.id, &call.name));
                let first = !std::mem::replace(&mut called, true);
                list.part(|out| write_call(call, part.at, first && wants_signatures(model), lost, out));
            }
            Content::Outcome(outcome) => {
                let name = names.iter().rev().find(|(id, _)| *id == outcome.id).map_or("", |(_, name)| name);
                list.part(|out| out.fields("functionResponse", |out| write_outcome(outcome, name, out)));
                shown.extend(outcome.parts.iter().filter(|part| matches!(part.content, Content::Media(_))));
            }
            // It takes back none but its own, which stand at calls.
            Content::Thought(_) => lost.add(part.at),
        }
        part.cache.iter().for_each(|mark| lost.add(mark.at));
    }
    for part in shown {
        if let Content::Media(media) = &part.content {
            write_media(part.at, media, lost, &mut list);
        }
    }
    list.to.push(b']');
}

struct List<'o> {
    first: bool,
    to: &'o mut Vec<u8>,
}

impl List<'_> {
    fn part(&mut self, fields: impl FnOnce(&mut Out<'_>)) {
        if !std::mem::replace(&mut self.first, false) {
            self.to.push(b',');
        }
        Out::object(self.to, fields);
    }
}

/// From its third generation on a model insists on proof of the thought at the first call of a turn.
fn wants_signatures(model: &str) -> bool {
    !["gemini-1", "gemini-2", "gemma"].iter().any(|before| model.contains(before))
}

fn write_call(call: &Call<'_>, at: usize, sign: bool, lost: &mut Losses, out: &mut Out<'_>) {
    write_function_call(call, at, lost, out);
    if call.signature.is_none() && sign {
        // The provider's word for a call that it has not made itself.
        out.text("thoughtSignature", "skip_thought_signature_validator");
    }
}

pub(super) fn write_function_call(call: &Call<'_>, at: usize, lost: &mut Losses, out: &mut Out<'_>) {
    out.fields("functionCall", |out| {
        if !call.id.is_empty() {
            out.text("id", &call.id);
        }
        out.text("name", &call.name);
        call.write_arguments("args", at, lost, out);
    });
    if let Some(signature) = &call.signature {
        out.text("thoughtSignature", signature);
    }
}

fn write_outcome(outcome: &Outcome<'_>, name: &str, out: &mut Out<'_>) {
    out.text("id", &outcome.id);
    out.text("name", name);
    let texts: Vec<&str> = outcome
        .parts
        .iter()
        .filter_map(|part| match &part.content {
            Content::Text(text) => Some(&**text),
            _ => None,
        })
        .collect();
    let text = texts.join("\n");
    match Value::parse(text.as_bytes()) {
        Ok(value) if value.is_object() && outcome.failed.is_none() => out.raw("response", value.raw),
        _ => out.fields("response", |out| {
            out.text(if outcome.failed.is_some() { "error" } else { "output" }, &text);
        }),
    }
}

fn write_media(at: usize, media: &Media<'_>, lost: &mut Losses, list: &mut List<'_>) {
    match &media.source {
        Source::Data { mime, base64 } => list.part(|out| {
            out.fields("inlineData", |data| {
                data.text("mimeType", mime);
                data.text("data", base64);
            });
        }),
        Source::Url { mime, url } => list.part(|out| {
            out.fields("fileData", |file| {
                if let Some(mime) = mime.as_deref().or_else(|| mime_of(url)) {
                    file.text("mimeType", mime);
                }
                file.text("fileUri", url);
            });
        }),
        Source::Text(text) => list.part(|out| out.text("text", text)),
        // Files lie with the caller's own provider.
        Source::File(_) => lost.add(at),
    }
}

fn mime_of(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next()?;
    let mime = match path.rsplit_once('.')?.1 {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "pdf" => "application/pdf",
        "mp4" => "video/mp4",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        _ => return None,
    };
    Some(mime)
}

fn write_tool(tool: &Tool<'_>, lost: &mut Losses, to: &mut Vec<u8>) {
    Out::object(to, |out| {
        out.text("name", &tool.name);
        if let Some(description) = &tool.description {
            out.text("description", description);
        }
        if let Some(schema) = &tool.schema {
            out.raw("parametersJsonSchema", schema);
        }
    });
    tool.cache.iter().for_each(|mark| lost.add(mark.at));
}

fn write_config(request: &Request<'_>, model: &str, lost: &mut Losses, out: &mut Out<'_>) {
    out.fields("generationConfig", |config| {
        if let Some(most) = request.max_output {
            config.number("maxOutputTokens", most);
        }
        for setting in &request.settings {
            write_setting(setting, lost, config);
        }
        match &request.format {
            Some(Placed { value: Format::Json, .. }) => config.text("responseMimeType", "application/json"),
            Some(Placed { value: Format::Schema { schema, .. }, .. }) => {
                config.text("responseMimeType", "application/json");
                config.raw("responseJsonSchema", schema);
            }
            None => {}
        }
        if let Some(Placed { value, .. }) = &request.thinking {
            config.fields("thinkingConfig", |config| write_thinking(*value, model, config));
        }
    });
}

fn write_setting(setting: &Placed<Setting<'_>>, lost: &mut Losses, out: &mut Out<'_>) {
    match &setting.value {
        Setting::Temperature(number) => out.raw("temperature", number),
        Setting::TopP(number) => out.raw("topP", number),
        Setting::TopK(number) => out.raw("topK", number),
        Setting::PresencePenalty(number) => out.raw("presencePenalty", number),
        Setting::FrequencyPenalty(number) => out.raw("frequencyPenalty", number),
        Setting::Seed(number) => out.raw("seed", number),
        Setting::Stop(words) => out.items("stopSequences", words, |word, to| quote(word, to)),
        Setting::Choices(count) => out.number("candidateCount", count),
        Setting::Logprobs(wanted) => out.bool("responseLogprobs", *wanted),
        Setting::TopLogprobs(count) => out.number("logprobs", count),
        Setting::User(_) | Setting::Metadata(_) | Setting::OpenAi { .. } => lost.add(setting.at),
    }
}

/// The second generation is told tokens, later ones a level. The large models cannot do without.
fn write_thinking(thinking: Thinking, model: &str, out: &mut Out<'_>) {
    let large = model.contains("pro");
    let none = thinking.effort == Some(Effort::None);
    if model.contains("gemini-2") {
        match thinking.budget.or(thinking.effort.map(Effort::budget)) {
            Some(_) if none => out.number("thinkingBudget", if large { 128 } else { 0 }),
            Some(budget) => out.number("thinkingBudget", budget.min(if large { 32_768 } else { 24_576 })),
            None => out.raw("thinkingBudget", "-1"),
        }
    } else if let Some(effort) = thinking.effort.or(thinking.budget.map(Effort::of_budget)) {
        out.text(
            "thinkingLevel",
            match effort {
                Effort::None | Effort::Minimal if large => "LOW",
                Effort::None | Effort::Minimal => "MINIMAL",
                Effort::Low => "LOW",
                Effort::Medium => "MEDIUM",
                Effort::High | Effort::XHigh | Effort::Max => "HIGH",
            },
        );
    }
    if !none {
        out.bool("includeThoughts", true);
    }
}
