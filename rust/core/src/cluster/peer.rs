//! One peer as the cluster sees it: whether it is up, what waits to be sent, what it has not confirmed. Not
//! the connection.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::hints::{Hint, Hints};
use super::incoming::Incoming;
use super::{ClusterConfig, Transmit, Urgency};
use crate::exchange::{Exchange, ExchangeStats};
use crate::message::Message;
use crate::record;
use crate::waits::Waiter;

/// Bytes of a message beside the entries in it.
const HEAD: usize = 16;
/// How long small entries wait for more at most. Nearby, what they wait for takes a fraction of it; far away,
/// nobody notices.
const HOLD_MS: u64 = 1;

/// Whether a peer is there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PeerState {
    /// There is no connection.
    #[default]
    Down,
    /// There is one, and the peer has not said what it is.
    Greeting,
    /// It belongs to this cluster.
    Up,
}

/// What was counted of a peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerStats {
    /// Whether it is there.
    pub state: PeerState,
    /// Entries sent to it.
    pub entries_sent: u64,
    /// Entries that came from it.
    pub entries_received: u64,
    /// Keys it is owed.
    pub hints: u64,
    /// Writes it is owed that were not noted: healing finds them.
    pub hints_lost: u64,
    /// Bytes of entries it has not confirmed.
    pub unconfirmed: u64,
    /// Requests of it that are under way here, and replies that it has not all of.
    pub requests: u64,
    /// What comparing came to, of all placements together; `equal_ms` is the earliest of theirs.
    pub exchange: ExchangeStats,
}

/// A write that waits for this peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wait {
    /// Who waits.
    pub waiter: Waiter,
    /// With which of its commands: what confirms an earlier one may come when that is long answered.
    pub command: u64,
    /// Which of the command's writes it is.
    pub write: u32,
}

/// Entries that were sent and not confirmed.
#[derive(Debug)]
pub enum Sent {
    /// Small ones, as they were sent.
    Records(Bytes),
    /// A large one, and how many bytes it has.
    Large(Hint, usize),
}

impl Sent {
    fn len(&self) -> usize {
        match self {
            Sent::Records(records) => records.len(),
            Sent::Large(_, len) => *len,
        }
    }

    /// The keys of the entries, and what the writes replaced.
    pub fn hints(&self) -> Vec<Hint> {
        match self {
            Sent::Large(hint, _) => vec![hint.clone()],
            Sent::Records(records) => {
                let records = record::Reader::new(records).flatten();
                records.map(|record| (record.key.into(), record.base.map(|base| base.version))).collect()
            }
        }
    }
}

/// What was sent under one number.
#[derive(Debug)]
pub struct Batch {
    /// The entries.
    pub sent: Sent,
    /// When.
    sent_ms: u64,
    /// Who waits for which of them.
    pub waits: Vec<(u32, Wait)>,
}

/// A peer.
#[derive(Debug)]
pub struct Peer {
    state: PeerState,
    /// It has said what it is.
    pub greeted: bool,
    /// It is to be left alone, and that was said.
    pub refused: bool,
    /// Of its last start that we know of.
    pub boot: Option<u64>,
    /// Messages to be sent.
    pub out: VecDeque<Transmit>,
    batch_max: usize,
    /// Entries for the next message, how many, and who waits for which.
    open: Vec<u8>,
    open_count: u32,
    open_waits: Vec<(u32, Wait)>,
    /// When the first of them came, and whether one of them is in a hurry.
    open_ms: u64,
    open_hurries: bool,
    next_batch: u64,
    /// Messages of small entries that are not confirmed: those that nobody waits for, and the others.
    under_way: [usize; 2],
    unconfirmed: BTreeMap<u64, Batch>,
    unconfirmed_bytes: usize,
    /// How long it takes to confirm, in eighths of a millisecond: the mean of the last few.
    takes: u64,
    /// What it is owed.
    pub hints: Hints,
    /// Healing, one for each placement that both keep keys of.
    pub exchanges: Vec<Exchange>,
    /// Messages that have come in part.
    pub streams: BTreeMap<u64, Incoming>,
    entries_sent: u64,
    /// Entries that came from it.
    pub entries_received: u64,
}

