//! Finds the table of a layout. Every step is the same on every machine: whole numbers where it matters, and
//! members in the order of their names.
//!
//! Source: Ford and Fulkerson's augmenting paths (1956), over members and not over slots, which are many; the
//! choice among equals is Thaler and Ravishankar's rendezvous hashing (1998).

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::{Layout, Member, WEIGHT_MAX};
use crate::slot::SLOTS;

/// How often primaries are looked through for a better one: after two or three times there is none.
const PRIMARY_PASSES: usize = 8;

/// A layout in the making.
pub struct Solver<'m> {
    members: &'m [Member],
    /// By member: its zone, by number.
    zones: Vec<usize>,
    copies: usize,
    /// Replicas of one slot in one zone, at most.
    zone_max: usize,
    /// By member: its name as a number.
    names: Vec<u64>,
    /// By slot: who keeps it, and who of them was the primary.
    slots: Vec<Vec<u16>>,
    primaries: Vec<Option<u16>>,
    /// By member: how many slots it keeps, and how many it is due.
    loads: Vec<usize>,
    due: Vec<usize>,
}

impl<'m> Solver<'m> {
    pub fn new(members: &'m [Member], copies: usize) -> Self {
        let mut names: Vec<&str> = members.iter().map(|member| member.zone.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let zone = |member: &Member| names.binary_search(&member.zone.as_str()).unwrap_or(0);
        let zones: Vec<usize> = members.iter().map(zone).collect();
        let mut sizes = vec![0; names.len()];
        let able = members.iter().zip(&zones).filter(|(member, _)| member.weight > 0);
        able.for_each(|(_, &zone)| sizes[zone] += 1);
        // Invariant: `copies` itself is enough, for there are as many members.
        let fits = |&most: &usize| sizes.iter().map(|&size| most.min(size)).sum::<usize>() >= copies;
        let zone_max = (1..=copies).find(fits).unwrap_or(copies);
        let loads = vec![0; members.len()];
        let slots = vec![Vec::new(); SLOTS];
        let (names, primaries) =
            (members.iter().map(|member| number(&member.name)).collect(), vec![None; SLOTS]);
        Solver { members, zones, copies, zone_max, names, slots, primaries, due: loads.clone(), loads }
    }

    /// The table, `copies` members a slot, as close to `before` as can be.
    pub fn solve(mut self, before: Option<&Layout>) -> Vec<u16> {
        if let Some(before) = before {
            self.keep(before);
        }
        self.fill();
        self.balance();
        self.primaries_first()
    }

    /// Begins with who keeps what now, as far as that is still allowed.
    fn keep(&mut self, before: &Layout) {
        let find = |old: &Member| {
            let found = self.members.binary_search_by(|member| member.name.cmp(&old.name)).ok()?;
            (self.members[found].weight > 0).then_some(found as u16)
        };
        let now: Vec<Option<u16>> = before.members.iter().map(find).collect();
        for slot in 0..SLOTS {
            let replicas = before.replicas(slot as u16);
            self.primaries[slot] = now[usize::from(replicas[0])];
            for member in replicas.iter().filter_map(|&old| now[usize::from(old)]) {
                if self.slots[slot].len() < self.copies && self.allows(slot, member, None) {
                    self.put(slot, member);
                }
            }
        }
    }

    /// Gives every slot all its replicas, to who is due most among those a slot prefers.
    fn fill(&mut self) {
        self.share_out();
        for slot in 0..SLOTS {
            while self.slots[slot].len() < self.copies {
                let allowed = (0..self.members.len() as u16).filter(|&m| self.allows(slot, m, None));
                let best = allowed.max_by_key(|&member| {
                    let missing = self.missing(member);
                    // Who has enough is taken only if nobody else may: `balance` puts it right.
                    (missing > 0, if missing > 0 { 0 } else { missing }, self.score(slot, member))
                });
                // Invariant: `zone_max` leaves room for every copy.
                let Some(best) = best else { break };
                self.put(slot, best);
            }
        }
    }

    /// Moves what is too much on one member to where too little is.
    fn balance(&mut self) {
        for member in 0..self.members.len() as u16 {
            self.give_directly(member);
        }
        for member in 0..self.members.len() as u16 {
            while self.missing(member) < 0 && self.give_along_a_chain(member) {}
        }
    }

    /// What each member is due: in proportion to its weight, but never more than all slots, nor more than its
    /// zone may keep. What that leaves is for the others, again by weight.
    fn share_out(&mut self) {
        let zones = self.zones.iter().max().map_or(0, |&last| last + 1);
        let (mut due, mut level) = (vec![0.0; self.members.len()], 0.0);
        let mut step = f64::from(WEIGHT_MAX);
        // The level is what one unit of weight is due; the sum rises with it, so it is found by halving.
        let most = (SLOTS * self.zone_max) as f64;
        let at = |level: f64, due: &mut Vec<f64>| {
            let mut sums = vec![0.0; zones];
            for (index, member) in self.members.iter().enumerate() {
                due[index] = (level * f64::from(member.weight)).min(SLOTS as f64);
                sums[self.zones[index]] += due[index];
            }
            for (index, share) in due.iter_mut().enumerate() {
                *share *= (most / sums[self.zones[index]]).min(1.0);
            }
            due.iter().sum::<f64>()
        };
        // A little less than all: where zones are full, the sum comes as close as rounding lets it, and the
        // level must not rise for nothing.
        let all = (SLOTS * self.copies) as f64 * (1.0 - 1e-9);
        for _ in 0..100 {
            if at(level + step, &mut due) <= all {
                level += step;
            }
            step /= 2.0;
        }
        at(level, &mut due);
        self.round(&due);
    }

    /// Makes whole numbers of shares: the extra ones go to who keeps more already, so that nothing moves
    /// without need, then to the largest fractions.
    fn round(&mut self, due: &[f64]) {
        let most = SLOTS * self.zone_max;
        let mut zones = vec![0; self.members.len()];
        for (index, share) in due.iter().enumerate() {
            self.due[index] = share.floor() as usize;
            zones[self.zones[index]] += self.due[index];
        }
        let mut order: Vec<usize> = (0..due.len()).filter(|&index| self.members[index].weight > 0).collect();
        // In whole thousandths: a fraction that is off by rounding alone is the same fraction.
        let fraction = |index: usize| ((due[index] - due[index].floor()) * 1000.0) as u32;
        order.sort_by_key(|&index| (self.loads[index] <= self.due[index], Reverse(fraction(index)), index));
        let mut left = SLOTS * self.copies - self.due.iter().sum::<usize>();
        while left > 0 {
            let before = left;
            for &index in &order {
                if left > 0 && self.due[index] < SLOTS && zones[self.zones[index]] < most {
                    self.due[index] += 1;
                    zones[self.zones[index]] += 1;
                    left -= 1;
                }
            }
            // Invariant: zones have room for all, so this ends; if not, a share short is no harm.
            if left == before {
                break;
            }
        }
    }

    /// Gives surplus slots of `member` to members that lack some and may have them.
    fn give_directly(&mut self, member: u16) {
        if self.missing(member) >= 0 {
            return;
        }
        let mut slots = self.slots_of(member);
        slots.sort_by_key(|&slot| self.score(slot, member));
        for slot in slots {
            if self.missing(member) >= 0 {
                return;
            }
            let able = (0..self.members.len() as u16)
                .filter(|&other| self.missing(other) > 0 && self.allows(slot, other, Some(member)));
            if let Some(other) = able.max_by_key(|&other| self.score(slot, other)) {
                self.hand_over(slot, member, other);
            }
        }
    }

    /// Passes one slot on from `member`, who passes on another, up to a member that lacks one; the shortest
    /// way, so as few as possible move. Returns whether there is a way.
    fn give_along_a_chain(&mut self, member: u16) -> bool {
        let mut came: Vec<Option<(u16, usize)>> = vec![None; self.members.len()];
        let mut queue = VecDeque::from([member]);
        while let Some(from) = queue.pop_front() {
            for slot in self.slots_of(from) {
                if self.chain(&came, member, from).any(|(_, used, _)| used == slot) {
                    continue;
                }
                for to in 0..self.members.len() as u16 {
                    let fresh = to != member && came[usize::from(to)].is_none();
                    if !fresh || !self.allows(slot, to, Some(from)) {
                        continue;
                    }
                    came[usize::from(to)] = Some((from, slot));
                    if self.missing(to) > 0 {
                        let steps: Vec<_> = self.chain(&came, member, to).collect();
                        steps.into_iter().for_each(|(from, slot, to)| self.hand_over(slot, from, to));
                        return true;
                    }
                    queue.push_back(to);
                }
            }
        }
        false
    }

    /// The steps that lead from `first` to `last`, backwards: from whom, which slot, to whom.
    fn chain<'c>(
        &self,
        came: &'c [Option<(u16, usize)>],
        first: u16,
        last: u16,
    ) -> impl Iterator<Item = (u16, usize, u16)> + use<'c> {
        let mut at = last;
        std::iter::from_fn(move || {
            let (from, slot) = came[usize::from(at)].filter(|_| at != first)?;
            Some((from, slot, std::mem::replace(&mut at, from)))
        })
    }

    /// The table. The first of a slot's replicas is its primary: who was it before, unless others are it far
    /// less often than their share.
    fn primaries_first(mut self) -> Vec<u16> {
        // How often each is the primary beyond its share, in parts of which a slot has `copies`.
        let mut excess: Vec<i64> = self.loads.iter().map(|&load| -(load as i64)).collect();
        let copies = self.copies as i64;
        for slot in 0..SLOTS {
            let (first, kept) = (self.primaries[slot], &mut self.slots[slot]);
            let place = kept.iter().position(|&member| Some(member) == first);
            let least = (0..kept.len()).min_by_key(|&place| excess[usize::from(kept[place])]);
            kept.swap(0, place.or(least).unwrap_or(0));
            excess[usize::from(kept[0])] += copies;
        }
        for _ in 0..PRIMARY_PASSES {
            for kept in &mut self.slots {
                let least =
                    (0..kept.len()).min_by_key(|&place| excess[usize::from(kept[place])]).unwrap_or(0);
                let (first, other) = (usize::from(kept[0]), usize::from(kept[least]));
                if excess[first] - excess[other] > copies {
                    kept.swap(0, least);
                    excess[first] -= copies;
                    excess[other] += copies;
                }
            }
        }
        self.slots.concat()
    }

    fn put(&mut self, slot: usize, member: u16) {
        self.slots[slot].push(member);
        self.loads[usize::from(member)] += 1;
    }

    fn hand_over(&mut self, slot: usize, from: u16, to: u16) {
        if let Some(place) = self.slots[slot].iter().position(|&member| member == from) {
            self.slots[slot][place] = to;
            self.loads[usize::from(from)] -= 1;
            self.loads[usize::from(to)] += 1;
        }
    }

    /// Whether `member` may keep `slot`, if `without` no longer does.
    fn allows(&self, slot: usize, member: u16, without: Option<u16>) -> bool {
        let kept = &self.slots[slot];
        let zone = self.zones[usize::from(member)];
        let beside = kept.iter().filter(|&&other| Some(other) != without);
        self.members[usize::from(member)].weight > 0
            && !kept.contains(&member)
            && beside.filter(|&&other| self.zones[usize::from(other)] == zone).count() < self.zone_max
    }

    /// How many slots `member` lacks; negative if it has too many.
    fn missing(&self, member: u16) -> i64 {
        self.due[usize::from(member)] as i64 - self.loads[usize::from(member)] as i64
    }

    fn slots_of(&self, member: u16) -> Vec<usize> {
        (0..SLOTS).filter(|&slot| self.slots[slot].contains(&member)).collect()
    }

    /// How much a slot prefers a member. Whole numbers, so it is the same on every machine.
    fn score(&self, slot: usize, member: u16) -> u128 {
        let hash = mix(self.names[usize::from(member)] ^ mix(slot as u64));
        u128::from(hash) * self.due[usize::from(member)] as u128
    }
}

/// Finalizer of SplitMix64, by Steele, Lea and Flood (2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A number for a name: FNV-1a, by Fowler, Noll and Vo.
fn number(name: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    mix(name.bytes().fold(0xCBF2_9CE4_8422_2325, step))
}
