//! Which slots two replicas hold differently: a sketch of their digests, or where that does not suffice, all
//! of them. Not which entries.

use std::collections::BTreeSet;

use super::message::{DIGESTS_MAX, Part, Region};
use super::puts::Puts;
use super::{CELLS_MAX, Exchange, ExchangeError, Message, SLOTS_A_MESSAGE, Work, balls, cells_for, short};
use crate::cluster::Now;
use crate::merkle::{Digest, FANOUT};
use crate::sketch::Sketch;
use crate::slot::SLOTS;
use crate::slots::{Scope, SlotSet};
use crate::store::Store;

/// Branches whose digests are sketched in one step: some tens of microseconds.
const DIGESTS_STEP: usize = 2;

impl Exchange {
    /// The sketch of the digests of slots did not suffice: sends the digests.
    pub(super) fn send_digests(&mut self, store: &Store, round: u32, branches: u128) {
        let mut digests = Vec::new();
        for branch in (0..FANOUT).filter(|branch| branches >> branch & 1 == 1) {
            let of = store.slot_digests(&self.scope, branch).into_iter().enumerate();
            digests.extend(of.map(|(slot, (digest, count))| {
                ((branch * FANOUT + slot) as u16, short(digest), count.min(u32::MAX as usize) as u32)
            }));
        }
        let chunks: Vec<_> = digests.chunks(DIGESTS_MAX).collect();
        for (index, chunk) in chunks.iter().enumerate() {
            let last = index + 1 == chunks.len();
            self.send(&Message::Slots { round, digests: chunk.to_vec(), last });
        }
    }

    /// Which slots differ is known, or if it is not, the digests are asked for.
    pub(super) fn compare_digests(
        &mut self,
        now_unix_ms: u64,
        round: u32,
        scope: &Scope,
        part: Part,
        difference: Option<(Vec<u64>, Vec<u64>)>,
    ) {
        let Some((ours, theirs)) = difference else {
            return self.send(&Message::More { round, part, end: 0 });
        };
        let slots = |items: Vec<u64>| items.into_iter().map(slot_of).collect::<BTreeSet<u16>>();
        let (ours, theirs) = (slots(ours), slots(theirs));
        let ship = ours.difference(&theirs).copied().collect();
        let want = theirs.difference(&ours).copied().collect();
        let both: Vec<u16> = ours.intersection(&theirs).copied().collect();
        self.ship(round, ship, want);
        // As in `handle_slots`.
        let expected = 2 * balls(both.len(), scope.slots.len());
        self.ask_for_slots(now_unix_ms, round, both, cells_for(expected));
    }

    /// The peer's digests of slots: ships those that one side has nothing of, and sketches others that
    /// differ.
    pub(super) fn handle_slots(
        &mut self,
        now: Now,
        store: &Store,
        round: u32,
        digests: Vec<(u16, u64, u32)>,
        last: bool,
    ) -> Result<(), ExchangeError> {
        let Some(theirs) = self.theirs.as_mut().filter(|theirs| theirs.number == round) else {
            return Ok(());
        };
        theirs.active_ms = now.ms;
        theirs.slots.extend(digests);
        if theirs.slots.len() > SLOTS {
            return Err(ExchangeError);
        }
        if !last {
            return Ok(());
        }
        let all = std::mem::take(&mut theirs.slots);
        let (mut ship, mut want, mut both) = (Vec::new(), Vec::new(), Vec::new());
        let mut branch = (usize::MAX, Vec::new());
        for (slot, digest, count) in &all {
            let index = usize::from(*slot) % SLOTS / FANOUT;
            if branch.0 != index {
                branch = (index, store.slot_digests(&self.scope, index));
            }
            let (ours, held) = branch.1[usize::from(*slot) % FANOUT];
            match (short(ours) == *digest, held, *count) {
                (true, ..) => {}
                (_, _, 0) => ship.push(*slot),
                (_, 0, _) => want.push(*slot),
                (_, held, count) => both.push((*slot, held.max(count as usize))),
            }
        }
        self.ship(round, ship, want);
        let full = both.len() * 10 > all.len() * 9;
        // An entry that differs is one thing here and another one there; and one sketch must suffice.
        let differ = (2 * balls(both.len(), all.len())).min(CELLS_MAX as usize * 5 / 8);
        let mut expected = if full { 0 } else { differ };
        let mut slots = Vec::new();
        for (slot, entries) in both {
            // Where all slots differ, nearly all entries may.
            expected += if full { entries } else { 0 };
            if !slots.is_empty() && cells_for(expected) >= CELLS_MAX {
                break;
            }
            slots.push(slot);
        }
        let cells = if full { cells_for(expected / 8) } else { cells_for(expected) };
        self.ask_for_slots(now.unix_ms, round, slots, cells);
        Ok(())
    }

    /// Sends all there is of the slots that only this side has something of, and asks for the others.
    fn ship(&mut self, round: u32, ours: Vec<u16>, theirs: Vec<u16>) {
        for slots in theirs.chunks(SLOTS_A_MESSAGE) {
            self.send(&Message::Ship { round, slots: slots.to_vec() });
        }
        if !ours.is_empty() {
            let scope = Region::Slots(ours).scope(&self.scope);
            self.work.push_back(Work::Put(Puts::new(scope, None, false)));
        }
    }

    /// Has the peer sketch slots that differ, or as many of them as are dealt with at once.
    fn ask_for_slots(&mut self, now_unix_ms: u64, round: u32, mut slots: Vec<u16>, cells: u64) {
        if slots.is_empty() {
            let scope = Scope { group: self.scope.group, slots: SlotSet::new() };
            return self.work.push_back(Work::Put(Puts::new(scope, None, true)));
        }
        slots.truncate(SLOTS_A_MESSAGE);
        self.ask(round, self.part(now_unix_ms, Region::Slots(slots)), cells);
    }
}

/// Adds the digests of the slots of a few branches from `cursor` on, and returns where to go on.
pub(super) fn sketch_digests(
    store: &Store,
    scope: &Scope,
    (round, branches): (u32, u128),
    cursor: u64,
    sketch: &mut Sketch,
) -> Option<u64> {
    let mut differ = (cursor as usize..FANOUT).filter(|branch| branches >> branch & 1 == 1);
    for branch in differ.by_ref().take(DIGESTS_STEP) {
        for (place, (digest, _)) in store.slot_digests(scope, branch).into_iter().enumerate() {
            if digest != 0 {
                sketch.add(slot_item(round, (branch * FANOUT + place) as u16, digest));
            }
        }
    }
    differ.next().map(|branch| branch as u64)
}

/// A slot and part of its digest as a number; another part in each round, so that what two digests happen to
/// have in common hides nothing for long.
fn slot_item(round: u32, slot: u16, digest: Digest) -> u64 {
    ((digest >> (round % 64)) as u64) << SLOTS.ilog2() | u64::from(slot)
}

fn slot_of(item: u64) -> u16 {
    (item % SLOTS as u64) as u16
}