impl Peer {
    /// A peer that is down.
    pub fn new(config: &ClusterConfig, exchanges: Vec<Exchange>) -> Self {
        Peer {
            state: PeerState::Down,
            greeted: false,
            refused: false,
            boot: None,
            out: VecDeque::new(),
            open: Vec::new(),
            open_count: 0,
            open_waits: Vec::new(),
            open_ms: 0,
            open_hurries: false,
            next_batch: 1,
            under_way: [0; 2],
            unconfirmed: BTreeMap::new(),
            unconfirmed_bytes: 0,
            takes: 0,
            hints: Hints::new(config.hints_max),
            batch_max: config.batch_max,
            exchanges,
            streams: BTreeMap::new(),
            entries_sent: 0,
            entries_received: 0,
        }
    }

    /// Whether it is there.
    pub fn state(&self) -> PeerState {
        self.state
    }

    /// Whether it takes messages.
    pub fn is_up(&self) -> bool {
        self.state == PeerState::Up
    }

    /// Bytes of entries it has not confirmed, those not sent yet too.
    pub fn unconfirmed(&self) -> usize {
        self.unconfirmed_bytes + self.open.len()
    }

    /// The connection is there.
    pub fn greet(&mut self) {
        self.state = PeerState::Greeting;
    }

    /// The peer knows what this node is.
    pub fn welcomed(&mut self) {
        self.state = PeerState::Up;
    }

    /// The connection is over: what was not confirmed is owed. Returns who waited for it.
    pub fn disconnect(&mut self) -> Vec<Vec<Wait>> {
        self.state = PeerState::Down;
        (self.greeted, self.refused) = (false, false);
        self.close_batch(0);
        self.out.clear();
        self.streams.clear();
        self.exchanges.iter_mut().for_each(Exchange::reset);
        (self.unconfirmed_bytes, self.under_way) = (0, [0; 2]);
        let mut lost = Vec::new();
        for batch in std::mem::take(&mut self.unconfirmed).into_values() {
            batch.sent.hints().iter().for_each(|(key, base)| self.hints.keep(key, *base));
            lost.push(batch.waits.into_iter().map(|(_, wait)| wait).collect());
        }
        lost
    }

    /// Sends a short message.
    pub fn send(&mut self, urgency: Urgency, message: &Message) {
        self.transmit(urgency, false, VecDeque::from([message.to_bytes()]));
    }

    /// Sends what exchanges have to say.
    pub fn send_exchanges(&mut self) {
        for index in 0..self.exchanges.len() {
            let group = self.exchanges[index].group();
            while let Some(bytes) = self.exchanges[index].poll_message() {
                let message = Message::Exchange([&[group], &bytes[..]].concat().into());
                self.send(Urgency::Control, &message);
            }
        }
    }

    /// Sends a message in pieces.
    pub fn transmit(&mut self, urgency: Urgency, datagram: bool, pieces: VecDeque<Bytes>) {
        self.out.push_back(Transmit { urgency, datagram, pieces });
    }

    /// How long it takes to confirm, in milliseconds; what it has not confirmed yet counts, too.
    pub fn takes_ms(&self, now_ms: u64) -> u64 {
        let oldest = self.unconfirmed.first_key_value().map_or(now_ms, |(_, batch)| batch.sent_ms);
        (self.takes / 8).max(now_ms.saturating_sub(oldest))
    }

    /// Adds an entry, which `record` is, to those that are sent next; one that does not hurry goes with those
    /// that do, or a moment later.
    pub fn put(&mut self, now_ms: u64, record: &[u8], wait: Option<Wait>, hurries: bool) {
        if self.open.len() + record.len() + HEAD > self.batch_max {
            self.close_batch(now_ms);
        }
        if self.open.is_empty() {
            self.open_ms = now_ms;
        }
        if let Some(wait) = wait {
            self.open_waits.push((self.open_count, wait));
        }
        self.open_hurries |= hurries;
        self.open.extend_from_slice(record);
        self.open_count += 1;
        self.entries_sent += 1;
    }

    /// Sends an entry with a large value, which `head` is without its number.
    pub fn put_large(
        &mut self,
        now_ms: u64,
        batch: u64,
        hint: Hint,
        pieces: VecDeque<Bytes>,
        wait: Option<Wait>,
    ) {
        let len = pieces.iter().map(Bytes::len).sum();
        let waits = wait.into_iter().map(|wait| (0, wait)).collect();
        self.note(batch, Batch { sent: Sent::Large(hint, len), sent_ms: now_ms, waits });
        self.entries_sent += 1;
        self.transmit(Urgency::Bulk, false, pieces);
    }

