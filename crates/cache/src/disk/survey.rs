//! What is in a segment, whatever a process that ended left of it, and whatever has become of it since: by its list, or
//! where that is missing or damaged, by the heads of its records. No body is read.

use super::record::{Card, FRAME, glance, lengths};
use super::segment::{HEAD, TRAILER, footer_length, read_footer, read_head};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// All heads lie within the segment, and so do the bodies that are said to be in it.
    pub cards: Vec<Card>,
    /// Where the last whole record ends, if there was no list. What is behind is nothing.
    pub end: Option<u64>,
}

/// A head longer than this is none.
const HEAD_MOST: usize = 16 << 20;

/// Looks at a segment of so many bytes by a function that fills a buffer from a place within it. `None` if that is no
/// segment of this number and version. What is asked for at once is no more than there is.
pub fn survey<E>(
    number: u32,
    length: u64,
    mut read: impl FnMut(&mut [u8], u64) -> Result<(), E>,
) -> Result<Option<Survey>, E> {
    let mut head = [0; HEAD];
    if length < HEAD as u64 {
        return Ok(None);
    }
    read(&mut head, 0)?;
    if read_head(&head) != Some(number) {
        return Ok(None);
    }
    if let Some(cards) = listed(number, length, &mut read)? {
        return Ok(Some(Survey { cards, end: None }));
    }
    let (cards, end) = scanned(number, length, &mut read)?;
    Ok(Some(Survey { cards, end: Some(end) }))
}

fn listed<E>(
    number: u32,
    length: u64,
    read: &mut impl FnMut(&mut [u8], u64) -> Result<(), E>,
) -> Result<Option<Vec<Card>>, E> {
    let Some(at) = length.checked_sub(TRAILER as u64) else { return Ok(None) };
    let mut trailer = [0; TRAILER];
    read(&mut trailer, at)?;
    let Some(table) = footer_length(&trailer) else { return Ok(None) };
    let Some(start) = at.checked_sub(table as u64).filter(|start| *start >= HEAD as u64) else { return Ok(None) };
    let mut bytes = vec![0; table + TRAILER];
    read(&mut bytes, start)?;
    let cards = read_footer(&bytes, number);
    Ok(cards.filter(|cards| cards.iter().all(|card| is_within(card, start))))
}

/// The records from the beginning on, and where the last whole one ends.
fn scanned<E>(
    number: u32,
    length: u64,
    read: &mut impl FnMut(&mut [u8], u64) -> Result<(), E>,
) -> Result<(Vec<Card>, u64), E> {
    let (mut cards, mut at) = (Vec::new(), HEAD as u64);
    while at + FRAME as u64 <= length {
        let mut frame = [0; FRAME];
        read(&mut frame, at)?;
        let Some((head, _)) = lengths(&frame).filter(|(head, _)| *head <= HEAD_MOST) else { break };
        let Ok(place) = u32::try_from(at) else { break };
        if at + head as u64 > length {
            break;
        }
        let mut bytes = vec![0; head];
        read(&mut bytes, at)?;
        let Some((card, record)) = glance(&bytes, (number, place)) else { break };
        if at + record as u64 > length || !is_within(&card, length) {
            break;
        }
        cards.push(card);
        at += record as u64;
    }
    Ok((cards, at))
}

/// Whether what a card tells of a segment, whose records end there, may be so. What is in another is not known here.
fn is_within(card: &Card, end: u64) -> bool {
    let spot = card.spot;
    let within = |at: u32, length: u32| at as usize >= HEAD && u64::from(at) + u64::from(length) <= end;
    let head = spot.head as usize > FRAME && spot.head as usize <= HEAD_MOST && within(spot.at, spot.head);
    head && (spot.body_segment != spot.segment || within(spot.body_at, spot.body))
}
