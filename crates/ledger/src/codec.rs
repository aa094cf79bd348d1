//! Entries as bytes: frames that tell a whole one from a torn one.
//!
//! ```text
//! frame    57 e1 | length u32 | CRC-32C u32 of length and payload | payload
//! payload  kind u8 | version u8 | sequence varint | fields
//! ```
//!
//! Little endian. Numbers are varints, texts are their length and their bytes, what may be absent has a bit in front.
//! A later version may add fields at the end, which this one skips; nothing else may change without another kind.

use std::sync::Arc;

use base::TokenUsage;

use crate::crc::crc32c;
use crate::{Class, Entry, Moment, Money, Opened, Outcome, ServiceTier};

/// One record of a journal.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Entry(Entry),
    Opened(Opened),
}

/// What stands at the beginning of some bytes.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "taken apart where it is made, never kept")]
pub enum Frame {
    /// A whole record with its sequence, and how many bytes it takes.
    Whole { sequence: u64, record: Record, length: usize },
    /// A whole frame of a kind that a later version wrote, to be passed over.
    Unknown { sequence: u64, length: usize },
    /// The bytes end before the frame does.
    Torn,
    /// Whatever this is, it was not written so.
    Damaged,
}

pub const MARK: [u8; 2] = [0x57, 0xe1];
/// Of mark, length and checksum.
pub const HEAD: usize = 10;
/// Longer is no payload of ours.
const LONGEST: usize = 1 << 20;
const VERSION: u8 = 1;
const ENTRY: u8 = 1;
const OPENED: u8 = 2;

impl Record {
    /// Appends the frame.
    pub fn encode(&self, sequence: u64, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&MARK);
        out.extend_from_slice(&[0; HEAD - 2]);
        match self {
            Record::Entry(entry) => {
                out.extend_from_slice(&[ENTRY, VERSION]);
                number(out, sequence);
                put_entry(out, entry);
            }
            Record::Opened(opened) => {
                out.extend_from_slice(&[OPENED, VERSION]);
                number(out, sequence);
                put_opened(out, opened);
            }
        }
        let length = u32::try_from(out.len() - begin - HEAD).unwrap_or(u32::MAX).to_le_bytes();
        out[begin + 2..begin + 6].copy_from_slice(&length);
        let sum = checksum(length, &out[begin + HEAD..]).to_le_bytes();
        out[begin + 6..begin + HEAD].copy_from_slice(&sum);
    }
}

/// The frame that `bytes` begin with.
pub fn decode(bytes: &[u8]) -> Frame {
    if bytes.len() < HEAD {
        // A torn head is at least the beginning of one.
        let mark = &MARK[..bytes.len().min(2)];
        return if bytes.starts_with(mark) { Frame::Torn } else { Frame::Damaged };
    }
    if bytes[..2] != MARK {
        return Frame::Damaged;
    }
    let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    let length = u32::from_le_bytes(word(2)) as usize;
    if length > LONGEST {
        return Frame::Damaged;
    }
    let Some(payload) = bytes.get(HEAD..HEAD + length) else { return Frame::Torn };
    if checksum(word(2), payload) != u32::from_le_bytes(word(6)) {
        return Frame::Damaged;
    }
    let length = HEAD + length;
    let mut input = Input(payload);
    let read = || -> Option<Frame> {
        let [kind, version] = [input.byte()?, input.byte()?];
        let sequence = input.number()?;
        let record = match (kind, version) {
            (ENTRY, VERSION..) => Record::Entry(input.entry()?),
            (OPENED, VERSION..) => Record::Opened(input.opened()?),
            _ => return Some(Frame::Unknown { sequence, length }),
        };
        Some(Frame::Whole { sequence, record, length })
    };
    let mut read = read;
    read().unwrap_or(Frame::Damaged)
}