    /// Sends what `put` has added, unless it can wait for more: as long as the peer has not confirmed what
    /// was sent before, as Nagle had it (RFC 896), but a moment at most. So one write goes at once, and of
    /// many at a time each message carries those that came while the last one was under way.
    pub fn send_batch(&mut self, now_ms: u64) {
        let is_waited_for = !self.open_waits.is_empty();
        let is_free = self.open_hurries && self.under_way[usize::from(is_waited_for)] == 0;
        if is_free || self.open_ms + HOLD_MS <= now_ms {
            self.close_batch(now_ms);
        }
    }

    /// When to call `send_batch` at the latest.
    pub fn poll_timeout(&self) -> Option<u64> {
        (!self.open.is_empty()).then_some(self.open_ms + HOLD_MS)
    }

    fn close_batch(&mut self, now_ms: u64) {
        if self.open.is_empty() {
            return;
        }
        let batch = self.number();
        let records = Bytes::from(std::mem::take(&mut self.open));
        let message = Message::Put { batch, records: records.clone() };
        let waits = std::mem::take(&mut self.open_waits);
        let urgency = if waits.is_empty() { Urgency::Bulk } else { Urgency::Request };
        (self.open_count, self.open_hurries) = (0, false);
        self.send(urgency, &message);
        self.note(batch, Batch { sent: Sent::Records(records), sent_ms: now_ms, waits });
    }

    /// A number for what is sent next.
    pub fn number(&mut self) -> u64 {
        self.next_batch += 1;
        self.next_batch
    }

    fn note(&mut self, number: u64, batch: Batch) {
        self.unconfirmed_bytes += batch.sent.len();
        if let Some(under_way) = self.under_way_of(&batch) {
            *under_way += 1;
        }
        self.unconfirmed.insert(number, batch);
    }

    /// The peer has confirmed what was sent under this number.
    pub fn confirm(&mut self, now_ms: u64, number: u64) -> Option<Batch> {
        let batch = self.unconfirmed.remove(&number)?;
        if matches!(batch.sent, Sent::Records(_)) {
            self.takes = self.takes - self.takes.div_ceil(8) + now_ms.saturating_sub(batch.sent_ms);
        }
        self.unconfirmed_bytes -= batch.sent.len();
        if let Some(under_way) = self.under_way_of(&batch) {
            *under_way -= 1;
        }
        Some(batch)
    }

    fn under_way_of(&mut self, batch: &Batch) -> Option<&mut usize> {
        let is_small = matches!(batch.sent, Sent::Records(_));
        is_small.then(|| &mut self.under_way[usize::from(!batch.waits.is_empty())])
    }

    /// The peer's figures.
    pub fn stats(&self) -> PeerStats {
        PeerStats {
            state: self.state,
            entries_sent: self.entries_sent,
            entries_received: self.entries_received,
            hints: self.hints.len() as u64,
            hints_lost: self.hints.lost(),
            unconfirmed: self.unconfirmed() as u64,
            requests: 0,
            exchange: self.exchanges.iter().map(Exchange::stats).fold(None, joined).unwrap_or_default(),
        }
    }
}

fn joined(all: Option<ExchangeStats>, one: ExchangeStats) -> Option<ExchangeStats> {
    let Some(all) = all else { return Some(one) };
    Some(ExchangeStats {
        rounds: all.rounds + one.rounds,
        equal: all.equal + one.equal,
        bytes: all.bytes + one.bytes,
        messages: all.messages + one.messages,
        sent: all.sent + one.sent,
        wanted: all.wanted + one.wanted,
        equal_ms: all.equal_ms.min(one.equal_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_it_takes_is_that_of_the_last_few_confirmations() {
        let mut peer = Peer::new(&ClusterConfig::default(), Vec::new());
        peer.welcomed();
        let mut confirm_after = |took_ms| {
            peer.put(0, b"record", None, true);
            peer.send_batch(0);
            assert_eq!(peer.takes_ms(3), (peer.takes / 8).max(3), "it has not confirmed yet");
            assert!(peer.confirm(took_ms, peer.next_batch).is_some());
            peer.takes_ms(took_ms)
        };
        let slow: Vec<u64> = (0..100).map(|_| confirm_after(20)).collect();
        assert!(slow.last().is_some_and(|takes| (18..=20).contains(takes)), "{slow:?}");
        // A millisecond now and then is what the clock's steps are, and no slow peer.
        let soon: Vec<u64> = (0..1000).map(|at| confirm_after(u64::from(at % 8 == 0))).collect();
        assert!(soon[100..].iter().all(|takes| *takes == 0), "{soon:?}");
    }
}
