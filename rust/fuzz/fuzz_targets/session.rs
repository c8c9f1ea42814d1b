//! Any bytes, in any pieces: answered or refused, and the same answers however they are cut. Memory stays
//! within the store's limit.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use turbopump_core::replica::Replica;
use turbopump_fuzz::{MEMORY_MAX, replica, talk};

/// Made once: an empty store is a megabyte of slots.
static NODES: LazyLock<[Replica; 2]> = LazyLock::new(|| [replica(), replica()]);

fuzz_target!(|input: (u8, &[u8])| {
    let (step, wire) = input;
    let [whole, pieces] = &*NODES;
    let answers = talk(whole, wire, usize::MAX);
    // One command a connection looks at what came with it, so only what is kept open can be cut anywhere.
    if wire.starts_with(b"*") || wire.starts_with(b"keep||\n") {
        assert_eq!(talk(pieces, wire, step.into()).len(), answers.len());
    }
    let used = whole.store().usage().total();
    assert!(used.bytes() <= MEMORY_MAX);
    whole.clear(1_700_000_000_000).expect("deletes are never refused");
    pieces.clear(1_700_000_000_000).expect("deletes are never refused");
    assert_eq!((used.keys(), used.bytes(), whole.store().root()), (0, 0, 0));
});
