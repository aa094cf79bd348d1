//! Numbers and texts as bytes: little endian, lengths first.

#[derive(Default)]
pub(crate) struct Out(pub(crate) Vec<u8>);

/// Reads what [`Out`] wrote; `None` where there is not enough.
pub(crate) struct In<'a>(pub(crate) &'a [u8]);

impl Out {
    pub(crate) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn short(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn long(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn text(&mut self, value: &[u8]) {
        self.count(value.len());
        self.0.extend_from_slice(value);
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.short(u32::try_from(count).unwrap_or(u32::MAX));
    }
}

impl<'a> In<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub(crate) fn short(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn long(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(crate) fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.short()?;
        self.take(length as usize)
    }

    pub(crate) fn string(&mut self) -> Option<String> {
        Some(std::str::from_utf8(self.text()?).ok()?.to_owned())
    }

    /// As many as are said to come, if they can be: each takes at least a byte.
    pub(crate) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.short()? as usize;
        if count > self.0.len() {
            return None;
        }
        (0..count).map(|_| item(self)).collect()
    }
}
