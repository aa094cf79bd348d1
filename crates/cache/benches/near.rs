//! What it costs to find the nearest of many vectors: `cargo bench -p cache`.

use std::hint::black_box;

use cache::{Near, Vector};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn search(c: &mut Criterion) {
    let mut group = c.benchmark_group("near");
    for (dimensions, count) in [(256, 1_000), (1536, 1_000), (1536, 10_000)] {
        let near = Near::new(count);
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut vector = || {
            let values: Vec<f32> = (0..dimensions)
                .map(|_| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    (random >> 40) as f32 / (1u64 << 23) as f32 - 1.0
                })
                .collect();
            Vector::new(&values).expect("some direction")
        };
        for number in 0..count {
            near.insert([0; 16], &vector(), number);
        }
        let wanted = vector();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("{count} of {dimensions} dimensions"), |b| {
            b.iter(|| {
                let mut search = near.search([0; 16], black_box(&wanted).clone());
                while search.step(|_| true) {}
                search.best()
            });
        });
        group.bench_function(format!("{count} of another partition"), |b| {
            b.iter(|| {
                let mut search = near.search([1; 16], black_box(&wanted).clone());
                while search.step(|_| true) {}
                search.best()
            });
        });
    }
}

criterion_group!(benches, search);
criterion_main!(benches);
