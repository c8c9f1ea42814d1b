//! Any frames from a peer that has the keys: memory stays within the limits, and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turbopump_udt::inject::Lone;

fuzz_target!(|packets: Vec<&[u8]>| {
    let mut lone = Lone::new();
    let _ = packets.into_iter().all(|frames| lone.take(frames));
});
