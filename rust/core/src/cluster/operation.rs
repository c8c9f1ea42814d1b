//! Commands that wait for other replicas: for their confirmations, their entries, their replies.

use std::collections::VecDeque;

use bytes::Bytes;

use super::flow::{Inflow, Outflow, part_bytes};
use super::peer::Wait;
use super::{Cluster, Outcome, Urgency};
use crate::error::Refusal;
use crate::keyspace::Acks;
use crate::message::Message;
use crate::outbox::Forward;
use crate::record;
use crate::routes::{MemberIndex, Routes};
use crate::version::Version;
use crate::waits::Waiter;

/// What has waited long enough.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Due {
    /// The writes of a client's command, by reactor and client.
    Writes(usize, u64),
    /// A fetch, by its number.
    Fetch(u64),
    /// The next comparison with all peers.
    Sync,
    /// A guest that waits for a key.
    Guest(u64),
    /// A request in parts, by the peer that it is from and its number there.
    Request(MemberIndex, u64),
    /// A reply in parts, by the peer that it is for and its number there.
    Reply(MemberIndex, u64),
}

/// One write of a command.
#[derive(Clone, Copy, Debug)]
struct Write {
    needed: u16,
    confirmed: u16,
    /// Replicas that may still confirm it.
    open: u16,
    replicas: u16,
}

impl Write {
    fn is_lost(self) -> bool {
        self.confirmed + self.open < self.needed
    }
}

/// The writes of a command.
#[derive(Debug)]
pub struct Writes {
    command: u64,
    all: Vec<Write>,
    known: usize,
    /// The command writes nothing more.
    sealed: bool,
    due_ms: u64,
    /// That is over: what it writes from now on is not waited for.
    late: bool,
    /// Why a replica did not confirm.
    why: Option<String>,
}

impl Writes {
    fn get_mut(&mut self, wait: Wait) -> Option<&mut Write> {
        self.all.get_mut(wait.write as usize).filter(|_| wait.command == self.command)
    }
}

/// A read that asks other replicas.
#[derive(Debug)]
pub struct Fetch {
    waiter: Waiter,
    key: Box<[u8]>,
    /// Answers of peers that are not behind.
    needed: usize,
    known: usize,
    /// Without them, what is here is the answer.
    lenient: bool,
    /// This node is not one of those that count, either.
    behind: bool,
    replicas: usize,
    due_ms: u64,
    /// Who was asked and has not answered.
    open: Vec<MemberIndex>,
    /// Who is asked as soon as it is there: this node has only just begun.
    to_come: Vec<MemberIndex>,
    /// Who answered which version.
    answers: Vec<(MemberIndex, Version)>,
    /// The version of a large value that comes by itself: the answer is not before.
    large: Version,
    /// It has waited long enough.
    late: bool,
}

/// A request that another node runs.
#[derive(Debug)]
pub struct Forwarded {
    pub forward: Forward,
    /// Who runs it.
    pub at: MemberIndex,
    /// How many were tried.
    tried: usize,
    /// Some of the reply has come.
    pub begun: bool,
    /// What is left of the request, if it goes in parts.
    pub request: Option<Box<Outflow>>,
    /// Nobody waits for it.
    pub left: bool,
    /// The reply, if it comes in parts.
    pub reply: Option<Box<Inflow>>,
}

impl Cluster {
    /// Whether a command waits for a peer.
    pub fn is_awaited(&self) -> bool {
        !(self.writes.is_empty() && self.fetches.is_empty() && self.forwards.is_empty())
    }