/// Where in damaged bytes the next frame begins that is whole.
pub fn resume(bytes: &[u8]) -> Option<usize> {
    let marks = bytes.windows(2).enumerate().filter(|(_, window)| *window == MARK).map(|(at, _)| at);
    let mut whole = marks.filter(|at| matches!(decode(&bytes[*at..]), Frame::Whole { .. } | Frame::Unknown { .. }));
    whole.next()
}

/// Of the length, too: one that is wrong must not pass for a torn frame's.
fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    crc32c(payload) ^ crc32c(&length).rotate_left(7)
}

// === Out ===

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    let Entry {
        time,
        api,
        route,
        consumer,
        credential,
        team,
        task,
        provider,
        model_asked,
        model_served,
        class,
        outcome,
        usage,
        tier,
        price,
        cost,
        saved,
        estimated,
        first_token,
        total,
        hold,
    } = entry;
    number(out, time.0);
    text(out, api);
    text(out, route);
    names(out, [consumer, credential, team], task);
    text(out, provider);
    text(out, model_asked);
    // Most of the time it is what was asked.
    text(out, if model_served == model_asked { "" } else { model_served });
    out.push(*class as u8);
    out.push(*outcome as u8);
    put_usage(out, usage);
    out.push(*tier as u8);
    text(out, price);
    money(out, *cost);
    money(out, *saved);
    out.push(u8::from(*estimated));
    number(out, *first_token);
    number(out, *total);
    number(out, *hold);
}

fn put_opened(out: &mut Vec<u8>, opened: &Opened) {
    let Opened {
        hold,
        time,
        api,
        route,
        consumer,
        credential,
        team,
        task,
        provider,
        model,
        price,
        worst,
        input_tokens,
        output_tokens,
    } = opened;
    number(out, *hold);
    number(out, time.0);
    text(out, api);
    text(out, route);
    names(out, [consumer, credential, team], task);
    text(out, provider);
    text(out, model);
    text(out, price);
    money(out, *worst);
    number(out, *input_tokens);
    number(out, *output_tokens);
}

fn put_usage(out: &mut Vec<u8>, usage: &TokenUsage) {
    let TokenUsage {
        input,
        cached_read,
        cached_write_5m,
        cached_write_1h,
        input_audio,
        input_image,
        output,
        reasoning,
        output_audio,
        output_image,
        searches,
    } = *usage;
    let tokens = [
        input,
        cached_read,
        cached_write_5m,
        cached_write_1h,
        input_audio,
        input_image,
        output,
        reasoning,
        output_audio,
    ];
    for count in tokens.into_iter().chain([output_image, searches.into()]) {
        number(out, count);
    }
}

fn names(out: &mut Vec<u8>, names: [&Option<Arc<str>>; 3], task: &Option<[u8; 16]>) {
    let bits = names.iter().enumerate().map(|(bit, name)| u8::from(name.is_some()) << bit).sum::<u8>();
    out.push(bits | u8::from(task.is_some()) << 3);
    for name in names.into_iter().flatten() {
        text(out, name);
    }
    out.extend_from_slice(task.as_ref().map_or(&[], |id| &id[..]));
}

