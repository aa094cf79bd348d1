//! One answer in a segment: a frame, its head, then its body. The head has a checksum, and one for each [`CHUNK`] of the
//! body, so that a part of a large body can be read and trusted without the rest.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::{Headers, StatusCode, Time, crc32c};
use bytes::Bytes;

use super::CHUNK;
use super::codec::{In, Out};
use crate::entry::Entry;
use crate::plan::{Plan, Varied};

/// Where an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    pub segment: u32,
    pub at: u32,
    /// Bytes of its frame and head.
    pub head: u32,
    /// Behind the head, or where it was before the head was renewed.
    pub body_segment: u32,
    pub body_at: u32,
    pub body: u32,
}

/// Where the body of an answer is, when it is not in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub segment: u32,
    pub at: u32,
    pub length: u32,
    /// Checksums of its pieces.
    pub sums: Arc<[u32]>,
}

/// What the index knows of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    pub sequence: u64,
    pub spot: Spot,
    pub(crate) key: Vec<u8>,
    pub(crate) url_at: u32,
    pub(crate) open: bool,
    pub(crate) vary: Vec<Varied>,
    /// What it is named by in purges, beside its URL.
    pub(crate) api: String,
    pub(crate) tags: Vec<String>,
}

/// An answer as it was read; its body may still be where it is.
#[derive(Debug)]
pub struct Record {
    pub card: Card,
    pub entry: Entry,
    pub place: Place,
}

/// Magic, sequence, lengths of head and of the body behind it, checksum of that and the head.
pub const FRAME: usize = 24;
const MAGIC: u32 = 0x3143_5257;
/// A clock that was set back makes answers younger; by more than this, nobody knows how old they are.
const CLOCK: Duration = Duration::from_secs(60);

/// The frame and head of an answer; its body comes behind, unless it is in another place. Nothing if it is too large.
pub fn encode(
    entry: &Entry,
    sequence: u64,
    (segment, at): (u32, u32),
    now: Time,
    wall: SystemTime,
) -> Option<(Vec<u8>, Card)> {
    let mut out = Out(vec![0; FRAME]);
    let body = u32::try_from(entry.length()).ok()?;
    let mut card = Card {
        sequence,
        // Behind the head, wherever that will be.
        spot: Spot { segment, at, head: 0, body_segment: 0, body_at: 0, body },
        key: entry.key.to_vec(),
        url_at: u32::try_from(entry.url_at).ok()?,
        open: entry.plan.open,
        vary: entry.plan.vary.clone(),
        api: entry.api.to_string(),
        tags: entry.plan.tags.clone(),
    };
    let sums: Arc<[u32]> = match &entry.apart {
        Some(place) => {
            (card.spot.body_segment, card.spot.body_at) = (place.segment, place.at);
            place.sums.clone()
        }
        None => entry.body.chunks(CHUNK).map(crc32c).collect(),
    };
    card.write(&mut out);
    out.count(sums.len());
    sums.iter().for_each(|sum| out.short(*sum));
    write_rest(entry, now, wall, &mut out);
    let head = u32::try_from(out.0.len()).ok()?;
    card.spot.head = head;
    if entry.apart.is_none() {
        (card.spot.body_segment, card.spot.body_at) = (segment, at.checked_add(head)?);
        card.spot.body_at.checked_add(body)?;
    }
    let mut bytes = out.0;
    let inline = if entry.apart.is_none() { body } else { 0 };
    frame(&mut bytes, sequence, inline);
    Some((bytes, card))
}

/// The same frame and head under another sequence, to be written once more.
pub fn renumbered(bytes: &mut [u8], sequence: u64) {
    if let Some(inline) = bytes.get(16..20).and_then(|it| it.try_into().ok()).map(u32::from_le_bytes) {
        frame(bytes, sequence, inline);
    }
}

fn frame(bytes: &mut [u8], sequence: u64, inline: u32) {
    let head = (bytes.len() - FRAME) as u32;
    bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[4..12].copy_from_slice(&sequence.to_le_bytes());
    bytes[12..16].copy_from_slice(&head.to_le_bytes());
    bytes[16..20].copy_from_slice(&inline.to_le_bytes());
    let sum = sum(bytes);
    bytes[20..24].copy_from_slice(&sum.to_le_bytes());
}

/// Of a frame and its head, but for the place where the sum itself is.
fn sum(bytes: &[u8]) -> u32 {
    crc32c(&bytes[..20]) ^ crc32c(&bytes[FRAME..]).rotate_left(7)
}

