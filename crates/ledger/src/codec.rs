//! Entries as bytes: frames that tell a whole one from a torn one.
//!
//! ```text
//! frame    57 e1 | length u32 | CRC-32C u32 of length and payload | payload
//! payload  kind u8 | version u8 | sequence varint | fields
//! ```
//!
//! Little endian. Numbers are varints, texts are their length and their bytes, what may be absent has a byte in front.
//! A later version may add fields at the end, which this one skips; nothing else may change without another kind.

use std::sync::Arc;

use base::{TokenUsage, crc32c};

use crate::{Class, Entry, Moment, Money, Outcome, ServiceTier};

/// One record of a journal.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Entry(Entry),
    /// Written before a call: the entry that is booked if nothing more is heard of its [`hold`](Entry::hold).
    Opened(Entry),
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
/// Longer is no frame of an entry, whatever its texts are.
pub const LONGEST_FRAME: usize = 10 << 10;
const VERSION: u8 = 1;
// 1 and 2 were entries and reservations of another layout.
const ENTRY: u8 = 3;
const OPENED: u8 = 4;

impl Record {
    /// Appends the frame.
    pub fn encode(&self, sequence: u64, out: &mut Vec<u8>) {
        match self {
            Record::Entry(entry) => entry.encode(sequence, out),
            Record::Opened(entry) => entry.encode_opened(sequence, out),
        }
    }
}

impl Entry {
    /// Appends its frame.
    pub fn encode(&self, sequence: u64, out: &mut Vec<u8>) {
        frame(ENTRY, sequence, self, out);
    }

    /// Appends the frame of what is booked if nothing more is heard of its hold.
    pub fn encode_opened(&self, sequence: u64, out: &mut Vec<u8>) {
        frame(OPENED, sequence, self, out);
    }
}

fn frame(kind: u8, sequence: u64, entry: &Entry, out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&[0; HEAD - 2]);
    out.extend_from_slice(&[kind, VERSION]);
    sequence.put(out);
    entry.put(out);
    let length = u32::try_from(out.len() - begin - HEAD).unwrap_or(u32::MAX).to_le_bytes();
    out[begin + 2..begin + 6].copy_from_slice(&length);
    let sum = checksum(length, &out[begin + HEAD..]).to_le_bytes();
    out[begin + 6..begin + HEAD].copy_from_slice(&sum);
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
        let sequence = u64::take(&mut input)?;
        let record = match (kind, version) {
            (ENTRY, VERSION..) => Record::Entry(Entry::take(&mut input)?),
            (OPENED, VERSION..) => Record::Opened(Entry::take(&mut input)?),
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

// === Fields ===

/// A part of a record.
trait Field: Sized {
    fn put(&self, out: &mut Vec<u8>);
    /// `None` if the bytes are none that `put` writes.
    fn take(input: &mut Input<'_>) -> Option<Self>;
}

struct Input<'a>(&'a [u8]);

/// The fields of a struct, in the order in which they are written.
macro_rules! fields {
    ($type:ident { $($field:ident),* $(,)? }) => {
        impl Field for $type {
            fn put(&self, out: &mut Vec<u8>) {
                let $type { $($field),* } = self;
                $($field.put(out);)*
            }

            fn take(input: &mut Input<'_>) -> Option<$type> {
                Some($type { $($field: Field::take(input)?),* })
            }
        }
    };
}

fields!(Entry {
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
});

fields!(TokenUsage {
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
});

/// Enums are their place among all.
macro_rules! one_of {
    ($($type:ident),*) => {$(
        impl Field for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.push(*self as u8);
            }

            fn take(input: &mut Input<'_>) -> Option<$type> {
                $type::ALL.get(usize::from(input.byte()?)).copied()
            }
        }
    )*};
}

one_of!(Class, Outcome, ServiceTier);

impl Field for Moment {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn take(input: &mut Input<'_>) -> Option<Moment> {
        u64::take(input).map(Moment)
    }
}

impl Field for Money {
    fn put(&self, out: &mut Vec<u8>) {
        let units = self.units();
        // Zigzag, so that small ones are short whatever their sign.
        (((units << 1) ^ (units >> 127)) as u128).put(out);
    }

