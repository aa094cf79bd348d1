//! What is near to something: a flat index over vectors of small whole numbers.
//!
//! Every vector of a partition is compared, so that the nearest is found and not one of the nearest; with a byte for each
//! dimension, and in loops that compilers make wide, that is cheaper than it sounds (`cargo bench -p cache`). Partitions
//! never see each other. The oldest goes where there is no more room.
//!
//! Whoever searches takes the lock for as long as it takes to copy a list of pointers, then reads what nobody changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Vectors of other partitions are as if they were not there.
pub type Partition = [u8; 16];

/// A direction, as one byte for each dimension. Its length is forgotten.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector {
    numbers: Box<[i8]>,
    /// What a number is to be multiplied with, so that the whole has the length 1.
    scale: f32,
}

/// The vectors that are kept, each with something that it stands for.
#[derive(Debug)]
pub struct Near<T> {
    most: usize,
    ring: Mutex<Ring<T>>,
}

#[derive(Debug)]
struct Ring<T> {
    dimensions: usize,
    chunks: Vec<Arc<Chunk<T>>>,
    /// Where the next goes.
    next: usize,
}

#[derive(Clone, Debug)]
struct Chunk<T> {
    partitions: Vec<Partition>,
    scales: Vec<f32>,
    /// One vector after the other.
    numbers: Vec<i8>,
    values: Vec<T>,
}

/// A search under way.
#[derive(Debug)]
pub struct Search<T> {
    partition: Partition,
    vector: Vector,
    chunks: std::vec::IntoIter<Arc<Chunk<T>>>,
    best: Option<(f32, T)>,
}

/// Vectors that are copied when one is put beside them while somebody reads them.
const CHUNK: usize = 64;

// === impl Vector ===

impl Vector {
    /// `None` if it has no direction.
    pub fn new(values: &[f32]) -> Option<Vector> {
        let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        if largest <= 0.0 || !values.iter().all(|value| value.is_finite()) {
            return None;
        }
        let numbers: Box<[i8]> = values.iter().map(|value| (value / largest * 127.0).round() as i8).collect();
        let square = dot(&numbers, &numbers);
        // Of what is left after rounding, so that a vector is as near to itself as can be.
        (square > 0).then(|| Vector { numbers, scale: 1.0 / (square as f32).sqrt() })
    }

    pub fn dimensions(&self) -> usize {
        self.numbers.len()
    }

    /// The cosine of the angle between them.
    pub fn similarity(&self, other: &Vector) -> f32 {
        dot(&self.numbers, &other.numbers) as f32 * self.scale * other.scale
    }
}

/// No sum of products of bytes is too large for it, as long as there are fewer than 130,000 dimensions.
fn dot(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}

// === impl Near ===

impl<T: Clone> Near<T> {
    /// Room for so many.
    pub fn new(most: usize) -> Near<T> {
        Near { most: most.max(1), ring: Mutex::new(Ring { dimensions: 0, chunks: Vec::new(), next: 0 }) }
    }