/// The lengths that a frame tells: of itself with its head, and of the body behind. They may be wrong until the head is
/// read.
pub fn lengths(frame: &[u8]) -> Option<(usize, usize)> {
    let mut input = In(frame);
    (input.short()? == MAGIC).then_some(())?;
    let _ = input.long()?;
    let (head, body) = (input.short()?, input.short()?);
    Some((FRAME + head as usize, body as usize))
}

/// An answer by its frame and head, if they are whole. `at`: where that was.
pub fn decode(bytes: &[u8], (segment, at): (u32, u32), now: Time, wall: SystemTime) -> Option<Record> {
    let (mut input, mut card, inline) = decode_card(bytes, (segment, at))?;
    let sums: Arc<[u32]> = input.list(In::short)?.into();
    let (entry, at_wall) = read_rest(&mut input, &card, now)?;
    let elapsed = match wall.duration_since(at_wall) {
        Ok(elapsed) => elapsed,
        Err(ahead) if ahead.duration() < CLOCK => Duration::ZERO,
        Err(_) => return None,
    };
    let mut entry = entry;
    entry.plan.age = entry.plan.age.saturating_add(elapsed);
    if inline {
        (card.spot.body_segment, card.spot.body_at) = (segment, at.checked_add(card.spot.head)?);
    }
    let place = Place { segment: card.spot.body_segment, at: card.spot.body_at, length: card.spot.body, sums };
    let pieces = (place.length as usize).div_ceil(CHUNK);
    (place.sums.len() == pieces).then_some(Record { card, entry, place })
}

fn decode_card(bytes: &[u8], (segment, at): (u32, u32)) -> Option<(In<'_>, Card, bool)> {
    let (head, inline) = lengths(bytes)?;
    let bytes = bytes.get(..head)?;
    let told = u32::from_le_bytes(bytes[20..24].try_into().ok()?);
    (told == sum(bytes)).then_some(())?;
    let sequence = u64::from_le_bytes(bytes[4..12].try_into().ok()?);
    let mut input = In(&bytes[FRAME..]);
    let mut card = Card::read(&mut input, sequence, segment, at)?;
    card.spot.head = head as u32;
    let is_inline = card.spot.body_at == 0;
    if inline != if is_inline { card.spot.body as usize } else { 0 } {
        return None;
    }
    Some((input, card, is_inline))
}

/// What the index wants of a record, of which only frame and head are needed; and where the next one is.
pub fn glance(bytes: &[u8], (segment, at): (u32, u32)) -> Option<(Card, usize)> {
    let (head, inline) = lengths(bytes)?;
    let (_, mut card, is_inline) = decode_card(bytes, (segment, at))?;
    if is_inline {
        (card.spot.body_segment, card.spot.body_at) = (segment, at.checked_add(card.spot.head)?);
    }
    Some((card, head + inline))
}

// === impl Place ===

impl Place {
    /// Which bytes of its segment a piece of it is.
    pub fn piece(&self, number: usize) -> Option<Range<u64>> {
        let start = (number * CHUNK) as u64;
        let end = (start + CHUNK as u64).min(u64::from(self.length));
        (start < end).then_some(u64::from(self.at) + start..u64::from(self.at) + end)
    }

    /// Whether that is what was written.
    pub fn is_piece(&self, number: usize, bytes: &[u8]) -> bool {
        self.sums.get(number) == Some(&crc32c(bytes))
    }
}

// === impl Card ===

impl Card {
    pub fn url(&self) -> &[u8] {
        self.key.get(self.url_at as usize..).unwrap_or_default()
    }

    /// About how many bytes it takes in a footer, not fewer.
    pub fn listed(&self) -> u64 {
        let vary = self.vary.iter().map(|(name, value)| 9 + name.len() + value.as_ref().map_or(0, Vec::len));
        let words = 8 + self.api.len() + self.tags.iter().map(|tag| 4 + tag.len()).sum::<usize>();
        (16 + 4 + self.key.len() + 4 + 1 + 4 + 12 + words + vary.sum::<usize>()) as u64
    }

    pub(crate) fn write(&self, out: &mut Out) {
        let Card { sequence: _, spot, key, url_at, open, vary, api, tags } = self;
        out.text(key);
        out.short(*url_at);
        out.byte(u8::from(*open));
        out.count(vary.len());
        for (name, value) in vary {
            out.text(name.as_bytes());
            out.byte(u8::from(value.is_some()));
            out.text(value.as_deref().unwrap_or_default());
        }
        out.text(api.as_bytes());
        out.count(tags.len());
        tags.iter().for_each(|tag| out.text(tag.as_bytes()));
        out.short(spot.body_segment);
        out.short(spot.body_at);
        out.short(spot.body);
    }

