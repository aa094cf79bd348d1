//! One file of answers: a head, records, and once nothing more comes a footer, which lists what is in it: so a process
//! that starts reads that, and no bodies.

use base::crc32c;

use super::codec::{In, Out};
use super::record::Card;

/// `WEIRCSH2`, its number, a checksum of both.
pub const HEAD: usize = 16;
/// At the end of a footer: its length, a checksum, a word that nothing else ends with.
pub const TRAILER: usize = 12;
const MAGIC: &[u8; 8] = b"WEIRCSH2";
const END: u32 = 0x3143_4557;

pub fn write_head(number: u32) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&number.to_le_bytes());
    let sum = crc32c(&head[..12]);
    head[12..].copy_from_slice(&sum.to_le_bytes());
    head
}

/// The number of the segment that begins so. Of another version it has none.
pub fn read_head(head: &[u8; HEAD]) -> Option<u32> {
    let number = u32::from_le_bytes(head[8..12].try_into().ok()?);
    (*head == write_head(number)).then_some(number)
}

/// What is in a segment, for its end.
pub fn footer(cards: &[Card]) -> Vec<u8> {
    let mut out = Out::default();
    out.count(cards.len());
    for card in cards {
        out.long(card.sequence);
        out.short(card.spot.at);
        out.short(card.spot.head);
        card.write(&mut out);
    }
    let (length, sum) = (out.0.len(), crc32c(&out.0));
    out.count(length);
    out.short(sum);
    out.short(END);
    out.0
}

/// How long the footer is that ends so, without its trailer.
pub fn footer_length(trailer: &[u8; TRAILER]) -> Option<usize> {
    let mut input = In(trailer);
    let (length, _, end) = (input.short()?, input.short()?, input.short()?);
    (end == END).then_some(length as usize)
}

/// What a footer lists, if it is whole; with its trailer.
pub fn read_footer(bytes: &[u8], segment: u32) -> Option<Vec<Card>> {
    let (table, trailer) = bytes.split_at_checked(bytes.len().checked_sub(TRAILER)?)?;
    let mut trailer = In(trailer);
    let (length, sum) = (trailer.short()?, trailer.short()?);
    if length as usize != table.len() || sum != crc32c(table) {
        return None;
    }
    In(table).list(|input| {
        let (sequence, at, head) = (input.long()?, input.short()?, input.short()?);
        let mut card = Card::read(input, sequence, segment, at)?;
        card.spot.head = head;
        Some(card)
    })
}