    /// Notes a write that `waiter` waits for.
    pub(super) fn await_write(&mut self, waiter: Waiter, needed: usize, replicas: usize) -> Wait {
        let due_ms = self.now.ms + self.config.ack_timeout_ms;
        let (command, deadlines) = (self.next_id(), &mut self.deadlines);
        let writes = self.writes.entry(waiter).or_insert_with(|| {
            deadlines.insert((due_ms, Due::Writes(waiter.reactor, waiter.client)));
            Writes { command, all: Vec::new(), known: 0, sealed: false, due_ms, late: false, why: None }
        });
        writes.known += usize::from(needed == 0);
        let replicas = replicas as u16;
        let open = if writes.late { 0 } else { replicas.saturating_sub(1) };
        writes.all.push(Write { needed: needed as u16, confirmed: 0, open, replicas });
        Wait { waiter, command: writes.command, write: (writes.all.len() - 1) as u32 }
    }

    /// The command has written all that it writes.
    pub(super) fn sealed(&mut self, waiter: Waiter) {
        match self.writes.get_mut(&waiter) {
            Some(writes) => writes.sealed = true,
            None => return self.done.push_back((waiter, Outcome::Done)),
        }
        self.settle(waiter);
    }

    pub(super) fn confirmed(&mut self, wait: Wait) {
        let Some(writes) = self.writes.get_mut(&wait.waiter) else { return };
        let Some(write) = writes.get_mut(wait) else { return };
        write.confirmed += 1;
        write.open = write.open.saturating_sub(1);
        let lost = write.is_lost() && write.open == 0;
        writes.known += usize::from(write.confirmed == write.needed);
        if lost || writes.sealed && writes.known == writes.all.len() {
            self.settle(wait.waiter);
        }
    }

    /// A replica will not confirm; `why`, if it said so.
    pub(super) fn not_confirmed(&mut self, wait: Wait, why: Option<String>) {
        let Some(writes) = self.writes.get_mut(&wait.waiter) else { return };
        let Some(write) = writes.get_mut(wait) else { return };
        write.open = write.open.saturating_sub(1);
        if write.is_lost() {
            writes.why = why.or(writes.why.take());
            self.settle(wait.waiter);
        }
    }

    /// Answers a command whose writes are all known, or one of which will not be.
    fn settle(&mut self, waiter: Waiter) {
        let Some(writes) = self.writes.get(&waiter) else { return };
        let lost = writes.all.iter().find(|write| write.is_lost());
        let outcome = match lost {
            _ if !writes.sealed => return,
            // Those that may still confirm it are waited for: what is told is to be right.
            Some(_) if writes.all.iter().any(|write| write.is_lost() && write.open > 0) => return,
            Some(lost) => Outcome::Refused(unconfirmed(*lost, writes.why.clone())),
            None if writes.known == writes.all.len() => Outcome::Done,
            None => return,
        };
        self.deadlines.remove(&(writes.due_ms, Due::Writes(waiter.reactor, waiter.client)));
        self.writes.remove(&waiter);
        self.done.push_back((waiter, outcome));
    }

    /// Asks other replicas for their entries of a key.
    pub(super) fn fetch(&mut self, key: Box<[u8]>, acks: Acks, waiter: Waiter) {
        let routes = std::sync::Arc::clone(&self.routes);
        let replicas = routes.replicas(&key);
        let others = replicas.len().saturating_sub(1);
        // One that is behind is none of those whose answers count.
        let behind = self.replica.store().is_behind() && (acks != Acks::One || self.replica.lacks(&key));
        let needed = (Routes::others_needed(acks, replicas.len()) + usize::from(behind)).min(others);
        let others_of = replicas.iter().copied().filter(|member| *member != routes.me());
        let (open, mut to_come): (Vec<_>, Vec<_>) =
            others_of.partition(|member| self.peers[usize::from(*member)].is_up());
        if !(behind && self.is_beginning()) {
            to_come.clear();
        }
        let id = self.next_id();
        for &peer in &open {
            let message = Message::Fetch { id, key: Bytes::copy_from_slice(&key) };
            self.peers[usize::from(peer)].send(Urgency::Request, &message);
        }
        let due_ms = self.now.ms + self.config.ack_timeout_ms;
        let fetch = Fetch {
            waiter,
            key,
            needed,
            known: 0,
            lenient: acks == Acks::One,
            behind,
            replicas: replicas.len(),
            due_ms,
            open,
            to_come,
            answers: Vec::new(),
            large: Version::ZERO,
            late: false,
        };
        self.deadlines.insert((due_ms, Due::Fetch(id)));
        self.fetches.insert(id, fetch);
        self.settle_fetch(id);
    }