    fn take(input: &mut Input<'_>) -> Option<Money> {
        let number = u128::take(input)?;
        Some(Money::from_units((number >> 1) as i128 ^ -((number & 1) as i128)))
    }
}

impl Field for Arc<str> {
    fn put(&self, out: &mut Vec<u8>) {
        // Longer than any name should be, and short enough for a frame to hold all of them.
        let text = self.get(..self.floor_char_boundary(LONGEST_TEXT)).unwrap_or_default();
        (text.len() as u64).put(out);
        out.extend_from_slice(text.as_bytes());
    }

    fn take(input: &mut Input<'_>) -> Option<Arc<str>> {
        let length = usize::try_from(u64::take(input)?).ok()?;
        std::str::from_utf8(input.bytes(length)?).ok().map(Into::into)
    }
}

const LONGEST_TEXT: usize = 1024;

impl<T: Field> Field for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(it) = self {
            it.put(out);
        }
    }

    fn take(input: &mut Input<'_>) -> Option<Option<T>> {
        if bool::take(input)? { T::take(input).map(Some) } else { Some(None) }
    }
}

impl Field for [u8; 16] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn take(input: &mut Input<'_>) -> Option<[u8; 16]> {
        input.bytes(16)?.try_into().ok()
    }
}

impl Field for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn take(input: &mut Input<'_>) -> Option<bool> {
        input.byte().map(|byte| byte != 0)
    }
}

impl Field for u32 {
    fn put(&self, out: &mut Vec<u8>) {
        u64::from(*self).put(out);
    }

    fn take(input: &mut Input<'_>) -> Option<u32> {
        u32::try_from(u64::take(input)?).ok()
    }
}

impl Field for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        u128::from(*self).put(out);
    }

    fn take(input: &mut Input<'_>) -> Option<u64> {
        u64::try_from(u128::take(input)?).ok()
    }
}

impl Field for u128 {
    fn put(&self, out: &mut Vec<u8>) {
        let mut number = *self;
        while number >= 0x80 {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }

    fn take(input: &mut Input<'_>) -> Option<u128> {
        let mut number = 0u128;
        for shift in (0..128).step_by(7) {
            let byte = input.byte()?;
            number |= u128::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

// === impl Input ===

impl Input<'_> {
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
        let kinds = (
            0..Class::ALL.len(),
            0..Outcome::ALL.len(),
            0..ServiceTier::ALL.len(),
            any::<bool>(),
            proptest::option::of(any::<[u8; 16]>()),
        );
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
        prop_oneof![entry().prop_map(Record::Entry), entry().prop_map(Record::Opened)]
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
    fn no_entry_is_longer_than_the_longest() {
        let long: Arc<str> = "é".repeat(2000).into();
        let most = TokenUsage {
            input: u64::MAX,
            cached_read: u64::MAX,
            cached_write_5m: u64::MAX,
            cached_write_1h: u64::MAX,
            input_audio: u64::MAX,
            input_image: u64::MAX,
            output: u64::MAX,
            reasoning: u64::MAX,
            output_audio: u64::MAX,
            output_image: u64::MAX,
            searches: u32::MAX,
        };
        let entry = Entry {
            time: Moment(u64::MAX),
            api: long.clone(),
            route: long.clone(),
            consumer: Some(long.clone()),
            credential: Some(long.clone()),
            team: Some(long.clone()),
            task: Some([255; 16]),
            provider: long.clone(),
            model_asked: long.clone(),
            model_served: long.clone(),
            class: Class::Guard,
            outcome: Outcome::Crashed,
            usage: most,
            tier: ServiceTier::Standard,
            price: long,
            cost: Money::from_units(i128::MIN),
            saved: Money::from_units(i128::MAX),
            estimated: true,
            first_token: u64::MAX,
            total: u64::MAX,
            hold: u64::MAX,
        };
        let mut bytes = Vec::new();
        entry.encode(u64::MAX, &mut bytes);
        assert!(bytes.len() <= LONGEST_FRAME, "{}", bytes.len());
        assert!(matches!(decode(&bytes), Frame::Whole { .. }));
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