    pub(crate) fn read(input: &mut In<'_>, sequence: u64, segment: u32, at: u32) -> Option<Card> {
        let key = input.text()?.to_vec();
        let url_at = input.short()?;
        let open = input.byte()? == 1;
        let vary = input.list(|input| {
            let name = input.string()?;
            let some = input.byte()? == 1;
            let value = input.text()?.to_vec();
            Some((name, some.then_some(value)))
        })?;
        let (api, tags) = (input.string()?, input.list(In::string)?);
        let (body_segment, body_at, body) = (input.short()?, input.short()?, input.short()?);
        (url_at as usize <= key.len()).then_some(())?;
        let spot = Spot { segment, at, head: 0, body_segment, body_at, body };
        Some(Card { sequence, spot, key, url_at, open, vary, api, tags })
    }
}

// === The rest of an entry ===

fn write_rest(entry: &Entry, now: Time, at: SystemTime, out: &mut Out) {
    let Plan {
        everyones,
        open: _,
        lifetime,
        age: _,
        no_cache,
        strict,
        stale_while_revalidate,
        stale_if_error,
        stale_if_unreachable,
        withheld,
        vary: _,
        tags: _,
    } = &entry.plan;
    out.short(u32::from(entry.status.as_u16()));
    out.byte(u8::from(*everyones) | u8::from(*no_cache) << 1 | u8::from(*strict) << 2);
    let age = entry.age(now);
    for span in [lifetime, &age, stale_while_revalidate, stale_if_error, stale_if_unreachable] {
        out.long(nanos(*span));
    }
    for time in [at, entry.wall] {
        out.long(nanos(time.duration_since(UNIX_EPOCH).unwrap_or_default()));
    }
    out.count(withheld.len());
    withheld.iter().for_each(|word| out.text(word.as_bytes()));
    out.count(entry.headers.len());
    for (name, value) in entry.headers.iter() {
        out.text(name.as_bytes());
        out.text(value);
    }
}

/// And at what time of the wall its age was so.
fn read_rest(input: &mut In<'_>, card: &Card, now: Time) -> Option<(Entry, SystemTime)> {
    let status = StatusCode::from_u16(u16::try_from(input.short()?).ok()?).ok()?;
    let flags = input.byte()?;
    let mut spans = [Duration::ZERO; 7];
    for span in &mut spans {
        *span = match input.long()? {
            u64::MAX => Duration::MAX,
            nanos => Duration::from_nanos(nanos),
        };
    }
    let [lifetime, age, stale_while_revalidate, stale_if_error, stale_if_unreachable, at, wall] = spans;
    let withheld = input.list(In::string)?;
    let fields = input.list(|input| Some((input.string()?, input.text()?)))?;
    let mut headers = Headers::new();
    for (name, value) in &fields {
        (Headers::is_name(name) && Headers::is_value(value)).then(|| headers.append(name, value))?;
    }
    let plan = Plan {
        everyones: flags & 1 != 0,
        open: card.open,
        lifetime,
        age,
        no_cache: flags & 2 != 0,
        strict: flags & 4 != 0,
        stale_while_revalidate,
        stale_if_error,
        stale_if_unreachable,
        withheld,
        vary: card.vary.clone(),
        tags: card.tags.clone(),
    };
    let entry = Entry::read(
        card.key.clone().into(),
        card.url_at as usize,
        card.api.as_str().into(),
        (status, headers),
        plan,
        (now, UNIX_EPOCH.checked_add(wall)?),
    );
    Some((entry, UNIX_EPOCH.checked_add(at)?))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

impl Record {
    /// Whether that is the body that was written.
    pub fn is_whole(&self, body: &[u8]) -> bool {
        body.len() == self.place.length as usize
            && body.chunks(CHUNK).enumerate().all(|(number, piece)| self.place.is_piece(number, piece))
    }

    /// Whole, in memory.
    pub fn with_body(mut self, body: Bytes) -> Entry {
        self.entry.body = body;
        self.entry
    }

    /// Its body stays on the disk.
    pub fn without_body(mut self) -> Entry {
        self.entry.apart = Some(Box::new(self.place));
        self.entry
    }
}
