//! Handshakes of peers that were answered, and that nobody has gone on with: until their keys are used, who
//! knows whether their sender has the cluster's key? Nothing of a connection changes before.

use core::net::SocketAddr;
use std::collections::BTreeSet;
use std::time::Duration;

use foldhash::HashMap;

use crate::connection::Session;
use crate::handshake::PublicKey;
use crate::packet::{Header, Settings};
use crate::time::Time;

/// How many times `Config::silence_max` a candidate is kept: whoever was answered and has the keys repeats
/// its first packet until it takes us for dead, which is later than that only if it slept itself.
const PATIENCE: u32 = 2;

/// A handshake that was answered. The first packet under its keys makes it the peer's connection.
pub(crate) struct Candidate {
    /// Where it came from.
    pub from: SocketAddr,
    pub settings: Settings,
    pub session: Session,
    /// Answers to this peer in a row that it did not go on after.
    pub answers: u8,
    /// The peer had proved a newer stamp.
    pub late: bool,
}

/// At most one candidate of each peer.
#[derive(Default)]
pub(crate) struct Candidates {
    by_peer: HashMap<PublicKey, (Time, Candidate)>,
    by_index: HashMap<u32, PublicKey>,
    ends: BTreeSet<(Time, PublicKey)>,
}

impl Candidates {
    pub fn get(&self, peer: &PublicKey) -> Option<&Candidate> {
        self.by_peer.get(peer).map(|(_, candidate)| candidate)
    }

    /// Whether a candidate's session has this index.
    pub fn has(&self, index: u32) -> bool {
        self.by_index.contains_key(&index)
    }

    /// Keeps a candidate in the place of the one before.
    pub fn insert(&mut self, now: Time, silence_max: Duration, peer: PublicKey, candidate: Candidate) {
        self.remove(&peer);
        let end = now + silence_max * PATIENCE;
        self.by_index.insert(candidate.session.local, peer);
        self.ends.insert((end, peer));
        self.by_peer.insert(peer, (end, candidate));
    }

    pub fn remove(&mut self, peer: &PublicKey) -> Option<Candidate> {
        let (end, candidate) = self.by_peer.remove(peer)?;
        self.ends.remove(&(end, *peer));
        self.by_index.remove(&candidate.session.local);
        Some(candidate)
    }

    /// Takes out the candidate that this packet proves to have the cluster's key. The packet stays sealed.
    pub fn prove(&mut self, header: &Header, datagram: &[u8]) -> Option<(PublicKey, Candidate)> {
        let peer = *self.by_index.get(&header.receiver)?;
        let keys = &self.get(&peer)?.session.keys;
        keys.open(header, &mut datagram.to_vec()).ok()?;
        Some((peer, self.remove(&peer)?))
    }

    /// When `handle_timeout` is due.
    pub fn next_timeout(&self) -> Option<Time> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Forgets those that have not gone on for long.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some((_, peer)) = self.ends.first().copied().filter(|(end, _)| *end <= now) {
            self.remove(&peer);
        }
    }
}
