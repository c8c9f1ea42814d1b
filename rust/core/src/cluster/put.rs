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
use crate::record::{self, Base};
use crate::replica::Body;
use crate::routes::{MemberIndex, Routes};
use crate::siblings::Sibling;
use crate::store::{Merged, PREFETCH};
use crate::version::Version;
use crate::waits::Waiter;

/// Hints delivered before others have their turn: some tens of microseconds.
const HINTS_STEP: usize = 128;
/// Bytes of the largest entry that is sent as a datagram: what an Ethernet packet takes with what we add.
const DATAGRAM_RECORD_MAX: usize = 1100;

/// An entry as it is sent.
pub(super) enum Outgoing {
    Record(Vec<u8>),
    Large(LargeEntry, VecDeque<Bytes>),
}

impl Outgoing {
    /// What the write replaced, if that is known.
    fn base(&self) -> Option<Version> {
        let base = match self {
            Outgoing::Record(record) => record::Reader::new(record).next()?.ok()?.base,
            Outgoing::Large(entry, _) => entry.base,
        };
        base.map(|base| base.version)
    }
}

/// How an entry is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Manner {
    /// Once, whatever becomes of it.
    Datagram,
    /// As soon as it may be.
    Prompt,
    /// Perhaps with those that come in the next moment.
    Held,
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

