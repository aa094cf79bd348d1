//! OpenAI's embeddings.

use base::TokenUsage;

use crate::json::{self, Cursor, Kind};
use crate::malformed::Malformed;
use crate::peek::Peek;
use crate::stream::Stop;

pub(crate) fn peek(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    // The answer is vectors, which nobody counts in tokens.
    peek.max_output = Some(0);
    cursor.object("an object", |cursor, key, _| {
        match &**key {
            "model" => peek.model = Some(cursor.string("the name of a model, which is a string")?.range()),
            "input" => input(cursor, peek)?,
            "user" => peek.user = cursor.maybe_string()?.map(|text| text.range()),
            _ => cursor.skip()?,
        }
        Ok(())
    })
}

/// A text, texts, the tokens of one, or the tokens of several.
fn input(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    const EXPECTED: &str = "a text, its tokens, or an array of either";
    if cursor.kind()? != Kind::Array {
        peek.messages = 1;
        return cursor.skip_text(EXPECTED);
    }
    let mut loose = 0;
    cursor.array(EXPECTED, |cursor| match cursor.kind()? {
        Kind::Number => {
            loose += 1;
            cursor.number(EXPECTED).map(drop)
        }
        Kind::Array => {
            peek.messages += 1;
            cursor.array(EXPECTED, |cursor| {
                peek.tokens += 1;
                cursor.number("a token, which is a number").map(drop)
            })
        }
        _ => {
            peek.messages += 1;
            cursor.skip_text(EXPECTED)
        }
    })?;
    peek.tokens += loose;
    peek.messages += usize::from(loose > 0);
    Ok(())
}

/// Usage of a whole answer.
pub(crate) fn glance(body: &[u8]) -> (Option<TokenUsage>, Option<Stop>) {
    let usage = json::find(body, &["usage"]).and_then(|usage| usage.fields("an object").ok());
    let input = usage.and_then(|mut usage| usage.count("prompt_tokens").ok().flatten());
    (input.map(|input| TokenUsage { input, ..TokenUsage::default() }), Some(Stop::End))
}