    /// How many there is room for.
    pub fn room(&self) -> usize {
        self.most
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ring().chunks.iter().map(|chunk| chunk.values.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.ring().chunks.is_empty()
    }

    pub fn insert(&self, partition: Partition, vector: &Vector, value: T) {
        let mut ring = self.ring();
        if ring.dimensions != vector.dimensions() {
            // Of another model: nothing is near to what was there.
            *ring = Ring { dimensions: vector.dimensions(), chunks: Vec::new(), next: 0 };
        }
        let (at, within) = (ring.next / CHUNK, ring.next % CHUNK);
        ring.next = (ring.next + 1) % self.most;
        if at == ring.chunks.len() {
            ring.chunks.push(Arc::new(Chunk::with_room(vector.dimensions())));
        }
        Arc::make_mut(&mut ring.chunks[at]).put(within, partition, vector, value);
    }

    /// Looks for what is nearest to a vector, by and by: [`Search::step`].
    pub fn search(&self, partition: Partition, vector: Vector) -> Search<T> {
        let ring = self.ring();
        let chunks = if ring.dimensions == vector.dimensions() { ring.chunks.clone() } else { Vec::new() };
        drop(ring);
        Search { partition, vector, chunks: chunks.into_iter(), best: None }
    }

    fn ring(&self) -> MutexGuard<'_, Ring<T>> {
        // A panic within left nothing that the next search could not bear.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Chunk ===

impl<T> Chunk<T> {
    fn with_room(dimensions: usize) -> Chunk<T> {
        Chunk {
            partitions: Vec::with_capacity(CHUNK),
            scales: Vec::with_capacity(CHUNK),
            numbers: Vec::with_capacity(CHUNK * dimensions),
            values: Vec::with_capacity(CHUNK),
        }
    }

    fn put(&mut self, at: usize, partition: Partition, vector: &Vector, value: T) {
        let Vector { numbers, scale } = vector;
        if at >= self.values.len() {
            self.partitions.push(partition);
            self.scales.push(*scale);
            self.numbers.extend_from_slice(numbers);
            self.values.push(value);
            return;
        }
        let start = at * numbers.len();
        self.numbers[start..start + numbers.len()].copy_from_slice(numbers);
        (self.partitions[at], self.scales[at], self.values[at]) = (partition, *scale, value);
    }
}

// === impl Search ===

impl<T: Clone> Search<T> {
    /// Goes over some 64 of those that are there, and takes no account of what `lives` does not accept. False when all have
    /// been seen.
    pub fn step(&mut self, lives: impl Fn(&T) -> bool) -> bool {
        let Some(chunk) = self.chunks.next() else { return false };
        let Vector { numbers, scale } = &self.vector;
        let all = chunk.numbers.chunks_exact(numbers.len().max(1)).zip(&chunk.scales).zip(&chunk.values);
        for (partition, ((other, other_scale), value)) in chunk.partitions.iter().zip(all) {
            if *partition != self.partition {
                continue;
            }
            let similarity = dot(numbers, other) as f32 * scale * other_scale;
            if self.best.as_ref().is_none_or(|(best, _)| similarity > *best) && lives(value) {
                self.best = Some((similarity, value.clone()));
            }
        }
        true
    }

    /// The nearest that was seen, and the cosine of the angle to it.
    pub fn best(self) -> Option<(f32, T)> {
        self.best
    }

    /// What was looked for.
    pub fn vector(&self) -> &Vector {
        &self.vector
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: Partition = [1; 16];
    const B: Partition = [2; 16];

    fn nearest(near: &Near<u32>, partition: Partition, values: &[f32]) -> Option<(f32, u32)> {
        let mut search = near.search(partition, Vector::new(values).unwrap());
        while search.step(|_| true) {}
        search.best()
    }

    fn vector(values: &[f32]) -> Vector {
        Vector::new(values).unwrap()
    }

    #[test]
    fn the_nearest_of_the_partition_is_found() {
        let near = Near::new(10);
        assert_eq!(nearest(&near, A, &[1.0, 0.0]), None);
        near.insert(A, &vector(&[1.0, 0.0]), 1);
        near.insert(A, &vector(&[0.0, 5.0]), 2);
        near.insert(B, &vector(&[3.0, 1.0]), 3);
        let (similarity, found) = nearest(&near, A, &[3.0, 1.0]).unwrap();
        assert_eq!(found, 1);
        assert!((similarity - 3.0 / 10f32.sqrt()).abs() < 0.01, "{similarity}");
        let (similarity, found) = nearest(&near, B, &[3.0, 1.0]).unwrap();
        assert!(found == 3 && (similarity - 1.0).abs() < 1e-6);
        assert_eq!(nearest(&near, [3; 16], &[3.0, 1.0]), None);
        // What does not live any more is passed over.
        let mut search = near.search(A, vector(&[3.0, 1.0]));
        while search.step(|value| *value != 1) {}
        assert_eq!(search.best().unwrap().1, 2);
    }

    #[test]
    fn the_oldest_goes_where_there_is_no_room_and_all_where_dimensions_change() {
        let near = Near::new(100);
        for number in 0..250u32 {
            near.insert(A, &vector(&[number as f32, 1.0]), number);
        }
        assert_eq!(near.len(), 100);
        let seen: Vec<u32> = near.ring().chunks.iter().flat_map(|chunk| chunk.values.clone()).collect();
        assert!((150..250).all(|number| seen.contains(&number)), "{seen:?}");
        near.insert(A, &vector(&[1.0, 1.0, 1.0]), 7);
        assert_eq!((near.len(), nearest(&near, A, &[1.0, 1.0, 1.0]).unwrap().1), (1, 7));
        assert_eq!(nearest(&near, A, &[1.0, 1.0]), None);
    }

    #[test]
    fn who_searches_sees_what_was_there_when_he_began() {
        let near = Near::new(3);
        near.insert(A, &vector(&[1.0, 0.0]), 1);
        let mut search = near.search(A, vector(&[1.0, 0.0]));
        for number in 2..6 {
            near.insert(A, &vector(&[0.0, 1.0]), number);
        }
        while search.step(|_| true) {}
        assert_eq!(search.best().unwrap().1, 1);
    }

    #[test]
    fn what_has_no_direction_is_no_vector() {
        for values in [&[][..], &[0.0, 0.0], &[f32::NAN, 1.0], &[f32::INFINITY, 1.0]] {
            assert_eq!(Vector::new(values), None, "{values:?}");
        }
    }

    proptest! {
        /// Rounding to bytes moves the similarity of vectors such as models give by less than a hundredth.
        #[test]
        fn bytes_are_fine_enough(
            (a, b) in (64..512usize).prop_flat_map(|n| {
                let values = || prop::collection::vec(-1.0..1.0f32, n);
                (values(), values())
            }),
            mix in 0.0..1.0f32,
        ) {
            // Near ones too: those are what matters.
            let b: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a * mix + b * (1.0 - mix)).collect();
            let exact = {
                let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                (dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()) as f32
            };
            prop_assert!((vector(&a).similarity(&vector(&b)) - exact).abs() < 0.01);
        }
    }
}
