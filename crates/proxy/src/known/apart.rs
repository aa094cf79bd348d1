//! Bodies that stay on the disk: read and checked piece by piece, as the client takes them.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base::RequestHead;
use bytes::Bytes;
use cache::disk::CHUNK;
use cache::{Answer, Entry, Store};
use disk::Opened;
use transport::{Body, BodyError, Frame, Source};

use crate::attempt::Way;

/// A body that can be read, whatever becomes of its segment meanwhile.
pub struct Held {
    opened: Arc<Opened>,
    entry: Arc<Entry>,
    store: Arc<Store>,
    /// A piece that has been read already.
    piece: Option<(usize, Bytes)>,
}

/// The segment with the body gave way to another.
#[derive(Debug)]
pub struct Gone;

struct FromDisk {
    opened: Arc<Opened>,
    entry: Arc<Entry>,
    store: Arc<Store>,
    piece: Option<(usize, Bytes)>,
    /// What is still to be sent.
    left: Range<usize>,
    asked: Option<Pin<Box<dyn Future<Output = Option<Bytes>>>>>,
}

// === impl Held ===

impl Held {
    /// Nothing for an entry whose body is in memory.
    pub fn of(entry: &Arc<Entry>, way: &Way<'_>) -> Result<Option<Held>, Gone> {
        let Some(place) = &entry.apart else { return Ok(None) };
        let store = way.worker.store.clone();
        let Some(opened) = way.worker.disk.open(place) else {
            store.let_go(entry);
            return Err(Gone);
        };
        Ok(Some(Held { opened: Arc::new(opened), entry: entry.clone(), store, piece: None }))
    }

    /// Reads the first piece that will be sent.
    pub async fn begin(&mut self, entry: &Entry, request: &RequestHead) -> Result<(), Gone> {
        let number = match cache::answer(entry, request) {
            Answer::Whole => 0,
            Answer::Part(range) => range.start / CHUNK,
            Answer::NotModified | Answer::Unsatisfiable => return Ok(()),
        };
        match self.opened.piece(number).await {
            Some(piece) => {
                self.piece = Some((number, piece));
                Ok(())
            }
            None => {
                self.store.lose(&self.entry);
                Err(Gone)
            }
        }
    }

    pub fn body(&self, range: Range<usize>) -> Body {
        let Held { opened, entry, store, piece } = self;
        let (opened, entry, store) = (opened.clone(), entry.clone(), store.clone());
        Body::source(FromDisk { opened, entry, store, piece: piece.clone(), left: range, asked: None })
    }
}

// === impl FromDisk ===

impl FromDisk {
    fn poll_piece(&mut self, number: usize, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some((_, piece)) = self.piece.take_if(|(at, _)| *at == number) {
            return Poll::Ready(Some(piece));
        }
        let opened = &self.opened;
        let asked = self.asked.get_or_insert_with(|| Box::pin(opened.piece(number)));
        let piece = std::task::ready!(asked.as_mut().poll(cx));
        self.asked = None;
        Poll::Ready(piece)
    }
}

impl Source for FromDisk {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let number = self.left.start / CHUNK;
        let Some(piece) = std::task::ready!(self.poll_piece(number, cx)) else {
            // Never what was not written so: the client sees that it is not whole.
            self.store.lose(&self.entry);
            return Poll::Ready(Some(Err(BodyError::Incomplete)));
        };
        let from = self.left.start - number * CHUNK;
        let until = piece.len().min(from + self.left.len());
        self.left.start += until - from;
        Poll::Ready(Some(Ok(Frame::Data(piece.slice(from..until)))))
    }

    fn length(&self) -> Option<u64> {
        Some(self.left.len() as u64)
    }
}
