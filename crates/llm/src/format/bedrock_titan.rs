//! Amazon's Titan, of whose models of embeddings Bedrock's `InvokeModel` makes the vector of one text.
//!
//! `{"inputText", "dimensions"}` gives `{"embedding", "inputTextTokenCount"}`. Only the second version knows dimensions; both
//! versions write numbers out, which is what `embeddingTypes` says if it says nothing.

use base::TokenUsage;

use crate::json::{self, Cursor, Out, Value};
use crate::malformed::Malformed;
use crate::neutral::{Losses, Texts, Vectors};
use crate::peek::Peek;
use crate::stream::Stop;
use crate::translate::{Glance, Options};

pub(crate) fn peek(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    peek.max_output = Some(0);
    peek.messages = 1;
    cursor.object("an object", |cursor, _, _| cursor.skip())
}

/// Of one text, which whoever translates has seen to.
pub(crate) fn write_request(texts: &Texts<'_>, options: &Options<'_>, lost: &mut Losses, to: &mut Vec<u8>) {
    let has_dimensions = !options.model.contains("-v1") && !options.model.contains("-g1-");
    if let Some((_, at)) = texts.task {
        lost.add(at);
    }
    Out::object(to, |out| {
        out.text("inputText", texts.texts.first().map_or("", |text| text));
        match texts.dimensions {
            Some((dimensions, _)) if has_dimensions => out.number("dimensions", dimensions),
            Some((_, at)) => lost.add(at),
            None => {}
        }
    });
}

pub(crate) fn read_answer<'a>(body: Value<'a>, lost: &mut Losses) -> Result<Vectors<'a>, Malformed> {
    let mut fields = body.fields("an object")?;
    // The same numbers again.
    fields.take("embeddingsByType");
    let vector = fields.need("embedding")?.array("an array of numbers")?;
    let vector = vector.iter().map(Value::number).collect::<Result<_, _>>()?;
    let tokens = fields.count("inputTextTokenCount")?;
    lost.rest(&fields);
    Ok(Vectors { vectors: vec![vector], tokens })
}

pub(crate) fn glance(body: &[u8]) -> Result<Glance, Malformed> {
    let (mut input, mut answers) = (None, false);
    let error = json::unless_error(body, |cursor, key| {
        match key {
            "inputTextTokenCount" => input = Value::read(cursor)?.count().ok(),
            "embedding" => answers = cursor.something()?,
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    let usage = input.map(|input| TokenUsage { input, ..TokenUsage::default() });
    Ok(Glance { usage, stop: Some(Stop::End), answers: answers && !error })
}

#[cfg(test)]
mod tests {
    use crate::Dialect::{BedrockCohere, BedrockTitan, OpenAiEmbeddings};
    use crate::translate::{self, Options};

    #[test]
    fn the_length_of_a_vector_is_told_to_models_that_have_a_choice_and_named_as_lost_for_others() {
        let check = |to, model: &str, field: Option<&str>| {
            let options = Options { model, ..Options::default() };
            let body = br#"{"model":"m","input":"a river","dimensions":256}"#;
            let translated = translate::request(OpenAiEmbeddings, to, body, &options).unwrap();
            let sent = String::from_utf8(translated.body).unwrap();
            let lost: Vec<_> = translated.lost.iter().map(ToString::to_string).collect();
            match field {
                Some(field) => {
                    assert!(sent.contains(&format!(r#""{field}":256"#)) && lost.is_empty(), "{model}: {sent}")
                }
                None => assert!(!sent.contains("256") && lost == ["dimensions"], "{model}: {sent} {lost:?}"),
            }
        };
        check(BedrockTitan, "amazon.titan-embed-text-v1", None);
        check(BedrockTitan, "amazon.titan-embed-g1-text-02", None);
        check(BedrockTitan, "amazon.titan-embed-text-v2:0", Some("dimensions"));
        check(BedrockCohere, "cohere.embed-english-v3", None);
        check(BedrockCohere, "cohere.embed-multilingual-v3:0:512", None);
        check(BedrockCohere, "eu.cohere.embed-v4:0", Some("output_dimension"));
    }
}