fn text(out: &mut Vec<u8>, text: &str) {
    // Longer than any name should be, and short enough for a frame to hold all of them.
    let text = text.get(..text.floor_char_boundary(LONGEST_TEXT)).unwrap_or_default();
    number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

const LONGEST_TEXT: usize = 1024;

fn money(out: &mut Vec<u8>, money: Money) {
    let units = money.units();
    // Zigzag, so that small ones are short whatever their sign.
    big_number(out, ((units << 1) ^ (units >> 127)) as u128);
}

fn number(out: &mut Vec<u8>, number: u64) {
    big_number(out, number.into());
}

fn big_number(out: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

// === In ===

/// Consumer, credential and team; and the task.
type Names = ([Option<Arc<str>>; 3], Option<[u8; 16]>);

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn entry(&mut self) -> Option<Entry> {
        let (time, api, route) = (Moment(self.number()?), self.text()?, self.text()?);
        let ([consumer, credential, team], task) = self.names()?;
        let (provider, model_asked, served) = (self.text()?, self.text()?, self.text()?);
        let model_served = if served.is_empty() { model_asked.clone() } else { served };
        Some(Entry {
            time,
            api,
            route,
            consumer,
            credential,
            team,
            task,
            provider,
            model_asked,
            model_served,
            class: *Class::ALL.get(usize::from(self.byte()?))?,
            outcome: *Outcome::ALL.get(usize::from(self.byte()?))?,
            usage: self.usage()?,
            tier: *ServiceTier::ALL.get(usize::from(self.byte()?))?,
            price: self.text()?,
            cost: self.money()?,
            saved: self.money()?,
            estimated: self.byte()? != 0,
            first_token: self.number()?,
            total: self.number()?,
            hold: self.number()?,
        })
    }

    fn opened(&mut self) -> Option<Opened> {
        let (hold, time, api, route) = (self.number()?, Moment(self.number()?), self.text()?, self.text()?);
        let ([consumer, credential, team], task) = self.names()?;
        Some(Opened {
            hold,
            time,
            api,
            route,
            consumer,
            credential,
            team,
            task,
            provider: self.text()?,
            model: self.text()?,
            price: self.text()?,
            worst: self.money()?,
            input_tokens: self.number()?,
            output_tokens: self.number()?,
        })
    }

    fn usage(&mut self) -> Option<TokenUsage> {
        Some(TokenUsage {
            input: self.number()?,
            cached_read: self.number()?,
            cached_write_5m: self.number()?,
            cached_write_1h: self.number()?,
            input_audio: self.number()?,
            input_image: self.number()?,
            output: self.number()?,
            reasoning: self.number()?,
            output_audio: self.number()?,
            output_image: self.number()?,
            searches: u32::try_from(self.number()?).ok()?,
        })
    }

    fn names(&mut self) -> Option<Names> {
        let bits = self.byte()?;
        let mut names = [None, None, None];
        for (bit, name) in names.iter_mut().enumerate() {
            if bits >> bit & 1 == 1 {
                *name = Some(self.text()?);
            }
        }
        let task = if bits >> 3 & 1 == 1 { Some(self.bytes(16)?.try_into().ok()?) } else { None };
        Some((names, task))
    }

    fn text(&mut self) -> Option<Arc<str>> {
        let length = usize::try_from(self.number()?).ok()?;
        std::str::from_utf8(self.bytes(length)?).ok().map(Into::into)
    }

    fn money(&mut self) -> Option<Money> {
        let number = self.big_number()?;
        Some(Money::from_units((number >> 1) as i128 ^ -((number & 1) as i128)))
    }

    fn number(&mut self) -> Option<u64> {
        u64::try_from(self.big_number()?).ok()
    }

    fn big_number(&mut self) -> Option<u128> {
        let mut number = 0u128;
        for shift in (0..128).step_by(7) {
            let byte = self.byte()?;
            number |= u128::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, count: usize) -> Option<&[u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = Arc<str>> {
        any::<[u8; 3]>().prop_map(|it| Arc::from(format!("név-{it:?}")))
    }

    fn usage() -> impl Strategy<Value = TokenUsage> {
        (any::<[u64; 10]>(), any::<u32>()).prop_map(|(it, searches)| TokenUsage {
            input: it[0],
            cached_read: it[1],
            cached_write_5m: it[2],
            cached_write_1h: it[3],
            input_audio: it[4],
            input_image: it[5],
            output: it[6],
            reasoning: it[7],
            output_audio: it[8],
            output_image: it[9],
            searches,
        })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let names = (name(), name(), proptest::option::of(name()), proptest::option::of(name()), name(), name());
        let kinds = (0usize..7, 0usize..5, 0usize..4, any::<bool>(), proptest::option::of(any::<[u8; 16]>()));
        (names, kinds, usage(), any::<[i128; 2]>(), any::<[u64; 4]>()).prop_map(
            |(names, kinds, usage, money, numbers)| {
                let (api, route, consumer, team, provider, model) = names;
                let (class, outcome, tier, estimated, task) = kinds;
                Entry {
                    time: Moment(numbers[0]),
                    api,
                    route,
                    consumer,
                    credential: None,
                    team,
                    task,
                    provider,
                    model_served: if estimated { model.clone() } else { "other".into() },
                    model_asked: model,
                    class: Class::ALL[class],
                    outcome: Outcome::ALL[outcome],
                    usage,
                    tier: ServiceTier::ALL[tier],
                    price: "openai/gpt-4o@2026-11-24".into(),
                    cost: Money::from_units(money[0]),
                    saved: Money::from_units(money[1]),
                    estimated,
                    first_token: numbers[1],
                    total: numbers[2],
                    hold: numbers[3],
                }
            },
        )
    }

    fn record() -> impl Strategy<Value = Record> {
        let opened = (entry(), any::<[u64; 3]>()).prop_map(|(entry, [hold, input_tokens, output_tokens])| Opened {
            hold,
            time: entry.time,
            api: entry.api,
            route: entry.route,
            consumer: entry.consumer,
            credential: entry.credential,
            team: entry.team,
            task: entry.task,
            provider: entry.provider,
            model: entry.model_asked,
            price: entry.price,
            worst: entry.cost,
            input_tokens,
            output_tokens,
        });
        prop_oneof![entry().prop_map(Record::Entry), opened.prop_map(Record::Opened)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_record_is_read_as_it_was_written(record in record(), sequence in any::<u64>()) {
            let mut bytes = Vec::new();
            record.encode(sequence, &mut bytes);
            let length = bytes.len();
            bytes.extend_from_slice(b"and more");
            prop_assert_eq!(decode(&bytes), Frame::Whole { sequence, record, length });
        }

        #[test]
        fn cut_at_any_byte_it_is_torn_and_with_any_bit_flipped_it_is_never_another(record in record()) {
            let mut bytes = Vec::new();
            record.encode(7, &mut bytes);
            for end in 0..bytes.len() {
                prop_assert_eq!(decode(&bytes[..end]), Frame::Torn, "cut at {}", end);
            }
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                // A length that grew asks for bytes that are not there.
                prop_assert!(matches!(decode(&bytes), Frame::Damaged | Frame::Torn), "bit {}", bit);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }

        #[test]
        fn behind_what_is_damaged_the_next_whole_one_is_found(record in record(), junk in any::<Vec<u8>>()) {
            let mut bytes = junk.clone();
            record.encode(7, &mut bytes);
            prop_assert_eq!(resume(&bytes), Some(junk.len()));
            bytes.pop();
            prop_assert_eq!(resume(&bytes), None);
        }

        #[test]
        fn no_bytes_make_it_fall_over(bytes in any::<Vec<u8>>()) {
            let mut framed = MARK.to_vec();
            let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
            framed.extend_from_slice(&length);
            framed.extend_from_slice(&checksum(length, &bytes).to_le_bytes());
            framed.extend_from_slice(&bytes);
            let _ = (decode(&bytes), decode(&framed), resume(&bytes));
        }
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        let mut bytes = Vec::new();
        Record::Entry(Entry::default()).encode(3, &mut bytes);
        let reframed = |payload: &[u8]| {
            let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
            let sum = checksum(length, payload).to_le_bytes();
            [&MARK[..], &length, &sum, payload].concat()
        };
        let mut payload = bytes[HEAD..].to_vec();
        payload[1] = 2;
        payload.extend_from_slice(b"new field");
        assert!(matches!(decode(&reframed(&payload)), Frame::Whole { sequence: 3, record: Record::Entry(_), .. }));
        payload[0] = 99;
        assert!(matches!(decode(&reframed(&payload)), Frame::Unknown { sequence: 3, .. }));
    }
}