pub(super) fn outgoing(key: &[u8], view: &View<'_>, base: Option<Base>) -> Outgoing {
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

/// Whether the writer of `view`, which came with a `base`, did not know `before`, as far as can be told here.
/// What is older than the base may have been known and replaced by what this node has missed: when that
/// comes, its own base tells. Of two where the one that is there wins, only that it is another one is known.
fn is_concurrent(before: &View<'_>, view: &View<'_>, base: Option<Base>) -> bool {
    base.is_some_and(|base| before.version > base.version && before.version != view.version)
}

/// A value that loses, to be kept; a delete leaves nothing to look at.
fn sibling(view: View<'_>) -> Option<Sibling> {
    let value = Body::from(view.value?);
    Some(Sibling { version: view.version, expires_ms: view.expires_ms, value })
}

impl Cluster {
    /// Sends what a key is now to its other replicas.
    pub(super) fn replicate(&mut self, key: &[u8], base: Option<Version>, wait: Option<(Waiter, Acks)>) {
        let routes = std::sync::Arc::clone(&self.routes);
        let replicas = routes.replicas(key);
        let prompt = self.prompt(replicas, wait);
        let wait = self.await_replicas(replicas.len(), wait);
        let base = base.map(|version| Base { version, late: false });
        let entry = self.replica.store().read(key, |view| view.map(|view| outgoing(key, &view, base)));
        let datagram = wait.is_none() && routes.rules(key).datagram;
        for &peer in replicas.iter().filter(|member| **member != routes.me()) {
            let manner = match prompt {
                _ if datagram => Manner::Datagram,
                Some(last) if self.rank(peer) > last => Manner::Held,
                _ => Manner::Prompt,
            };
            match &entry {
                Some(entry) => self.put(peer, key, entry, wait, manner),
                // It was deleted and forgotten since: then everybody knows.
                None => wait.into_iter().for_each(|wait| self.confirmed(wait)),
            }
        }
    }

    /// The last in rank of the replicas that a write needs to hear of: the others may have it a moment later,
    /// so that one message carries many writes to them, and is not much later if those before fail.
    fn prompt(&self, replicas: &[MemberIndex], wait: Option<(Waiter, Acks)>) -> Option<(u64, MemberIndex)> {
        let needed = Routes::others_needed(wait?.1, replicas.len());
        let me = self.routes.me();
        let others = replicas.iter().filter(|member| **member != me);
        let mut ranks: Vec<_> = others.map(|member| self.rank(*member)).collect();
        let last = needed.checked_sub(1).filter(|last| *last + 1 < ranks.len())?;
        Some(*ranks.select_nth_unstable(last).1)
    }

    /// Orders peers: those that confirm soon come first, those that are not there last. Of equals each node
    /// has others first, so that no member is everybody's.
    fn rank(&self, member: MemberIndex) -> (u64, MemberIndex) {
        let peer = &self.peers[usize::from(member)];
        let after_me = member.wrapping_sub(self.routes.me());
        (if peer.is_up() { peer.takes_ms(self.now.ms) } else { u64::MAX }, after_me)
    }

    /// Has the other replicas of a key know a write by its name.
    pub(super) fn replicate_name(
        &mut self,
        key: &[u8],
        name: &[u8],
        version: Version,
        wait: Option<(Waiter, Acks)>,
    ) {
        let routes = std::sync::Arc::clone(&self.routes);
        let replicas = routes.replicas(key);
        let prompt = self.prompt(replicas, wait);
        let wait = self.await_replicas(replicas.len(), wait);
        let mut record = Vec::new();
        record::encode_name(&mut record, key, name, version);
        for &peer in replicas.iter().filter(|member| **member != routes.me()) {
            let hurries = prompt.is_none_or(|last| self.rank(peer) <= last);
            let peer = &mut self.peers[usize::from(peer)];
            if peer.is_up() {
                peer.put(self.now.ms, &record, wait, hurries);
            } else if let Some(wait) = wait {
                self.not_confirmed(wait, None);
            }
        }
    }

    fn await_replicas(&mut self, replicas: usize, wait: Option<(Waiter, Acks)>) -> Option<Wait> {
        let (waiter, acks) = wait?;
        Some(self.await_write(waiter, Routes::others_needed(acks, replicas), replicas))
    }

    pub(super) fn put(
        &mut self,
        to: MemberIndex,
        key: &[u8],
        entry: &Outgoing,
        wait: Option<Wait>,
        manner: Manner,
    ) {
        let limit = self.config.unconfirmed_max;
        let peer = &mut self.peers[usize::from(to)];
        if !peer.is_up() || peer.unconfirmed() > limit {
            peer.hints.keep(key, entry.base());
            if let Some(wait) = wait {
                self.not_confirmed(wait, None);
            }
            return;
        }
        match entry {
            Outgoing::Record(record) if manner == Manner::Datagram && record.len() <= DATAGRAM_RECORD_MAX => {
                let message = Message::Put { batch: 0, records: Bytes::copy_from_slice(record) };
                peer.transmit(Urgency::Request, true, VecDeque::from([message.to_bytes()]));
            }
            Outgoing::Record(record) => peer.put(self.now.ms, record, wait, manner != Manner::Held),
            Outgoing::Large(entry, value) => {
                let batch = peer.number();
                let head = Message::Large { batch, entry: entry.clone() }.to_bytes();
                let pieces = std::iter::once(head).chain(value.iter().cloned()).collect();
                let hint = (key.into(), entry.base.map(|base| base.version));
                peer.put_large(self.now.ms, batch, hint, pieces, wait);
            }
        }
    }

    /// Sends the entry of a key to one peer, nobody waiting for it.
    pub(super) fn put_to(&mut self, peer: MemberIndex, key: &[u8], base: Option<Version>) {
        let (store, base) = (self.replica.store(), base.map(|version| Base { version, late: true }));
        let entry = store.read(key, |view| view.map(|view| outgoing(key, &view, base)));
        if let Some(entry) = entry {
            self.put(peer, key, &entry, None, Manner::Prompt);
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
            let hints = of.hints.take(HINTS_STEP);
            hints.iter().for_each(|(key, base)| self.put_to(peer, key, *base));
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
        let (mut refused, mut place) = (Vec::new(), 0);
        let mut all = record::Reader::new(records);
        loop {
            let some = all.by_ref().take(PREFETCH).collect::<Result<Vec<_>, _>>()?;
            if some.is_empty() {
                break;
            }
            // One by itself waits for memory as long either way.
            if some.len() > 1 {
                let keys: Vec<&[u8]> = some.iter().map(|record| record.key).collect();
                self.replica.store().prefetch(&keys);
            }
            for record in some {
                if let Err(why) = self.take_record(peer, &record) {
                    refused.push((place, why));
                }
                place += 1;
            }
        }
        self.confirm_to(peer, batch, refused);
        Ok(())
    }

    fn take_record(&mut self, peer: MemberIndex, record: &record::Record<'_>) -> Result<(), NotTaken> {
        if let (true, Some(Value::Inline(name))) = (record.is_name, record.view.value) {
            let known = self.replica.known_once();
            known.keep(record.key, name, record.view.version, self.now.unix_ms);
            return Ok(());
        }
        self.arrive(peer, record.key, &record.view, record.base)
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
        base: Option<Base>,
    ) -> Result<(), NotTaken> {
        self.peers[usize::from(peer)].entries_received += 1;
        if let Some(Base { late: false, .. }) = base {
            self.fresh_ms = self.now.ms;
        }
        let store = self.replica.store();
        store.clock().observe(view.version.stamp, self.now.unix_ms);
        let mut cell = store.cell(key);
        let before = cell.view().filter(|before| is_concurrent(before, view, base)).map(sibling);
        let merged = cell.merge(view).map_err(|_| NotTaken::NoSpace)?;
        let watermark = cell.watermark();
        let lost = match merged {
            Merged::Applied => before.flatten(),
            Merged::Kept if before.is_some() => sibling(*view),
            Merged::Kept | Merged::Stale => None,
        };
        // What is over by now has not arrived for anybody.
        let is_over = view.value.is_some() && view.live(self.now.unix_ms).is_none();
        if merged == Merged::Applied && !is_over {
            let kind = match (view.value, base) {
                (None, _) => Kind::Deleted,
                (Some(_), Some(Base { late: false, .. })) => Kind::Arrived,
                (Some(_), _) => Kind::Healed,
            };
            let size = view.value.map_or(0, |value| value.len());
            self.replica.feed().note(kind, key, view.version, size);
        }
        if let Some(lost) = &lost {
            self.replica.feed().note(Kind::Lost, key, lost.version, lost.value.len());
        }
        drop(cell);
        if let Some(lost) = lost {
            self.replica.siblings().keep(key, lost, self.now.unix_ms);
        }
        match merged {
            Merged::Stale => return Err(NotTaken::Stale(watermark)),
            Merged::Applied if view.value.is_some() && !is_over => self.replica.waits().appeared(key),
            Merged::Applied | Merged::Kept => {}
        }
        Ok(())
    }

    /// A peer has merged what was sent to it, but for what it says.
    pub(super) fn handle_ack(&mut self, peer: MemberIndex, number: u64, refused: &[(u32, NotTaken)]) {
        let Some(batch) = self.peers[usize::from(peer)].confirm(self.now.ms, number) else { return };
        let sent = if refused.is_empty() { Vec::new() } else { batch.sent.hints() };
        let mut waits = batch.waits.into_iter().peekable();
        for (place, why) in refused {
            while let Some((_, wait)) = waits.next_if(|(waited, _)| waited < place) {
                self.confirmed(wait);
            }
            let wait = waits.next_if(|(waited, _)| waited == place).map(|(_, wait)| wait);
            match (why, sent.get(*place as usize)) {
                (NotTaken::Stale(watermark), Some((key, _))) => self.stamp_anew(peer, key, *watermark, wait),
                _ => {
                    let why = format!("{} has no memory left for it", self.routes.name(peer));
                    wait.into_iter().for_each(|wait| self.not_confirmed(wait, Some(why.clone())));
                }
            }
        }
        waits.for_each(|(_, wait)| self.confirmed(wait));
    }

    /// What a key is here may have been deleted elsewhere before this node knew of the delete. If the client
    /// was told that it was written, it was written after: so it gets a version that says so. Who waits for
    /// `peer` to have it waits on: it has not got it yet.
    fn stamp_anew(&mut self, peer: MemberIndex, key: &[u8], watermark: Version, wait: Option<Wait>) {
        let store = self.replica.store();
        store.raise_watermark(key, watermark);
        if let Some(base) = self.replica.restamp(key, watermark, self.now.unix_ms) {
            self.replicate(key, Some(base), None);
        }
        let Some(wait) = wait else { return };
        let entry = self.replica.store().read(key, |view| {
            let view = view.filter(|view| view.version > watermark)?;
            Some(outgoing(key, &view, None))
        });
        match entry {
            Some(entry) => self.put(peer, key, &entry, Some(wait), Manner::Prompt),
            // A delete that all know of.
            None => self.confirmed(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::cluster;
    use super::*;
    use crate::error::Refusal;
    use crate::feed::{Filter, Kinds};
    use crate::layout::LayoutError;
    use crate::version::NodeId;

    fn version(stamp: u64) -> Version {
        Version { stamp, node: NodeId(9) }
    }

    type Kept = Vec<(u64, Vec<u8>)>;

    /// What is kept of a key, and what the feed told, after these came: a stamp, and that of the base.
    fn after(arrivals: &[(u64, Option<u64>)]) -> Result<(Kept, Vec<Kind>), Refusal> {
        let feed = Arc::default();
        let mut cluster =
            cluster(&["a", "b"], &feed).map_err(|error| Refusal::Internal(error.to_string()))?;
        let mut watch = feed.watch(Filter { prefix: Vec::new(), kinds: Kinds::ALL }, None)?;
        for (stamp, base) in arrivals {
            let value = [*stamp as u8];
            let view = View::value(version(*stamp), Value::Inline(&value));
            let of = |stamp| if stamp == 0 { Version::ZERO } else { version(stamp) };
            let base = base.map(|base| Base { version: of(base), late: false });
            assert_eq!(cluster.arrive(1, b"k", &view, base), Ok(()));
        }
        let kept = cluster.replica.siblings().of(b"k", 0);
        let kept = kept.iter().map(|lost| (lost.version.stamp, lost.value.piece().to_vec())).collect();
        Ok((kept, watch.read(100)?.0.iter().map(|change| change.kind).collect()))
    }

    #[test]
    fn the_loser_of_two_that_did_not_know_each_other_is_kept() -> Result<(), Refusal> {
        use Kind::{Arrived, Healed, Lost};
        // One after the other.
        assert_eq!(after(&[(1, Some(0)), (2, Some(1)), (2, Some(1))])?, (vec![], vec![Arrived, Arrived]));
        // Both over nothing: the one that wins comes last, or first.
        let kept = vec![(1, vec![1])];
        assert_eq!(after(&[(1, Some(0)), (2, Some(0))])?, (kept.clone(), vec![Arrived, Arrived, Lost]));
        assert_eq!(after(&[(2, Some(0)), (1, Some(0))])?, (kept, vec![Arrived, Lost]));
        // What was missed in between was known to the writer; what comes by healing has no base.
        assert_eq!(after(&[(1, Some(0)), (3, Some(2))])?.0, []);
        assert_eq!(after(&[(1, Some(0)), (2, None)])?, (vec![], vec![Arrived, Healed]));
        Ok(())
    }

    /// Messages to b and c, after a write at some time that waits for a quorum.
    fn sent_by_write(cluster: &mut Cluster, now_ms: u64) -> [usize; 2] {
        let waiter = Waiter { reactor: 0, client: now_ms };
        cluster.now.ms = now_ms;
        cluster.replicate(b"k", None, Some((waiter, Acks::Quorum)));
        sent(cluster, now_ms)
    }

    fn sent(cluster: &mut Cluster, now_ms: u64) -> [usize; 2] {
        cluster.peers.iter_mut().for_each(|peer| peer.send_batch(now_ms));
        [1, 2].map(|peer| std::iter::from_fn(|| cluster.poll_transmit(peer)).count())
    }

    #[test]
    fn a_write_hurries_to_those_that_it_needs() -> Result<(), LayoutError> {
        let mut cluster = cluster(&["a", "b", "c"], &Arc::default())?;
        let view = View::value(version(1), Value::Inline(b"v"));
        assert!(cluster.replica.store().cell(b"k").merge(&view).is_ok());
        cluster.peers.iter_mut().for_each(super::super::Peer::welcomed);
        // The other one has it a moment later.
        assert_eq!(sent_by_write(&mut cluster, 10), [1, 0]);
        assert_eq!(sent(&mut cluster, 11), [0, 1]);
        cluster.handle_ack(2, 2, &[]);
        // Who does not confirm is no longer hurried to.
        assert_eq!(sent_by_write(&mut cluster, 15), [0, 1]);
        assert_eq!(sent(&mut cluster, 16), [1, 0]);
        // Who is not there is not counted on.
        cluster.handle_ack(2, 3, &[]);
        cluster.peers[2].disconnect();
        assert_eq!(sent_by_write(&mut cluster, 20), [0, 0]);
        cluster.handle_ack(1, 2, &[]);
        cluster.handle_ack(1, 3, &[]);
        assert_eq!(sent(&mut cluster, 20), [1, 0]);
        Ok(())
    }
}
