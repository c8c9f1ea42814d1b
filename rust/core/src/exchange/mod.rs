//! Healing: finds what two replicas hold differently, with messages as long as the difference. Not the
//! sending of entries: those go as any other write does.
//!
//! A round between two nodes, one of which begins it:
//!
//! ```text
//! A                                   B
//! root digest, 16 bytes         -->   the same? "equal", and that is all
//!                               <--   a digest for each of 128 branches, 1 KiB
//! a sketch of the entries in    -->   what A has and B has not, and the other way round
//!   branches that differ        <--   "more cells", or the items that B wants;
//! what B wants, as writes       -->   B's own, as writes
//! ```
//!
//! Where many branches differ, that would be to look at most of what there is. So a sketch of the digests of
//! their slots comes in between, or if nearly all differ, the digests themselves; what is looked at then is
//! in slots that differ. A slot that one side has no entry of is not sketched: the other sends all of it.
//!
//! Entries younger than the time a write takes are left alone: they are probably on their way. Whatever goes
//! wrong, the next round finds what is left.

mod digests;
mod message;
mod puts;

use std::collections::VecDeque;

use crate::cluster::Now;
use crate::entry::View;
use crate::merkle::{Digest, FANOUT};
use crate::sketch::{Cell, Sketch};
use crate::slots::Scope;
use crate::store::Store;
use digests::sketch_digests;
pub use message::{ExchangeError, Message};
use message::{Part, Region};
use puts::Puts;

/// Entries looked at in one step: some tens of microseconds.
const STEP: usize = 64;
/// Cells of the first sketch: one datagram.
const CELLS_MIN: u64 = 64;
/// Cells of the longest sketch; beyond it, part of the slots are compared, and the rest in the next round.
const CELLS_MAX: u64 = 65_536;
/// Cells in one message.
const CELLS_A_MESSAGE: usize = 896;
/// Items asked for in one message.
const ITEMS_A_MESSAGE: usize = 2000;
/// Slots in one message.
const SLOTS_A_MESSAGE: usize = 4000;
/// Branches that differ, from which on their slots are compared: by then about 27 entries differ.
const BRANCHES_MAX: usize = 24;
/// A round that waits this long for the other side is given up.
const PATIENCE_MS: u64 = 30_000;

/// What an exchange keeps to.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeConfig {
    /// Entries younger than this are left alone.
    pub settle_ms: u64,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ExchangeStats {
    /// Rounds that came to an end.
    pub rounds: u64,
    /// Of these, rounds that found no difference.
    pub equal: u64,
    /// Bytes of digests, sketches and items, sent and received.
    pub bytes: u64,
    /// Messages, sent and received.
    pub messages: u64,
    /// Entries that the peer lacked.
    pub sent: u64,
    /// Entries that this node lacked, and asked for.
    pub wanted: u64,
    /// When the last round that found no difference began, on `Now::ms`.
    pub equal_ms: Option<u64>,
}

/// What a round came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Both held the same when the round began, at this time.
    Equal(u64),
    /// They did not, and what was found is on its way.
    Healed,
}

/// What is done in steps.
#[derive(Debug)]
enum Work {
    /// Sketches what there is, to be sent, or to be compared with what came.
    Sketch { round: u32, scope: Scope, part: Part, cursor: u64, sketch: Sketch, theirs: Option<Sketch> },
    /// Puts entries.
    Put(Puts),
}

/// Where the round is that this side takes part in.
#[derive(Debug, Default)]
struct Round {
    number: u32,
    began_ms: u64,
    /// When something last happened.
    active_ms: u64,
    /// The two do not hold the same.
    differs: bool,
    /// What was sketched last.
    part: Option<Part>,
    /// The cells that have come of a sketch that is being received.
    theirs: Option<Sketch>,
    /// Digests of slots that are being received.
    slots: Vec<(u16, u64, u32)>,
}

/// The healing of one placement with one peer.
#[derive(Debug)]
pub struct Exchange {
    config: ExchangeConfig,
    scope: Scope,
    number: u32,
    /// The round that this side began.
    ours: Option<Round>,
    /// The round that the peer began.
    theirs: Option<Round>,
    work: VecDeque<Work>,
    out: VecDeque<Vec<u8>>,
    outcomes: VecDeque<Outcome>,
    stats: ExchangeStats,
}

impl Exchange {
    /// The healing of what `scope` says that both keep. One of the two is the `first`: by that they tell
    /// their rounds apart.
    pub fn new(config: ExchangeConfig, scope: Scope, first: bool) -> Self {
        Exchange {
            config,
            scope,
            number: u32::from(first),
            ours: None,
            theirs: None,
            work: VecDeque::new(),
            out: VecDeque::new(),
            outcomes: VecDeque::new(),
            stats: ExchangeStats::default(),
        }
    }

