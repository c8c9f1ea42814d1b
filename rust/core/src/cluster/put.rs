//! Entries to other replicas and from them: writes, hints, what healing found.

use std::collections::VecDeque;

use bytes::Bytes;

use super::peer::Wait;
use super::{Cluster, Urgency};
use crate::blob::{Blob, Value};
use crate::entry::View;
use crate::feed::Kind;
use crate::keyspace::Acks;
use crate::message::{LargeEntry, Message, NotTaken};
use crate::record;
use crate::routes::{MemberIndex, Routes};
use crate::store::Merged;
use crate::version::Version;
use crate::waits::Waiter;

/// Hints delivered before others have their turn: some tens of microseconds.
const HINTS_STEP: usize = 128;
/// Bytes of the largest entry that is sent as a datagram: what an Ethernet packet takes with what we add.
const DATAGRAM_RECORD_MAX: usize = 1100;

/// An entry as it is sent.
enum Outgoing {
    Record(Vec<u8>),
    Large(LargeEntry, VecDeque<Bytes>),
}

/// A blob's chunk as bytes that keep the blob.
struct Chunk(std::sync::Arc<Blob>, usize);

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self.0.chunks().nth(self.1).unwrap_or_default()
    }
}

/// A large value in pieces, none of them copied.
pub fn pieces(blob: &std::sync::Arc<Blob>) -> impl Iterator<Item = Bytes> + use<> {
    let chunks = blob.chunks().count();
    let blob = std::sync::Arc::clone(blob);
    (0..chunks).map(move |index| Bytes::from_owner(Chunk(std::sync::Arc::clone(&blob), index)))
}

fn outgoing(key: &[u8], view: &View<'_>, base: Option<Version>) -> Outgoing {
    match view.value {
        Some(Value::Blob(blob)) => {
            let blob = blob.share();
            let entry = LargeEntry {
                key: Bytes::copy_from_slice(key),
                version: view.version,
                expires_ms: view.expires_ms,
                floor: view.floor,
                base,
                len: blob.len() as u64,
            };
            Outgoing::Large(entry, pieces(&blob).collect())
        }
        _ => {
            let mut bytes = Vec::with_capacity(64 + key.len() + view.value.map_or(0, |value| value.len()));
            record::encode(&mut bytes, key, view, base);
            Outgoing::Record(bytes)
        }
    }
}

impl Cluster {
    /// Sends what a key is now to its other replicas.
    pub(super) fn replicate(&mut self, key: &[u8], base: Version, wait: Option<(Waiter, Acks)>) {
        let routes = std::sync::Arc::clone(&self.routes);
        let (replicas, me) = (routes.replicas(key), routes.me());
        let wait = wait.map(|(waiter, acks)| {
            let needed = Routes::others_needed(acks, replicas.len());
            (waiter, self.await_write(waiter, needed, replicas.len()))
        });
        let entry = self.replica.store().read(key, |view| view.map(|view| outgoing(key, &view, Some(base))));
        let datagram = wait.is_none() && routes.rules(key).datagram;
        for &peer in replicas.iter().filter(|member| **member != me) {
            match &entry {
                Some(entry) => self.put(peer, key, entry, wait, datagram),
                // It was deleted and forgotten since: then everybody knows.
                None => wait.into_iter().for_each(|(waiter, place)| self.confirmed(waiter, place)),
            }
        }
    }

    fn put(&mut self, to: MemberIndex, key: &[u8], entry: &Outgoing, wait: Option<Wait>, datagram: bool) {
        let limit = self.config.unconfirmed_max;
        let peer = &mut self.peers[usize::from(to)];
        if !peer.is_up() || peer.unconfirmed() > limit {
            peer.hints.keep(key);
            if let Some((waiter, place)) = wait {
                self.not_confirmed(waiter, place, None);
            }
            return;
        }
        match entry {
            Outgoing::Record(record) if datagram && record.len() <= DATAGRAM_RECORD_MAX => {
                let message = Message::Put { batch: 0, records: Bytes::copy_from_slice(record) };
                peer.transmit(Urgency::Request, true, VecDeque::from([message.to_bytes()]));
            }
            Outgoing::Record(record) => peer.put(record, wait),
            Outgoing::Large(entry, value) => {
                let batch = peer.number();
                let head = Message::Large { batch, entry: entry.clone() }.to_bytes();
                let pieces = std::iter::once(head).chain(value.iter().cloned()).collect();
                peer.put_large(batch, key, pieces, wait);
            }
        }
    }

