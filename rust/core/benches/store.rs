//! The store and the protocols by themselves: what a request costs beside its system calls.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use turbopump_core::blob::Value;
use turbopump_core::config::Limits;
use turbopump_core::entry::View;
use turbopump_core::keyspace::Keyspaces;
use turbopump_core::layout::{Layout, Member};
use turbopump_core::output::Output;
use turbopump_core::replica::Replica;
use turbopump_core::session::{Client, Session, World};
use turbopump_core::slot::key_slot;
use turbopump_core::store::{PREFETCH, Store, StoreConfig};
use turbopump_core::version::{NodeId, Version};
use turbopump_core::waits::Waits;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u64 = 1_000_000;
const PIPELINE: u64 = 16;

fn key(number: u64) -> String {
    format!("key:{number:012}")
}

fn filled() -> Store {
    let store = Store::new(StoreConfig {
        node: NodeId(1),
        hash_seed: 1,
        digest_secret: [0; 16],
        keyspaces: Keyspaces::default(),
        memory_max: 0,
    });
    for number in 0..KEYS {
        let version = Version { stamp: number + 1, node: NodeId(1) };
        let view = View::value(version, Value::Inline(&[7; 100]));
        assert!(store.merge(key(number).as_bytes(), &view).is_ok());
    }
    store
}

/// Keys in an order that no cache foresees.
fn keys() -> impl Iterator<Item = String> {
    (1u64..).map(|step| key(step.wrapping_mul(0x9E37_79B9_7F4A_7C15) % KEYS))
}

/// A walk through memory in which every step must wait for the one before.
struct Chain {
    next: Vec<u32>,
    at: Cell<u32>,
}

impl Chain {
    fn new() -> Self {
        let count = 32u64 << 20;
        // A full cycle, by Hull and Dobell's conditions (1962): odd step, multiplier 1 modulo 4.
        let step = |i: u64| ((i * 0x915F_77F5 + 12_345) % count) as u32;
        Chain { next: (0..count).map(step).collect(), at: Cell::new(0) }
    }

    fn next(&self) -> u32 {
        self.at.set(self.next[self.at.get() as usize]);
        self.at.get()
    }
}

fn store(criterion: &mut Criterion) {
    let store = filled();
    let some: Vec<String> = keys().take(1 << 16).collect();
    let mut next = some.iter().cycle();
    criterion.bench_function("key_slot, 16 bytes", |bench| {
        bench.iter(|| key_slot(black_box(b"key:000000000001")))
    });
    // Each cold read waits for main memory two or three times, one after the other; what memory itself takes
    // is the floor, and the reason for `prefetch`.
    let floor = Chain::new();
    criterion.bench_function("one load from 128 MB", |bench| bench.iter(|| floor.next()));
    let hot: Vec<String> = keys().take(1000).collect();
    for (name, keys) in [("any of them", &some), ("a thousand of them", &hot)] {
        let mut next = keys.iter().cycle();
        criterion.bench_function(&format!("Store::read, 1 M keys, {name}"), |bench| {
            bench.iter(|| {
                let key = next.next().map(String::as_bytes).unwrap_or_default();
                store.read(key, |view| view.and_then(|view| view.value).map(|value| value.len()))
            });
        });
    }
    let batches: Vec<Vec<&[u8]>> =
        some.chunks(PREFETCH).map(|keys| keys.iter().map(String::as_bytes).collect()).collect();
    let mut batch = batches.iter().cycle();
    criterion.bench_function("Store::prefetch and 16 reads, 1 M keys", |bench| {
        bench.iter(|| {
            let keys = batch.next().map(Vec::as_slice).unwrap_or_default();
            store.prefetch(keys);
            let size =
                |view: Option<View<'_>>| view.and_then(|view| view.value).map_or(0, |value| value.len());
            keys.iter().map(|key| store.read(key, size)).sum::<usize>()
        });
    });
    let mut stamp = KEYS;
    criterion.bench_function("Store::merge over a value, 1 M keys", |bench| {
        bench.iter(|| {
            stamp += 1;
            let key = next.next().map(String::as_bytes).unwrap_or_default();
            let version = Version { stamp, node: NodeId(1) };
            store.merge(key, &View::value(version, Value::Inline(&[8; 100])))
        });
    });
}

fn pipelines(criterion: &mut Criterion) {
    let waits = Waits::new(10, Box::new(|_| {}));
    let replica = Replica::new(Arc::new(filled()), Arc::new(waits), Arc::new(Limits::default()));
    let value = "v".repeat(100);
    let get = |key: String| format!("*2\r\n$3\r\nGET\r\n$16\r\n{key}\r\n");
    let set = |key: String| format!("*3\r\n$3\r\nSET\r\n$16\r\n{key}\r\n$100\r\n{value}\r\n");
    let read = |key: String| format!("read|name={key}|\n");
    let wires: [(&str, &dyn Fn(String) -> String); 3] = [("GET", &get), ("SET", &set), ("read|", &read)];
    let mut group = criterion.benchmark_group("session, pipeline of 16");
    group.throughput(Throughput::Elements(PIPELINE));
    for (name, wire) in wires {
        let batches: Vec<String> =
            (0..4096).map(|batch| keys().skip(batch * 16).take(16).map(wire).collect()).collect();
        let mut next = batches.iter().cycle();
        let (mut session, mut out) = (Session::new(Client::new(1, None)), Output::default());
        let mut world = World { replica: &replica, now_ms: 1 << 40, random: 1, out: &mut out };
        let hello = if name == "read|" { "keep|frame=1|\n" } else { "*1\r\n$4\r\nPING\r\n" };
        session.handle_input(hello.as_bytes(), false, &mut world);
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let batch = next.next().map(String::as_bytes).unwrap_or_default();
                session.handle_input(batch, false, &mut world);
                black_box(world.out.front());
                world.out.clear();
            });
        });
    }
    group.finish();
}

fn layouts(criterion: &mut Criterion) {
    let member = |i: usize| Member { name: format!("n{i:03}"), zone: format!("z{}", i % 3), weight: 100 };
    let members = |count: usize| (0..count).map(member).collect::<Vec<_>>();
    for count in [30, 99] {
        let before = Layout::new(members(count), 3, None);
        criterion.bench_function(&format!("Layout::new, {count} members"), |bench| {
            bench.iter(|| Layout::new(members(count), 3, None));
        });
        criterion.bench_function(&format!("Layout::new, one more than {count}"), |bench| {
            bench.iter(|| Layout::new(members(count + 1), 3, before.as_ref().ok()));
        });
    }
}

criterion_group!(benches, store, pipelines, layouts);
criterion_main!(benches);
