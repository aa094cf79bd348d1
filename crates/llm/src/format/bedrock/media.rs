//! Pictures, sound, films and papers, which this dialect names by endings instead of media types.

use std::borrow::Cow;

use crate::json::{Fields, Out};
use crate::malformed::Malformed;
use crate::neutral::{Losses, Media, MediaKind, Source};

/// Kind, ending, media type; of several for one thing the first is written.
const FORMATS: [(MediaKind, &str, &str); 28] = [
    (MediaKind::Image, "png", "image/png"),
    (MediaKind::Image, "jpeg", "image/jpeg"),
    (MediaKind::Image, "jpeg", "image/jpg"),
    (MediaKind::Image, "gif", "image/gif"),
    (MediaKind::Image, "webp", "image/webp"),
    (MediaKind::Document, "pdf", "application/pdf"),
    (MediaKind::Document, "csv", "text/csv"),
    (MediaKind::Document, "doc", "application/msword"),
    (MediaKind::Document, "docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    (MediaKind::Document, "xls", "application/vnd.ms-excel"),
    (MediaKind::Document, "xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    (MediaKind::Document, "html", "text/html"),
    (MediaKind::Document, "txt", "text/plain"),
    (MediaKind::Document, "md", "text/markdown"),
    (MediaKind::Video, "mp4", "video/mp4"),
    (MediaKind::Video, "mov", "video/quicktime"),
    (MediaKind::Video, "mkv", "video/x-matroska"),
    (MediaKind::Video, "webm", "video/webm"),
    (MediaKind::Video, "flv", "video/x-flv"),
    (MediaKind::Video, "mpeg", "video/mpeg"),
    (MediaKind::Video, "wmv", "video/x-ms-wmv"),
    (MediaKind::Video, "three_gp", "video/3gpp"),
    (MediaKind::Audio, "mp3", "audio/mpeg"),
    (MediaKind::Audio, "mp3", "audio/mp3"),
    (MediaKind::Audio, "wav", "audio/wav"),
    (MediaKind::Audio, "flac", "audio/flac"),
    (MediaKind::Audio, "ogg", "audio/ogg"),
    (MediaKind::Audio, "aac", "audio/aac"),
];

/// The key of a block as a kind of media.
pub(super) fn kind(key: &str) -> Option<MediaKind> {
    KINDS.into_iter().find(|(word, _)| *word == key).map(|(_, kind)| kind)
}

const KINDS: [(&str, MediaKind); 4] = [
    ("image", MediaKind::Image),
    ("document", MediaKind::Document),
    ("video", MediaKind::Video),
    ("audio", MediaKind::Audio),
];

pub(super) fn read<'a>(
    kind: MediaKind,
    mut fields: Fields<'a>,
    lost: &mut Losses,
) -> Result<Option<Media<'a>>, Malformed> {
    let format = fields.string("format")?.unwrap_or_default();
    let known = FORMATS.into_iter().find(|(of, ending, _)| *of == kind && **ending == *format);
    let mime = match known {
        Some((.., mime)) => Cow::Borrowed(mime),
        None => {
            let family = KINDS.into_iter().find(|(_, of)| *of == kind).map_or("application", |(word, _)| word);
            Cow::Owned(format!("{family}/{format}"))
        }
    };
    let name = fields.string("name")?;
    let mut source = fields.need("source")?.fields("an object")?;
    let source = if let Some(base64) = source.string("bytes")? {
        Source::Data { mime, base64 }
    } else if let Some(text) = source.string("text")? {
        Source::Text(text)
    } else if let Some(mut place) = source.fields("s3Location")? {
        Source::File(place.need_string("uri")?)
    } else {
        return Ok(None);
    };
    lost.rest(&fields);
    Ok(Some(Media { kind, source, name, detail: None }))
}

/// Whether there is a word for it.
pub(super) fn can(media: &Media<'_>) -> bool {
    match &media.source {
        Source::Data { mime, .. } => ending(media.kind, mime).is_some(),
        Source::Text(_) => media.kind == MediaKind::Document,
        Source::Url { url, mime } => {
            url.starts_with("s3://") && mime.as_ref().is_some_and(|mime| ending(media.kind, mime).is_some())
        }
        Source::File(_) => false,
    }
}

/// Writes what [`can`] be written. `names` are those of the documents so far, each of which must have one of its own.
pub(super) fn write(media: &Media<'_>, names: &mut Vec<String>, out: &mut Out<'_>) {
    let word = KINDS.into_iter().find(|(_, kind)| *kind == media.kind).map_or("document", |(word, _)| word);
    let format = match &media.source {
        Source::Data { mime, .. } | Source::Url { mime: Some(mime), .. } => ending(media.kind, mime),
        _ => None,
    };
    out.fields(word, |out| {
        out.text("format", format.unwrap_or("txt"));
        if media.kind == MediaKind::Document {
            out.text("name", &own_name(media.name.as_deref().unwrap_or("document"), names));
        }
        out.fields("source", |source| match &media.source {
            Source::Data { base64, .. } => source.text("bytes", base64),
            Source::Text(text) => source.text("text", text),
            Source::Url { url: place, .. } | Source::File(place) => {
                source.fields("s3Location", |location| location.text("uri", place));
            }
        });
    });
}

fn ending(kind: MediaKind, mime: &str) -> Option<&'static str> {
    let mime = mime.split(';').next().unwrap_or_default().trim();
    FORMATS
        .into_iter()
        .find(|(of, _, known)| *of == kind && known.eq_ignore_ascii_case(mime))
        .map(|(_, ending, _)| ending)
}

/// Of the few characters that are taken, and unlike those before it.
fn own_name(name: &str, names: &mut Vec<String>) -> String {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '(' | ')' | '[' | ']');
    let words = name.split(|letter: char| !allowed(letter)).filter(|word| !word.is_empty());
    let plain = words.collect::<Vec<_>>().join(" ");
    let plain = if plain.is_empty() { "document".to_owned() } else { plain };
    let mut own = plain.clone();
    for number in 2.. {
        if !names.contains(&own) {
            break;
        }
        own = format!("{plain} {number}");
    }
    names.push(own.clone());
    own
}