    /// Sends the entry of a key to one peer, nobody waiting for it.
    pub(super) fn put_to(&mut self, peer: MemberIndex, key: &[u8]) {
        let store = self.replica.store();
        let entry = store.read(key, |view| view.map(|view| outgoing(key, &view, None)));
        if let Some(entry) = entry {
            self.put(peer, key, &entry, None, false);
        }
    }

    /// Sends some of the hints that peers are owed; returns whether there are more that can be sent.
    pub(super) fn deliver_hints(&mut self) -> bool {
        let mut more = false;
        for peer in self.others() {
            let of = &mut self.peers[usize::from(peer)];
            if !of.is_up() || of.hints.len() == 0 || of.unconfirmed() > self.config.unconfirmed_max / 2 {
                continue;
            }
            let keys = of.hints.take(HINTS_STEP);
            keys.iter().for_each(|key| self.put_to(peer, key));
            more |= self.peers[usize::from(peer)].hints.len() > 0;
        }
        more
    }

    /// Entries came from a peer: merges them and confirms.
    pub(super) fn handle_put(
        &mut self,
        peer: MemberIndex,
        batch: u64,
        records: &Bytes,
    ) -> Result<(), record::RecordError> {
        let mut refused = Vec::new();
        for (place, record) in record::Reader::new(records).enumerate() {
            let record = record?;
            if let Err(why) = self.arrive(peer, record.key, &record.view, record.base) {
                refused.push((place as u32, why));
            }
        }
        self.confirm_to(peer, batch, refused);
        Ok(())
    }

    /// Tells a peer that what came under this number is merged, but for what is refused.
    pub(super) fn confirm_to(&mut self, peer: MemberIndex, batch: u64, refused: Vec<(u32, NotTaken)>) {
        if batch != 0 {
            self.peers[usize::from(peer)].send(Urgency::Reply, &Message::Ack { batch, refused });
        }
    }

    /// An entry came from a peer. Without a `base` it is not the write itself: it came because this node did
    /// not have it.
    pub(super) fn arrive(
        &mut self,
        peer: MemberIndex,
        key: &[u8],
        view: &View<'_>,
        base: Option<Version>,
    ) -> Result<(), NotTaken> {
        self.peers[usize::from(peer)].entries_received += 1;
        let store = self.replica.store();
        store.clock().observe(view.version.stamp, self.now.unix_ms);
        let mut cell = store.cell(key);
        let merged = cell.merge(view).map_err(|_| NotTaken::NoSpace)?;
        let watermark = cell.watermark();
        if merged == Merged::Applied {
            let kind = match (view.value, base) {
                (None, _) => Kind::Deleted,
                (Some(_), Some(_)) => Kind::Arrived,
                (Some(_), None) => Kind::Healed,
            };
            let size = view.value.map_or(0, |value| value.len());
            self.replica.feed().note(kind, key, view.version, size);
        }
        drop(cell);
        match merged {
            Merged::Stale => return Err(NotTaken::Stale(watermark)),
            Merged::Applied if view.value.is_some() => self.replica.waits().appeared(key),
            Merged::Applied | Merged::Kept => {}
        }
        Ok(())
    }

    /// A peer has merged what was sent to it, but for what it says.
    pub(super) fn handle_ack(&mut self, peer: MemberIndex, number: u64, refused: &[(u32, NotTaken)]) {
        let Some(batch) = self.peers[usize::from(peer)].confirm(number) else { return };
        let keys = if refused.is_empty() { Vec::new() } else { batch.sent.keys() };
        for (place, (waiter, write)) in batch.waits {
            match refused.iter().find(|(refused, _)| *refused == place) {
                None => self.confirmed(waiter, write),
                // Written anew below: the command waits for that.
                Some((_, NotTaken::Stale(_))) => self.confirmed_later(waiter, write),
                Some((_, NotTaken::NoSpace)) => {
                    let name = self.routes.name(peer);
                    self.not_confirmed(waiter, write, Some(format!("{name} has no memory left for it")));
                }
            }
        }
        for (place, why) in refused {
            if let (NotTaken::Stale(watermark), Some(key)) = (why, keys.get(*place as usize)) {
                self.stamp_anew(key, *watermark);
            }
        }
    }

    /// What a key is here may have been deleted elsewhere before this node knew of the delete. If the client
    /// was told that it was written, it was written after: so it gets a version that says so.
    fn stamp_anew(&mut self, key: &[u8], watermark: Version) {
        let store = self.replica.store();
        store.raise_watermark(key, watermark);
        if let Some(base) = self.replica.restamp(key, watermark, self.now.unix_ms) {
            self.replicate(key, base, None);
        }
    }
}
