//! What a call to a model asks: its body read whole, up to a bound, and looked at once.

use std::cell::Cell;
use std::sync::Arc;

use base::{Call, ModelCall};
use bytes::{Bytes, BytesMut};
use config::{Llm, Model, Models};
use ledger::Class;
use llm::{Dialect, Operation, Peek, Target};
use transport::{Body, Frame};

use super::books;
use super::keep::Keep;
use super::words::Failure;

/// A call to a model, understood.
pub struct Asked {
    pub target: Target,
    pub body: Bytes,
    pub peek: Peek,
    /// As the caller names it.
    pub name: Arc<str>,
    pub model: Arc<Model>,
    /// What the `*` of the model's name stands for.
    pub rest: String,
    pub stream: bool,
    /// What becomes of the answer in the cache; taken by whoever has the answer.
    pub keep: Cell<Option<Box<Keep>>>,
    pub errand: Option<Box<Errand>>,
}

/// A call of our own, on the way to the answer of another.
pub struct Errand {
    /// What its money goes for.
    pub class: Class,
    /// Who pays, beside the consumer: as in the books of that other call.
    pub credential: Option<Arc<str>>,
    pub task: Option<[u8; 16]>,
}

/// Bytes of prompt that make up a token, about; for English text and code alike. It decides nothing about money: what is
/// reserved is the most there can be, and what is booked is what the provider counted.
const BYTES_PER_TOKEN: u64 = 4;
/// What a picture comes to, about, where nothing says how large it is.
const TOKENS_PER_IMAGE: u64 = 1_000;

/// Reads and looks at the body, finds the model, and tells the call of it.
pub async fn understand(llm: &Llm, target: &Target, call: &mut Call, body: &mut Body) -> Result<Asked, Failure> {
    let whole = read(body, llm.request).await?;
    let peek = llm::peek(target.dialect, &whole).map_err(Failure::Malformed)?;
    let name = match &target.model {
        Some(model) => model.as_str().into(),
        None => peek.model(&whole).ok_or(Failure::NoModel)?,
    };
    let (model, rest) = llm.model(&name).ok_or_else(|| Failure::UnknownModel(name.to_string()))?;
    let stream = target.stream || peek.stream;
    let (model, rest, name) = (model.clone(), rest.to_owned(), Arc::<str>::from(&*name));
    call.model = Some(Box::new(told(target, &peek, &name, &model, stream)));
    Ok(Asked {
        target: target.clone(),
        body: whole,
        peek,
        name,
        model,
        rest,
        stream,
        keep: Cell::new(None),
        errand: None,
    })
}

fn told(target: &Target, peek: &Peek, name: &Arc<str>, model: &Model, stream: bool) -> ModelCall {
    let (prompt, output) = (estimate(peek), output(target, peek, model));
    let cost = model.candidates.iter().map(|it| books::estimate(it, prompt, output)).max().unwrap_or(0);
    ModelCall {
        dialect: target.dialect.name(),
        model: name.clone(),
        stream,
        prompt,
        output,
        cost,
        tools: peek.wants.tools,
        images: peek.wants.images,
        audio: peek.wants.audio,
        documents: peek.wants.documents,
        json_schema: peek.wants.json_schema,
        reasoning: peek.wants.reasoning,
    }
}

impl Asked {
    /// What is asked for the vector of a text; tells the call of it. `None` if there is no such model.
    pub fn vector(models: &Models, name: &str, text: &str, errand: Errand, call: &mut Call) -> Option<Asked> {
        let model = models.all.iter().find(|model| *model.name == *name)?.clone();
        let body = serde_json::json!({ "model": name, "input": text, "encoding_format": "float" });
        let body = Bytes::from(body.to_string());
        let (dialect, operation) = (Dialect::OpenAiEmbeddings, Operation::Embed);
        let peek = llm::peek(dialect, &body).ok()?;
        let (name, target) = (model.name.clone(), Target { dialect, operation, model: None, stream: false });
        call.model = Some(Box::new(told(&target, &peek, &name, &model, false)));
        let (keep, errand, rest) = (Cell::new(None), Some(Box::new(errand)), String::new());
        Some(Asked { target, body, peek, name, model, rest, stream: false, keep, errand })
    }

    /// Whoever did not ask for it may not expect a piece without choices.
    pub fn hides_usage(&self) -> bool {
        self.stream && self.target.dialect == Dialect::OpenAiChat && !self.peek.usage_asked
    }
}

/// Tokens of the prompt, about.
fn estimate(peek: &Peek) -> u64 {
    (peek.text as u64).div_ceil(BYTES_PER_TOKEN) + peek.tokens as u64 + peek.images as u64 * TOKENS_PER_IMAGE
}

/// The most that the prompt can come to: no tokenizer makes more tokens of text than it has bytes, and what a provider
/// puts round each message is little.
pub fn most_of_prompt(peek: &Peek) -> u64 {
    const AROUND: u64 = 32;
    const AROUND_EACH: u64 = 16;
    const MOST_PER_IMAGE: u64 = 3_000;
    let text = peek.text as u64 + peek.tokens as u64 + AROUND + peek.messages as u64 * AROUND_EACH;
    // Sound and documents: no more tokens than a token for each 32 bytes of what they are in base64.
    let other = peek.data as u64 / 32;
    text + (peek.images as u64 * MOST_PER_IMAGE).max(other)
}

/// The most tokens of all the answers that the call asks for.
fn output(target: &Target, peek: &Peek, model: &Model) -> u64 {
    if target.operation != Operation::Generate {
        return 0;
    }
    let most = model.candidates.iter().map(|it| it.max_output).max().unwrap_or(0);
    peek.max_output.map_or(most, |wanted| if most == 0 { wanted } else { wanted.min(most) }) * peek.choices.max(1)
}

async fn read(body: &mut Body, most: usize) -> Result<Bytes, Failure> {
    if body.length().is_some_and(|length| length > most as u64) {
        return Err(Failure::TooLarge(most));
    }
    let mut first: Option<Bytes> = None;
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let data = match frame {
            Ok(Frame::Data(data)) => data,
            Ok(Frame::Trailers(_)) => continue,
            Err(_) => return Err(Failure::RequestBody),
        };
        if first.as_ref().map_or(0, Bytes::len) + whole.len() + data.len() > most {
            return Err(Failure::TooLarge(most));
        }
        // Most come in one piece, which is then not copied.
        match &first {
            None => first = Some(data),
            Some(piece) => {
                if whole.is_empty() {
                    let known = body.length().map_or(0, |left| left as usize);
                    whole.reserve(piece.len() + data.len() + known.min(most));
                    whole.extend_from_slice(piece);
                    first = Some(Bytes::new());
                }
                whole.extend_from_slice(&data);
            }
        }
    }
    Ok(if whole.is_empty() { first.unwrap_or_default() } else { whole.freeze() })
}
