//! What the fuzz targets share: a small node, and a client that talks to it.

use std::sync::Arc;

use turbopump_core::config::Limits;
use turbopump_core::error::Refusal;
use turbopump_core::keyspace::Keyspaces;
use turbopump_core::output::Output;
use turbopump_core::replica::Replica;
use turbopump_core::reply::Reply;
use turbopump_core::session::{Client, Flow, Session, World};
use turbopump_core::store::{Store, StoreConfig};
use turbopump_core::version::NodeId;
use turbopump_core::waits::Waits;

/// Bytes the store of a fuzzed node may take.
pub const MEMORY_MAX: u64 = 4 << 20;

/// A node with low limits, so that they are reached.
pub fn replica() -> Replica {
    let store = Store::new(StoreConfig {
        node: NodeId(1),
        hash_seed: 1,
        digest_secret: [0; 16],
        keyspaces: Keyspaces::default(),
        memory_max: MEMORY_MAX,
    });
    let limits = Limits {
        key_max: 64,
        value_max: 100_000,
        line_max: 200,
        request_max: 4096,
        args_max: 20,
        output_max: 5_000,
        keys_max: 10,
        waits_max: 4,
        wait_ms_max: 1000,
        ..Limits::default()
    };
    Replica::new(Arc::new(store), Arc::new(Waits::new(4, Box::new(|_| {}))), Arc::new(limits))
}

/// Sends `wire` to `replica` in pieces of `step` bytes and half-closes; returns all replies.
pub fn talk(replica: &Replica, wire: &[u8], step: usize) -> Vec<u8> {
    let (mut session, mut out, mut received) =
        (Session::new(Client::new(1, None)), Output::default(), Vec::new());
    let pieces = wire.chunks(step.max(1)).map(|piece| (piece, false)).chain([(&b""[..], true)]);
    for (piece, last) in pieces {
        let mut world = World { replica, now_ms: 1_700_000_000_000, random: 7, out: &mut out };
        let mut flow = session.handle_input(piece, last, &mut world);
        loop {
            while !world.out.is_empty() {
                received.extend_from_slice(world.out.front());
                world.out.advance(world.out.front().len());
            }
            flow = match flow {
                Flow::Yield => session.resume(&mut world),
                Flow::Ask(_) => session.handle_answer(&Reply::Ok, &mut world),
                Flow::Watch(_) => session.handle_refusal(Refusal::ShuttingDown, &mut world),
                Flow::Wait(..) => session.handle_wait(true, &mut world),
                Flow::Read => break,
                // A node alone waits for no other: the store says whether this can be.
                Flow::Remote => unreachable!("a single node has no peers"),
                Flow::Close | Flow::Linger => return received,
            };
        }
    }
    received
}