    /// A peer is there: asks it what it is to be asked.
    pub(super) fn fetch_from(&mut self, peer: MemberIndex) {
        for (id, fetch) in &mut self.fetches {
            if let Some(place) = fetch.to_come.iter().position(|other| *other == peer) {
                fetch.open.push(fetch.to_come.swap_remove(place));
                let message = Message::Fetch { id: *id, key: Bytes::copy_from_slice(&fetch.key) };
                self.peers[usize::from(peer)].send(Urgency::Request, &message);
            }
        }
    }

    /// A peer asks for an entry.
    pub(super) fn handle_fetch(&mut self, peer: MemberIndex, id: u64, key: &[u8]) {
        let mut found = Vec::new();
        let large = self.replica.store().read(key, |view| match view {
            Some(view) if matches!(view.value, Some(crate::blob::Value::Blob(_))) => true,
            Some(view) => {
                record::encode(&mut found, key, &view, None);
                false
            }
            None => false,
        });
        if large {
            // It comes as a write; the number is answered with a version only.
            let version = self.replica.store().read(key, |view| view.map(|view| view.version));
            let stub = crate::entry::View::tombstone(version.unwrap_or_default());
            self.put_to(peer, key, None);
            record::encode(&mut found, b"", &stub, None);
        }
        let fetched = Message::Fetched { id, behind: self.replica.store().is_behind(), record: found.into() };
        self.peers[usize::from(peer)].send(Urgency::Reply, &fetched);
    }

    /// A peer has answered a `Fetch`.
    pub(super) fn handle_fetched(
        &mut self,
        peer: MemberIndex,
        (id, behind): (u64, bool),
        bytes: &Bytes,
    ) -> Result<(), record::RecordError> {
        let Some(fetch) = self.fetches.get_mut(&id) else { return Ok(()) };
        let Some(place) = fetch.open.iter().position(|other| *other == peer) else { return Ok(()) };
        fetch.open.swap_remove(place);
        let record = record::Reader::new(bytes).next().transpose()?;
        let version = record.as_ref().map_or(Version::ZERO, |record| record.view.version);
        fetch.answers.push((peer, version));
        fetch.known += usize::from(!behind);
        if record.as_ref().is_some_and(|record| record.key.is_empty()) {
            fetch.large = fetch.large.max(version);
        }
        if let Some(record) = record.filter(|record| !record.key.is_empty() && !record.is_name) {
            // What cannot be taken here is no reason not to answer with what is here.
            let _ = self.arrive(peer, record.key, &record.view, record.base);
        }
        self.settle_fetch(id);
        Ok(())
    }

    fn settle_fetch(&mut self, id: u64) {
        let Some(fetch) = self.fetches.get(&id) else { return };
        let newest = self.replica.store().read(&fetch.key, |view| view.map(|view| view.version));
        let is_here = fetch.large == Version::ZERO || newest >= Some(fetch.large);
        // If all have answered nobody knows more.
        let (open, others) = (fetch.open.len() + fetch.to_come.len(), fetch.replicas.saturating_sub(1));
        let known = fetch.known >= fetch.needed || fetch.answers.len() >= others;
        let all_may = open > 0 && fetch.answers.len() + open >= others;
        let over = fetch.late || fetch.known + open < fetch.needed && !all_may;
        let outcome = if is_here && (known || over && fetch.lenient) {
            Outcome::Done
        } else if over {
            Outcome::Refused(unread(fetch))
        } else {
            return;
        };
        let Some(fetch) = self.fetches.remove(&id) else { return };
        self.deadlines.remove(&(fetch.due_ms, Due::Fetch(id)));
        // Read repair: who answered something older is sent what is known now.
        for (peer, version) in &fetch.answers {
            if Some(*version) < newest {
                self.put_to(*peer, &fetch.key, None);
            }
        }
        self.done.push_back((fetch.waiter, outcome));
    }

