//! The cache: what it holds, what it is told to forget.

use proxy::{Purge, Purged, What};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Asked, Problem};

/// What is to be forgotten: exactly one of `url`, `prefix`, `tag` and `all`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Forget {
    /// Of this api alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// `https://host/path?query`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// All URLs that begin so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// One of the words in the answer's `Surrogate-Key` or `Cache-Tag`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Everything.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub all: bool,
}

/// What was forgotten.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Forgotten {
    /// Answers that were kept and are no more, each once wherever it was.
    pub purged: usize,
    /// Those of them that were in memory.
    pub in_memory: usize,
    /// Those that were on the disk, in memory as well or not. Absent where there is no disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_disk: Option<usize>,
}

pub fn purge(asked: &Asked<'_>) -> Result<Answer, Problem> {
    let Forget { api, url, prefix, tag, all } = asked.json()?;
    let snapshot = asked.running.snapshot().ok_or_else(Problem::stopping)?;
    if let Some(api) = &api
        && !snapshot.apis.iter().any(|it| *it.name == **api)
    {
        return Err(Problem::new(404, format!("no api is called `{api}`")));
    }
    let what = match (url, prefix, tag, all) {
        (Some(url), None, None, false) => What::Url(url),
        (None, Some(prefix), None, false) => What::Prefix(prefix),
        (None, None, Some(tag), false) => What::Tag(tag),
        (None, None, None, true) => What::All,
        _ => return Err(Problem::new(400, "expected exactly one of `url`, `prefix`, `tag` and `all: true`")),
    };
    if matches!(&what, What::Url(text) | What::Prefix(text) | What::Tag(text) if text.is_empty()) {
        return Err(Problem::new(400, "nothing is named; `all: true` is for everything"));
    }
    let purged = asked.running.with(|node| node.purge(&Purge { api, what })).ok_or_else(Problem::stopping)?;
    let Purged { answers, memory, disk } = purged;
    Ok(Answer::json(&Forgotten { purged: answers, in_memory: memory, on_disk: disk }))
}
