//! What is kept by names that come again and again, each mostly as the very text that came before.

use std::sync::Arc;

use foldhash::HashMap;

/// Rows by their names.
///
/// Names are those of a snapshot, so a call brings the one that the call before brought. It is known by where it lies, and
/// not read; what was seen lately is held here, so that nothing else can come to lie there.
pub(super) struct Named<V> {
    rows: Vec<V>,
    places: HashMap<Arc<str>, usize>,
    lately: [Option<(Arc<str>, usize)>; LATELY],
}

const LATELY: usize = 16;

impl<V> Named<V> {
    /// The row of that name, which is made if there is none.
    pub(super) fn row(&mut self, name: &Arc<str>, make: impl FnOnce() -> V) -> &mut V {
        // Texts lie at multiples of some bytes.
        let lately = &mut self.lately[Arc::as_ptr(name).cast::<u8>().addr() / 16 % LATELY];
        let at = match lately {
            Some((known, at)) if Arc::ptr_eq(known, name) => *at,
            _ => {
                let at = self.places.get(name).copied().unwrap_or_else(|| {
                    self.rows.push(make());
                    self.places.insert(name.clone(), self.rows.len() - 1);
                    self.rows.len() - 1
                });
                *lately = Some((name.clone(), at));
                at
            }
        };
        &mut self.rows[at]
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn clear(&mut self) {
        *self = Named::default();
    }
}

impl<V> Default for Named<V> {
    fn default() -> Named<V> {
        Named { rows: Vec::new(), places: HashMap::default(), lately: Default::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_row_wherever_its_text_lies() {
        let mut named = Named::<u32>::default();
        for _ in 0..3 {
            for name in 0..40 {
                // Each time another text; the one before is freed, and this may lie where it lay.
                *named.row(&Arc::from(name.to_string()), || 100 * name) += 1;
            }
            let kept: Arc<str> = Arc::from("7");
            *named.row(&kept, || 0) += 1;
            *named.row(&kept, || 0) += 1;
        }
        assert_eq!(named.len(), 40);
        let row = |named: &mut Named<u32>, name: &str| *named.row(&Arc::from(name), || 0);
        assert_eq!([row(&mut named, "0"), row(&mut named, "7"), row(&mut named, "39")], [3, 709, 3903]);
        named.clear();
        assert_eq!((row(&mut named, "7"), named.len()), (0, 1));
    }
}