    /// Has another node run a request.
    pub(super) fn forward(&mut self, forward: Forward) {
        let part = part_bytes(self.replica.limits().relayed_max as u64);
        // It may overtake its head: who runs it asks for the rest when it has that.
        let request = forward.open.then(|| Box::new(Outflow::new(0, part)));
        let (at, tried, begun, left, reply) = (0, 0, false, false, None);
        self.try_forward(forward.id, Forwarded { forward, at, tried, begun, request, left, reply });
    }

    fn try_forward(&mut self, id: u64, mut forwarded: Forwarded) {
        let forward = &forwarded.forward;
        let rest = forward.to.iter().enumerate().skip(forwarded.tried);
        let is_up =
            |member: MemberIndex| member == self.routes.me() || self.peers[usize::from(member)].is_up();
        let next = rest.into_iter().find(|(_, member)| is_up(**member));
        let Some((place, &at)) = next else {
            let names: Vec<&str> = forward.to.iter().map(|member| self.routes.name(*member)).collect();
            let text = format!(
                "none of the nodes that keep this key answers ({}): nothing was done, try again",
                names.join(", ")
            );
            let refusal = Outcome::PartRefused(forward.part, Refusal::Unavailable(text));
            return self.done.push_back((forward.waiter, refusal));
        };
        (forwarded.at, forwarded.tried) = (at, place + 1);
        if at == self.routes.me() {
            return self.run_here(id, forwarded);
        }
        let window = self.replica.limits().relayed_max as u64;
        let head = Message::Forward { id, wire: forward.wire, window, open: forward.open }.to_bytes();
        // Sharing the pieces costs nothing; they may be needed for another try.
        let pieces: VecDeque<Bytes> = std::iter::once(head).chain(forward.request.iter().cloned()).collect();
        self.peers[usize::from(at)].transmit(Urgency::Request, false, pieces);
        self.forwards.insert(id, forwarded);
    }

    /// Runs one of several requests of a command on this node.
    fn run_here(&mut self, id: u64, forwarded: Forwarded) {
        let (me, wire) = (self.routes.me(), forwarded.forward.wire);
        let request = forwarded.forward.request.clone();
        self.forwards.insert(id, forwarded);
        if let Some(guest) = self.begin_guest(me, id, wire, u64::MAX) {
            request.iter().for_each(|piece| self.feed_guest(guest, piece));
            self.end_request(guest);
        }
    }

    /// A piece of the reply to a request that was forwarded.
    pub(super) fn handle_reply(&mut self, peer: MemberIndex, id: u64, bytes: Bytes, last: bool) {
        let Some(forwarded) = self.forwards.get_mut(&id).filter(|forwarded| forwarded.at == peer) else {
            return;
        };
        forwarded.begun = true;
        let piece = Outcome::Piece(forwarded.forward.part, bytes, last);
        self.done.push_back((forwarded.forward.waiter, piece));
        if last {
            self.forwards.remove(&id);
        }
    }

    /// A peer is gone, and what it was running with it.
    pub(super) fn forwards_lost(&mut self, peer: MemberIndex) {
        let lost: Vec<u64> =
            self.forwards.iter().filter(|(_, forwarded)| forwarded.at == peer).map(|(id, _)| *id).collect();
        for id in lost {
            let Some(forwarded) = self.forwards.remove(&id) else { continue };
            if forwarded.forward.reads && !forwarded.begun {
                // What came of its reply came too early.
                let forwarded = Forwarded { reply: None, ..forwarded };
                self.try_forward(id, forwarded);
                continue;
            }
            let name = self.routes.name(peer);
            let text = match &forwarded.request {
                Some(request) if !request.is_over() => {
                    format!("{name} left before it had all of this: nothing was done, try again")
                }
                _ => {
                    format!("{name} left while it did this: it may be done or not, read before you try again")
                }
            };
            let refusal = Outcome::PartRefused(forwarded.forward.part, Refusal::Unavailable(text));
            self.done.push_back((forwarded.forward.waiter, refusal));
        }
    }

