//! What bodies pass through, piece by piece.

use bytes::Bytes;

use crate::Stop;

/// Sees, changes or stops a body. Synchronous: a piece that came in goes on at once or is kept, nothing is waited for.
/// It may go to another thread between two pieces.
pub trait Filter: Send {
    /// Before anything of the body or of the head it belongs to has gone on, so that a stop is still a whole answer.
    /// `length` is that of the body, where it is known.
    fn begin(&mut self, _length: Option<u64>) -> Result<(), Stop> {
        Ok(())
    }

    /// A piece, never empty. What is returned goes on; nothing goes on if it is empty.
    fn piece(&mut self, data: Bytes) -> Result<Bytes, Stop>;

    /// The same for a large one, on a thread that others may wait for: whose effort goes with each piece calls `breathe`
    /// each time it has worked for about 100 µs.
    fn large_piece(&mut self, data: Bytes, _breathe: &mut dyn FnMut()) -> Result<Bytes, Stop> {
        self.piece(data)
    }

    /// What is still to go on after the last piece.
    fn end(&mut self) -> Result<Bytes, Stop> {
        Ok(Bytes::new())
    }

    /// Whether as many bytes go out as come in.
    fn keeps_length(&self) -> bool {
        false
    }

    /// Where it costs so much that a core's other calls would wait for it, once the body has turned out large.
    fn effort(&self) -> Effort {
        Effort::Little
    }
}

/// When a filter costs much: many times what it costs to copy the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    Little,
    /// Behind the last piece; until then it only holds them.
    AtEnd,
    WithEachPiece,
}

/// Filters in a row.
#[derive(Default)]
pub struct Filters(Vec<Box<dyn Filter>>);

impl Filters {
    pub fn new(filters: Vec<Box<dyn Filter>>) -> Filters {
        Filters(filters)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Filter for Filters {
    fn begin(&mut self, mut length: Option<u64>) -> Result<(), Stop> {
        for filter in &mut self.0 {
            filter.begin(length)?;
            length = length.filter(|_| filter.keeps_length());
        }
        Ok(())
    }

    fn piece(&mut self, data: Bytes) -> Result<Bytes, Stop> {
        pass(&mut self.0, data)
    }

    fn large_piece(&mut self, mut data: Bytes, breathe: &mut dyn FnMut()) -> Result<Bytes, Stop> {
        for filter in &mut self.0 {
            if data.is_empty() {
                break;
            }
            data = filter.large_piece(data, breathe)?;
        }
        Ok(data)
    }

    /// What one still had passes through those behind it.
    fn end(&mut self) -> Result<Bytes, Stop> {
        let mut rest = Vec::new();
        for at in 0..self.0.len() {
            let last = self.0[at].end()?;
            let last = pass(&mut self.0[at + 1..], last)?;
            rest.push(last);
        }
        rest.retain(|it| !it.is_empty());
        Ok(match rest.len() {
            0 => Bytes::new(),
            1 => rest.swap_remove(0),
            _ => rest.concat().into(),
        })
    }

    fn keeps_length(&self) -> bool {
        self.0.iter().all(|filter| filter.keeps_length())
    }

    fn effort(&self) -> Effort {
        self.0.iter().map(|filter| filter.effort()).max().unwrap_or(Effort::Little)
    }
}

fn pass(filters: &mut [Box<dyn Filter>], mut data: Bytes) -> Result<Bytes, Stop> {
    for filter in filters {
        if data.is_empty() {
            break;
        }
        data = filter.piece(data)?;
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds back all but what came before.
    struct Late(Bytes, &'static [u8]);

    impl Filter for Late {
        fn piece(&mut self, data: Bytes) -> Result<Bytes, Stop> {
            let mut data = data.to_vec();
            data.extend_from_slice(self.1);
            Ok(std::mem::replace(&mut self.0, data.into()))
        }

        fn end(&mut self) -> Result<Bytes, Stop> {
            Ok(std::mem::take(&mut self.0))
        }
    }

    #[test]
    fn what_is_kept_comes_out_at_the_end_through_those_behind() {
        let mut filters = Filters::new(vec![Box::new(Late(Bytes::new(), b"a")), Box::new(Late(Bytes::new(), b"b"))]);
        assert!(!filters.keeps_length());
        let pieces = ["1", "2", "3"].map(|piece| filters.piece(piece.into()).unwrap());
        assert_eq!(pieces, ["", "", "1ab"]);
        assert_eq!(filters.end().unwrap(), "2ab3ab");
    }
}
