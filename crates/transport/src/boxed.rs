//! Futures made where they will lie.

use std::pin::Pin;

/// A future in a box, written there as it is made. With `Box::pin` it is made on the stack and moved: of the future of
/// a whole call that is some kilobytes, of which only what it was called with means anything yet.
#[inline(always)]
pub(crate) fn boxed<F>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::into_pin(Box::write(Box::new_uninit(), make()))
}