    /// A large value has come: reads may have waited for it.
    pub(super) fn settle_fetches_of(&mut self, key: &[u8]) {
        let of = self.fetches.iter().filter(|(_, fetch)| fetch.large > Version::ZERO && *fetch.key == *key);
        let ids: Vec<u64> = of.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.settle_fetch(id));
    }

    /// A peer is gone, and will not answer.
    pub(super) fn fetches_lost(&mut self, peer: MemberIndex) {
        let lost: Vec<u64> =
            self.fetches.iter().filter(|(_, fetch)| fetch.open.contains(&peer)).map(|(id, _)| *id).collect();
        for id in lost {
            if let Some(fetch) = self.fetches.get_mut(&id) {
                fetch.open.retain(|other| *other != peer);
            }
            self.settle_fetch(id);
        }
    }

    /// Something has waited long enough.
    pub(super) fn overdue(&mut self, due: Due) {
        match due {
            Due::Writes(reactor, client) => {
                let waiter = Waiter { reactor, client };
                let Some(writes) = self.writes.get_mut(&waiter) else { return };
                writes.late = true;
                writes.all.iter_mut().for_each(|write| write.open = 0);
                if writes.sealed {
                    self.settle(waiter);
                }
            }
            Due::Sync => self.tick(),
            Due::Request(peer, id) => self.request_stalled(peer, id),
            Due::Reply(peer, id) => self.reply_stalled(peer, id),
            Due::Guest(token) => self.handle_appeared(self.now, token, true),
            Due::Fetch(id) => {
                if let Some(fetch) = self.fetches.get_mut(&id) {
                    fetch.open.clear();
                    fetch.to_come.clear();
                    fetch.late = true;
                }
                self.settle_fetch(id);
            }
        }
    }
}

fn unconfirmed(write: Write, why: Option<String>) -> Refusal {
    let (have, need, all) = (write.confirmed + 1, write.needed + 1, write.replicas);
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    Refusal::Unavailable(format!(
        "written on {have} of {all} replicas, {need} were asked for{why}: it stays written, and the others \
         get it when they can"
    ))
}

fn unread(fetch: &Fetch) -> Refusal {
    if fetch.known >= fetch.needed {
        return Refusal::Unavailable("another replica's large value did not come in time: try again".into());
    }
    let here = usize::from(!fetch.behind);
    let (have, need, all) = (fetch.known + here, fetch.needed + here, fetch.replicas);
    let healing = if fetch.behind || fetch.known < fetch.answers.len() { " and are healed" } else { "" };
    Refusal::Unavailable(format!(
        "{have} of {all} replicas answer{healing}, {need} were asked for: try again"
    ))
}

/// What is under way, for tests of what is left behind.
impl Cluster {
    /// Bytes of requests that are not asked for yet, and of replies before which others are to come.
    pub fn held(&self) -> usize {
        let replies = self.forwards.values().filter_map(|forwarded| forwarded.reply.as_ref());
        let requests = self.forwards.values().filter_map(|forwarded| forwarded.request.as_ref());
        replies.map(|flow| flow.held()).sum::<usize>() + requests.map(|flow| flow.held()).sum::<usize>()
    }

    /// Commands that wait for peers, and what peers wait for.
    pub fn waiting(&self) -> usize {
        let maps: [usize; 3] = [self.writes.len(), self.fetches.len(), self.forwards.len()];
        maps.iter().sum::<usize>() + self.guests.len() + self.replies.len()
    }
}