    /// What was counted.
    pub fn stats(&self) -> ExchangeStats {
        self.stats
    }

    /// The placement.
    pub fn group(&self) -> u8 {
        self.scope.group
    }

    /// Begins a round, unless one is under way.
    pub fn start(&mut self, now_ms: u64, store: &Store) {
        let busy = self.ours.as_ref().is_some_and(|round| now_ms < round.active_ms + PATIENCE_MS);
        if busy || !self.work.is_empty() {
            return;
        }
        self.number = self.number.wrapping_add(2);
        let number = self.number;
        self.ours = Some(Round { number, began_ms: now_ms, active_ms: now_ms, ..Round::default() });
        self.send(&Message::Root { round: number, root: root(&store.branch_digests(&self.scope)) });
    }

    /// The connection broke: whatever was under way is over.
    pub fn reset(&mut self) {
        (self.ours, self.theirs) = (None, None);
        self.work.clear();
        self.out.clear();
    }

    /// Whether a round has found a difference and is under way, and has not been given up.
    pub fn is_healing(&self, now_ms: u64) -> bool {
        let active = |round: &Round| round.differs && now_ms < round.active_ms + PATIENCE_MS;
        !self.work.is_empty() || [&self.ours, &self.theirs].into_iter().flatten().any(active)
    }

