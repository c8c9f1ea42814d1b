//! What must hold in the middle of a story, and when all is quiet.

use std::collections::BTreeMap;

use turbopump_core::merkle::MerkleTree;
use turbopump_core::version::Version;

use crate::net::SECOND;
use crate::story::Story;
use crate::world::routes;

/// Faults are over for so long before nodes must agree.
const HEALED_WITHIN: u64 = 120 * SECOND;

/// What a node has of a key.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Entry {
    version: Version,
    value: Option<Vec<u8>>,
}

type Entries = BTreeMap<Vec<u8>, Entry>;

/// Nodes hold no more for their peers than they may.
pub fn check_bounds(story: &Story) {
    let config = &story.world.config;
    for node in 0..story.world.nodes.len() {
        let Some(cluster) = story.world.cluster(node) else { continue };
        for peer in cluster.others() {
            let stats = cluster.peer_stats(peer);
            // One more is sent as long as the limit is not passed.
            let most = config.unconfirmed_max + 3_100_000;
            assert!(stats.unconfirmed as usize <= most, "{node} to {peer}: {stats:?}");
            assert!(stats.hints as usize * 72 <= config.hints_max, "{node} to {peer}: {stats:?}");
        }
    }
}

/// All is well again: so all that was promised holds.
pub fn check(story: &mut Story) {
    // What clients who left had asked for may still be under way.
    story.run_for(30 * SECOND);
    let newest = newest(&all(story));
    let end = story.world.now + HEALED_WITHIN;
    story.run_for(5 * SECOND);
    while let Err(difference) = agree(story) {
        assert!(story.world.now < end, "no agreement: {difference}");
        story.run_for(SECOND);
    }
    story.run_for(5 * SECOND);
    // A tombstone that one has forgotten already may be on its way to it, and is refused.
    while let Err(left) = rests(story) {
        assert!(story.world.now < end, "there is no end to it: {left}");
        story.run_for(SECOND);
    }
    let last = all(story);
    check_nothing_is_lost(story, &newest, &last);
    check_digests(story, &last);
}

/// Whether no node waits for anything, or owes another one something.
fn rests(story: &Story) -> Result<(), String> {
    for node in 0..story.world.nodes.len() {
        let cluster = story.world.cluster(node).unwrap();
        if cluster.waiting() > 0 {
            return Err(format!("node {node} waits: {cluster:?}"));
        }
        for peer in cluster.others() {
            let stats = cluster.peer_stats(peer);
            if (stats.unconfirmed, stats.hints) != (0, 0) {
                return Err(format!("{node} to {peer}: {stats:?}"));
            }
        }
    }
    Ok(())
}

fn all(story: &Story) -> Vec<Entries> {
    let entries = |node: &crate::world::Node| {
        let mut entries = Entries::new();
        let mut cursor = 0;
        loop {
            cursor = node.store.scan(cursor, 1000, |key, view| {
                let value = view.value.map(|value| value.to_vec());
                entries.insert(key.to_vec(), Entry { version: view.version, value });
            });
            if cursor == 0 {
                return entries;
            }
        }
    };
    story.world.nodes.iter().map(entries).collect()
}

/// The last entry of each key, whoever has it.
fn newest(all: &[Entries]) -> Entries {
    let mut newest = Entries::new();
    for (key, entry) in all.iter().flatten() {
        let known = newest.entry(key.clone()).or_insert_with(|| entry.clone());
        if entry.version > known.version {
            *known = entry.clone();
        }
    }
    newest
}

/// Whether all replicas of each key have the same of it, and nobody else anything.
fn agree(story: &Story) -> Result<(), String> {
    let all = all(story);
    let routes = routes(all.len(), 0);
    for (key, entry) in newest(&all) {
        let replicas = routes.replicas(&key);
        let shown = String::from_utf8_lossy(&key).into_owned();
        for (node, entries) in all.iter().enumerate() {
            let found = entries.get(&key);
            let here = replicas.contains(&(node as u16));
            let forgotten = found.is_none()
                && entry.value.is_none()
                && story.world.nodes[node].store.cell(&key).watermark() >= entry.version;
            if here != found.is_some() && !forgotten || found.is_some_and(|found| *found != entry) {
                let version = found.map(|found| found.version);
                let (of, dead) = (entry.version, entry.value.is_none());
                return Err(format!("{shown}: node {node} has {version:?}, not {of} (deleted: {dead})"));
            }
        }
    }
    Ok(())
}

/// Nothing that a node knew when faults ended was lost, and nothing else came up.
fn check_nothing_is_lost(story: &Story, before: &Entries, all: &[Entries]) {
    let last = newest(all);
    for (key, was) in before {
        let shown = String::from_utf8_lossy(key).into_owned();
        match last.get(key) {
            Some(is) => {
                assert_eq!(is.version.max(was.version), is.version, "{shown} went back");
                assert!(is.value == was.value, "{shown}: {} became {}", was.version, is.version);
            }
            None => assert!(was.value.is_none(), "{shown} is gone"),
        }
    }
    for (key, is) in &last {
        let shown = String::from_utf8_lossy(key).into_owned();
        assert!(before.contains_key(key) || is.value.is_none(), "{shown} is back from nowhere");
    }
    let replicas = if story.wiped() { 2 } else { 1 };
    let strict = (!story.plot.odd_clocks).then_some(replicas);
    for key in story.model.keys() {
        let found = last.get(key.as_bytes()).and_then(|entry| entry.value.as_deref());
        story.model.check(key, found, u64::MAX, strict);
    }
}

/// A node's digests are those of what it has.
fn check_digests(story: &Story, all: &[Entries]) {
    for (node, entries) in story.world.nodes.iter().zip(all) {
        let mut tree = MerkleTree::new();
        for (key, entry) in entries {
            tree.toggle(node.store.digest_key(), key, entry.version, entry.value.is_none());
        }
        assert!(tree == node.store.merkle(), "a digest is not that of the entries");
    }
}
