//! Healing with all peers, and the forgetting of deletes that follows from it. Not how differences are found:
//! `exchange`; not when a delete may be forgotten: `watermark`.

use bytes::Bytes;

use super::operation::Due;
use super::peer::Peer;
use super::put::{Manner, outgoing};
use super::{Cluster, Urgency};
use crate::entry::View;
use crate::exchange::{Exchange, ExchangeConfig, Outcome};
use crate::message::{Message, MessageError};
use crate::record::Base;
use crate::routes::{MemberIndex, Routes};
use crate::version::{NodeId, Version};

/// Above every node, so that a watermark of a stamp covers all versions with that stamp.
const EVERY_NODE: NodeId = NodeId(u64::MAX);

/// The exchanges of a node with `peer`, one for each placement that both have keys of.
pub fn exchanges(routes: &Routes, peer: MemberIndex, settle_ms: u64) -> Vec<Exchange> {
    let first = routes.me() < peer;
    let make = |scope| Exchange::new(ExchangeConfig { settle_ms }, scope, first);
    if peer == routes.me() { Vec::new() } else { routes.shared(peer).into_iter().map(make).collect() }
}

impl Cluster {
    /// Compares with all peers now, and not when it is time to.
    pub fn sync(&mut self, now: super::Now) {
        self.now = now;
        for peer in self.others() {
            self.compare_with(peer, true);
        }
    }

    /// It is time to compare: the lower of two members begins.
    pub(super) fn tick(&mut self) {
        if self.replica.store().is_behind() {
            self.catch_up();
        }
        for peer in self.others() {
            self.compare_with(peer, self.routes.me() < peer);
        }
        let store = self.replica.store();
        if store.tombstones() > 0 || store.expiring() > 0 {
            self.watermarks.begin(self.now.ms, store.clock().last());
        }
        self.deadlines.insert((self.now.ms + self.config.sync_ms, Due::Sync));
    }

    pub(super) fn compare_with(&mut self, peer: MemberIndex, begin: bool) {
        let store = self.replica.store();
        // One at a time: what one peer sends, another need not be compared with.
        let all = || self.peers.iter().flat_map(|peer| &peer.exchanges);
        let begin = begin && !all().any(|exchange| exchange.is_healing(self.now.ms));
        let of = &mut self.peers[usize::from(peer)];
        if !of.is_up() {
            return;
        }
        // Whatever this node stamps from here on is later.
        let stamp = store.clock().tick(self.now.unix_ms);
        of.send(Urgency::Control, &Message::Promise { stamp });
        if begin {
            of.exchanges.iter_mut().for_each(|exchange| exchange.start(self.now.ms, store));
            of.send_exchanges();
        }
    }

    /// Part of an exchange came; its first byte says of which placement.
    pub(super) fn handle_exchange(&mut self, peer: MemberIndex, bytes: &Bytes) -> Result<(), MessageError> {
        let (group, bytes) = bytes.split_first().ok_or(MessageError::Short)?;
        let others = self.others().filter(|other| *other != peer);
        let mut others = others.flat_map(|other| &self.peers[usize::from(other)].exchanges);
        let busy = others.any(|exchange| exchange.is_healing(self.now.ms));
        let of = &mut self.peers[usize::from(peer)];
        let exchange = of.exchanges.iter_mut().find(|exchange| exchange.group() == *group);
        let exchange = exchange.ok_or(MessageError::Bad("a comparison of what is not kept by both"))?;
        let handled = exchange.handle_message(self.now, self.replica.store(), bytes, busy);
        handled.map_err(|_| MessageError::Bad("a message of a comparison that cannot be understood"))?;
        of.send_exchanges();
        self.take_outcomes(peer);
        Ok(())
    }

    /// Does some of what exchanges have to do; returns whether there is more that can be done now.
    pub(super) fn heal_some(&mut self) -> bool {
        let mut more = false;
        for peer in self.others() {
            let mut exchanges = std::mem::take(&mut self.peers[usize::from(peer)].exchanges);
            for exchange in &mut exchanges {
                let store = std::sync::Arc::clone(self.replica.store());
                more |= exchange.work(self.now.unix_ms, &store, &mut |key, view| {
                    let full = self.peers[usize::from(peer)].unconfirmed() > self.config.unconfirmed_max / 2;
                    if !full {
                        self.put_found(peer, key, view);
                    }
                    !full
                });
            }
            let of = &mut self.peers[usize::from(peer)];
            of.exchanges = exchanges;
            of.send_exchanges();
            self.take_outcomes(peer);
        }
        more
    }

    /// Sends an entry that a peer lacks. It may be owed to it as a hint: that knows what it replaced.
    fn put_found(&mut self, peer: MemberIndex, key: &[u8], view: &View<'_>) {
        let base = self.peers[usize::from(peer)].hints.base(key);
        let base = base.map(|version| Base { version, late: true });
        self.put(peer, key, &outgoing(key, view, base), None, Manner::Prompt);
    }

    /// Notes when this node, which began blank, has been found to hold what each of its peers holds. Who does
    /// not answer for as long as a command waits is not waited for.
    fn catch_up(&mut self) {
        let waits = self.is_beginning();
        let near = || self.peers.iter().filter(|peer| !peer.exchanges.is_empty());
        let is_equal = |peer: &Peer| peer.exchanges.iter().all(|of| of.stats().equal_ms.is_some());
        if near().any(is_equal) && near().all(|peer| is_equal(peer) || !peer.is_up() && !waits) {
            self.replica.store().set_behind(false);
        }
    }

    /// Whether this node has only just begun: its peers may be there in a moment.
    pub(super) fn is_beginning(&mut self) -> bool {
        let began_ms = *self.began_ms.get_or_insert(self.now.ms);
        self.now.ms < began_ms + self.config.ack_timeout_ms
    }

    fn take_outcomes(&mut self, peer: MemberIndex) {
        let of = &mut self.peers[usize::from(peer)];
        let mut equal = false;
        for exchange in &mut of.exchanges {
            while let Some(outcome) = exchange.poll_outcome() {
                equal |= matches!(outcome, Outcome::Equal(_));
            }
        }
        if equal && self.replica.store().is_behind() {
            self.catch_up();
        }
        let of = &self.peers[usize::from(peer)];
        // Equal in all placements: since the earliest of the times.
        let since = of.exchanges.iter().map(|exchange| exchange.stats().equal_ms).min().flatten();
        let Some(began_ms) = since.filter(|_| equal) else { return };
        if let Some(stamp) = self.watermarks.equal(peer, began_ms, self.now.ms) {
            let watermark = Version { stamp, node: EVERY_NODE };
            let slots = self.routes.collected_by(self.routes.me());
            self.replica.store().raise_watermarks(slots, watermark);
            for peer in self.others() {
                let of = &mut self.peers[usize::from(peer)];
                if of.is_up() {
                    of.send(Urgency::Control, &Message::Watermark(watermark));
                }
            }
        }
    }

    /// A peer stamps nothing at or below this any more.
    pub(super) fn handle_promise(&mut self, peer: MemberIndex, stamp: u64) {
        self.watermarks.promised(peer, stamp);
    }

    /// A peer has found that deletes up to here are known to all, in the slots that it decides for.
    pub(super) fn handle_watermark(&mut self, peer: MemberIndex, watermark: Version) {
        let slots = self.routes.collected_by(peer);
        self.replica.store().raise_watermarks(slots, watermark);
    }

    /// The members that hold up the forgetting of deletes.
    pub fn watermark_held_by(&self) -> Vec<MemberIndex> {
        self.watermarks.held_by()
    }
}