    /// The next message to the peer: at most 16 KiB.
    pub fn poll_message(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// What the next round that ended came to.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// A message of the peer. A node that is `busy` healing with another peer ends the round where it would
    /// have something to do: what the other sends need not come twice.
    ///
    /// # Errors
    /// It is none. What is under way is not affected.
    pub fn handle_message(
        &mut self,
        now: Now,
        store: &Store,
        bytes: &[u8],
        busy: bool,
    ) -> Result<(), ExchangeError> {
        let (message, now_ms) = (Message::decode(bytes)?, now.ms);
        self.stats.bytes += bytes.len() as u64;
        self.stats.messages += 1;
        match message {
            Message::Root { round, root } => self.handle_root(now_ms, store, round, root, busy),
            Message::Equal { round } => {
                if let Some(ours) = self.ours.take_if(|ours| ours.number == round) {
                    self.end(Outcome::Equal(ours.began_ms));
                }
            }
            Message::Branches { round, .. } if busy => {
                self.ours.take_if(|ours| ours.number == round);
                self.send(&Message::Done { round });
            }
            Message::Branches { round, digests } => self.handle_branches(now, store, round, &digests),
            Message::Slots { round, digests, last } => self.handle_slots(now, store, round, digests, last)?,
            Message::Sketch { round, part, from, end, cells } => {
                self.handle_sketch(now_ms, round, part, (from, end), &cells)?;
            }
            Message::More { round, part, end } => match part.region {
                _ if !self.touch(now_ms, round) => {}
                Region::Digests(branches) => self.send_digests(store, round, branches),
                Region::Branches(_) | Region::Slots(_) => self.sketch(round, part, end, None),
            },
            Message::Want { round, items } => {
                let Some(current) = self.round(round) else { return Ok(()) };
                current.active_ms = now_ms;
                let Some(part) = current.part.clone() else { return Err(ExchangeError) };
                self.stats.sent += items.len() as u64;
                let (scope, items) = (part.region.scope(&self.scope), Some(items.into_iter().collect()));
                self.work.push_back(Work::Put(Puts::new(scope, items, false)));
            }
            Message::Ship { round, slots } => {
                self.touch(now_ms, round);
                let all = slots.is_empty();
                let scope = if all { self.scope.clone() } else { Region::Slots(slots).scope(&self.scope) };
                self.work.push_back(Work::Put(Puts::new(scope, None, all)));
            }
            Message::Done { round } => {
                let is_it = |of: &mut Round| of.number == round;
                if self.ours.take_if(is_it).or_else(|| self.theirs.take_if(is_it)).is_some() {
                    self.end(Outcome::Healed);
                }
            }
        }
        Ok(())
    }

    /// Does a piece of what is to be done: some tens of microseconds. `put` sends an entry to the peer, as a
    /// write; it returns false if it cannot now, and is asked again with the same entry later. Returns
    /// whether there is more to be done.
    pub fn work(
        &mut self,
        now_unix_ms: u64,
        store: &Store,
        put: &mut dyn FnMut(&[u8], &View<'_>) -> bool,
    ) -> bool {
        let Some(work) = self.work.pop_front() else { return false };
        match work {
            Work::Sketch { round, scope, part, cursor, mut sketch, theirs } => {
                let next = match &part.region {
                    Region::Digests(bits) => {
                        sketch_digests(store, &scope, (round, *bits), cursor, &mut sketch)
                    }
                    Region::Branches(_) | Region::Slots(_) => {
                        store.scan_scope(&scope, cursor, STEP, |key, view| {
                            if part.takes(view) {
                                sketch.add(item(store, key, view));
                            }
                        })
                    }
                };
                match (next, theirs) {
                    (Some(cursor), theirs) => {
                        self.work.push_front(Work::Sketch { round, scope, part, cursor, sketch, theirs });
                    }
                    (None, Some(theirs)) if matches!(part.region, Region::Digests(_)) => {
                        self.compare_digests(now_unix_ms, round, &scope, part, sketch.difference(&theirs));
                    }
                    (None, Some(theirs)) => self.compare(round, scope, part, &sketch, &theirs),
                    (None, None) => self.send_sketch(round, part, &sketch),
                }
            }
            Work::Put(mut puts) => {
                let full = puts.put_some(now_unix_ms, self.config.settle_ms, store, put);
                match (puts.is_over(), puts.ends_round()) {
                    (false, _) => self.work.push_front(Work::Put(puts)),
                    (true, ends) => {
                        self.stats.sent += puts.uncounted();
                        ends.then(|| self.finish());
                    }
                }
                return !full && !self.work.is_empty();
            }
        }
        !self.work.is_empty()
    }

    fn handle_root(&mut self, now_ms: u64, store: &Store, round: u32, theirs: Digest, busy: bool) {
        let branches = store.branch_digests(&self.scope);
        if root(&branches) == theirs {
            self.send(&Message::Equal { round });
            return self.end(Outcome::Equal(now_ms));
        }
        if busy {
            return self.send(&Message::Done { round });
        }
        self.work.clear();
        let (began_ms, active_ms) = (now_ms, now_ms);
        self.theirs = Some(Round { number: round, began_ms, active_ms, differs: true, ..Round::default() });
        let digests = branches.into_iter().map(short).collect();
        self.send(&Message::Branches { round, digests });
    }

    /// The peer's digests of branches: sketches those that differ, or compares their slots first.
    fn handle_branches(&mut self, now: Now, store: &Store, round: u32, theirs: &[u64]) {
        if !self.touch(now.ms, round) {
            return;
        }
        self.round(round).into_iter().for_each(|current| current.differs = true);
        let ours = store.branch_digests(&self.scope);
        // The digest of nothing: who has nothing is sent all there is, without further ado.
        if theirs.iter().all(|digest| *digest == 0) {
            let scope = self.scope.clone();
            return self.work.push_back(Work::Put(Puts::new(scope, None, true)));
        }
        if ours.iter().all(|digest| *digest == 0) {
            return self.send(&Message::Ship { round, slots: Vec::new() });
        }
        let differ: Vec<usize> = (0..FANOUT).filter(|&index| short(ours[index]) != theirs[index]).collect();
        // Written meanwhile, or the digests differ where this side looks no more: the next round tells.
        let bits = differ.iter().fold(0, |all, index| all | 1 << index);
        let expected = balls(differ.len(), FANOUT);
        let (region, cells) = match differ.len() < BRANCHES_MAX {
            true => (Region::Branches(bits), cells_for(expected)),
            // Each has one digest here and another one there; and it is a guess.
            false => (Region::Digests(bits), cells_for(3 * expected)),
        };
        self.sketch(round, self.part(now.unix_ms, region), cells, None);
    }

    /// What is sketched of a region: all that has had the time to arrive.
    fn part(&self, now_unix_ms: u64, region: Region) -> Part {
        Part { region, until_ms: now_unix_ms.saturating_sub(self.config.settle_ms) }
    }

    /// Has the peer sketch a part.
    fn ask(&mut self, round: u32, part: Part, end: u64) {
        self.round(round).into_iter().for_each(|current| current.part = Some(part.clone()));
        self.send(&Message::More { round, part, end });
    }

    /// Begins a sketch, to be sent, or to be compared with `theirs`. It is made in one pass, so that of a key
    /// that is written meanwhile all cells have the same; which is also why cells are never added to one that
    /// did not suffice.
    fn sketch(&mut self, round: u32, part: Part, end: u64, theirs: Option<Sketch>) {
        self.round(round).into_iter().for_each(|current| current.part = Some(part.clone()));
        let (scope, sketch) = (part.region.scope(&self.scope), Sketch::new(end.min(CELLS_MAX)));
        self.work.push_back(Work::Sketch { round, scope, part, cursor: 0, sketch, theirs });
    }

    fn handle_sketch(
        &mut self,
        now_ms: u64,
        round: u32,
        part: Option<Part>,
        (from, end): (u64, u64),
        cells: &[Cell],
    ) -> Result<(), ExchangeError> {
        if end > CELLS_MAX {
            return Err(ExchangeError);
        }
        let Some(current) = self.round(round) else { return Ok(()) };
        current.active_ms = now_ms;
        let part = part.or_else(|| current.part.clone()).ok_or(ExchangeError)?;
        let mut theirs = current.theirs.take().unwrap_or_default();
        if theirs.len() != from {
            return Err(ExchangeError);
        }
        theirs.extend(cells.iter().copied());
        if theirs.len() < end {
            (current.part, current.theirs) = (Some(part), Some(theirs));
            return Ok(());
        }
        self.sketch(round, part, theirs.len(), Some(theirs));
        Ok(())
    }

    /// Both sketches are there: asks for a longer one, or for what this side lacks, and puts what the peer
    /// lacks.
    fn compare(&mut self, round: u32, scope: Scope, part: Part, ours: &Sketch, theirs: &Sketch) {
        let Some((surplus, lack)) = ours.difference(theirs) else {
            if theirs.len() >= CELLS_MAX {
                // More than fits: all of it is exchanged.
                self.send(&Message::Ship {
                    round,
                    slots: scope.slots.iter().take(SLOTS_A_MESSAGE).collect(),
                });
                return self.work.push_back(Work::Put(Puts::new(scope, None, true)));
            }
            return self.ask(round, part, (theirs.len() * 2).min(CELLS_MAX));
        };
        self.stats.sent += surplus.len() as u64;
        self.stats.wanted += lack.len() as u64;
        for items in lack.chunks(ITEMS_A_MESSAGE) {
            self.send(&Message::Want { round, items: items.to_vec() });
        }
        let items = Some(surplus.into_iter().collect());
        self.work.push_back(Work::Put(Puts::new(scope, items, true)));
    }

    /// This side has put all it had to: the round is over.
    fn finish(&mut self) {
        if let Some(round) = self.theirs.take().or_else(|| self.ours.take()) {
            self.send(&Message::Done { round: round.number });
            self.end(Outcome::Healed);
        }
    }

    fn end(&mut self, outcome: Outcome) {
        self.stats.rounds += 1;
        if let Outcome::Equal(began_ms) = outcome {
            self.stats.equal += 1;
            self.stats.equal_ms = self.stats.equal_ms.max(Some(began_ms));
        }
        self.outcomes.push_back(outcome);
    }

    /// Something happened in a round; tells whether it is under way.
    fn touch(&mut self, now_ms: u64, round: u32) -> bool {
        match self.round(round) {
            Some(round) => {
                round.active_ms = now_ms;
                true
            }
            None => false,
        }
    }

    fn round(&mut self, number: u32) -> Option<&mut Round> {
        let rounds = [&mut self.ours, &mut self.theirs];
        rounds.into_iter().flatten().find(|round| round.number == number)
    }

    fn send_sketch(&mut self, round: u32, part: Part, sketch: &Sketch) {
        let (mut from, end) = (0, sketch.len());
        // Who asked for slots knows which.
        let mut part = Some(part).filter(|part| !matches!(part.region, Region::Slots(_)));
        for cells in sketch.cells().chunks(CELLS_A_MESSAGE) {
            let part = part.take();
            self.send(&Message::Sketch { round, part, from, end, cells: cells.to_vec() });
            from += cells.len() as u64;
        }
    }

    fn send(&mut self, message: &Message) {
        let bytes = message.encode();
        self.stats.bytes += bytes.len() as u64;
        self.stats.messages += 1;
        self.out.push_back(bytes);
    }
}

/// An entry as a number: half of its digest, so it is spread evenly, and nobody can choose it.
fn item(store: &Store, key: &[u8], view: &View<'_>) -> u64 {
    short(store.digest_key().of(key, view))
}

fn short(digest: Digest) -> u64 {
    digest as u64
}

fn root(branches: &[Digest]) -> Digest {
    branches.iter().fold(0, |root, branch| root ^ branch)
}

/// About how many balls were thrown into `boxes` of which `hit` have one or more.
fn balls(hit: usize, boxes: usize) -> usize {
    let (hit, boxes) = (hit.min(boxes.saturating_sub(1)) as f64, boxes.max(1) as f64);
    (-boxes * (1.0 - hit / boxes).ln()).ceil() as usize
}

/// Cells that probably suffice for so many differences: 1.35 each where they are many (the paper's figure 5),
/// more where they are few.
fn cells_for(differences: usize) -> u64 {
    let cells = (differences as u64 * 3 / 2 + 34).next_multiple_of(32);
    cells.clamp(CELLS_MIN, CELLS_MAX)
}

#[cfg(test)]
mod tests;
