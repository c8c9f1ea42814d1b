//! Which members keep which slots. A layout is computed, the same on every node, from the members and the
//! layout before; not how data follows it.
//!
//! Each member is due a share of all replicas by its weight. A slot's replicas are on different members, and
//! no zone has more of them than it must, so a zone that is lost takes as few as possible. From the layout
//! before, as much stays where it is as the shares allow: what is too much on one member moves to where too
//! little is, one slot at a time, along the shortest chain of members if there is no slot that fits directly.
//!
//! How is in `solver`.

mod solver;

use crate::slot::SLOTS;
use solver::Solver;

/// Members of a layout, at most: a table entry has two bytes.
pub const MEMBERS_MAX: usize = 1024;
/// Replicas of a slot, at most.
pub const COPIES_MAX: usize = 16;
/// The highest weight of a member.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// No layout can be made of these members.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LayoutError {
    /// There are none that keep anything.
    #[error("no member has a weight: give one a weight above 0")]
    NoMembers,
    /// There are more than a table can name.
    #[error("{0} members, {MEMBERS_MAX} at most")]
    TooManyMembers(usize),
    /// Two have one name.
    #[error("two members are called {0}: give one another name")]
    NameTwice(String),
    /// More copies than members to keep them.
    #[error(
        "{copies} copies need {copies} members with a weight, there are {members}: lower it, or add some"
    )]
    TooManyCopies {
        /// The copies asked for.
        copies: usize,
        /// The members that may keep one.
        members: usize,
    },
    /// A number beyond its bounds.
    #[error("{0} copies: 1 to {COPIES_MAX}")]
    Copies(usize),
    /// A number beyond its bounds.
    #[error("{0} has the weight {1}: 0 to {WEIGHT_MAX}")]
    Weight(String, u32),
}

/// Who may keep replicas.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Member {
    /// Its name, which no other member has.
    pub name: String,
    /// What it is lost together with: a rack, a room, a town.
    pub zone: String,
    /// Its share, beside the others' weights; 0 keeps nothing.
    pub weight: u32,
}

/// The replicas of every slot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layout {
    /// In the order of their names.
    members: Vec<Member>,
    copies: usize,
    /// Slot by slot, `copies` members each, the primary first.
    table: Vec<u16>,
}

/// What changes from one layout to another.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// Replicas of slots that somebody must be given.
    pub moves: usize,
    /// The fewest that any layout with these shares must move.
    pub bound: usize,
    /// How many each member gains and loses, by name.
    pub members: Vec<(String, usize, usize)>,
}

impl Layout {
    /// The layout of `members` with `copies` replicas a slot, as close to `before` as their weights allow.
    /// The order of the members does not matter.
    ///
    /// # Errors
    /// The members cannot keep so many copies, or a number is out of bounds.
    pub fn new(
        mut members: Vec<Member>,
        copies: usize,
        before: Option<&Layout>,
    ) -> Result<Self, LayoutError> {
        members.sort();
        check(&members, copies)?;
        let table = Solver::new(&members, copies).solve(before);
        Ok(Layout { members, copies, table })
    }

    /// The members, in the order of their names.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Replicas a slot.
    pub fn copies(&self) -> usize {
        self.copies
    }

    /// Who keeps `slot`, the primary first: indices into `members`. Slots beyond the last wrap around.
    pub fn replicas(&self, slot: u16) -> &[u16] {
        let start = usize::from(slot) % SLOTS * self.copies;
        &self.table[start..start + self.copies]
    }

    /// How many slots each member keeps, and of how many it is the primary.
    pub fn loads(&self) -> Vec<(usize, usize)> {
        let mut loads = vec![(0, 0); self.members.len()];
        for replicas in self.table.chunks(self.copies) {
            replicas.iter().for_each(|&member| loads[usize::from(member)].0 += 1);
            loads[usize::from(replicas[0])].1 += 1;
        }
        loads
    }

    /// What has to move for this layout to follow `before`.
    pub fn plan(&self, before: &Layout) -> Plan {
        let mut names: Vec<&str> = [&self.members, &before.members]
            .into_iter()
            .flatten()
            .map(|member| member.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        let place = |layout: &Layout| -> Vec<usize> {
            let of = |member: &Member| names.binary_search(&member.name.as_str()).unwrap_or(0);
            layout.members.iter().map(of).collect()
        };
        let (now, then) = (place(self), place(before));
        let (mut gained, mut lost) = (vec![0usize; names.len()], vec![0usize; names.len()]);
        for slot in 0..SLOTS as u16 {
            let new: Vec<usize> = self.replicas(slot).iter().map(|&m| now[usize::from(m)]).collect();
            let old: Vec<usize> = before.replicas(slot).iter().map(|&m| then[usize::from(m)]).collect();
            new.iter().filter(|place| !old.contains(place)).for_each(|&place| gained[place] += 1);
            old.iter().filter(|place| !new.contains(place)).for_each(|&place| lost[place] += 1);
        }
        // Whoever keeps more than before must be given the difference, whatever moves besides.
        let bound = (0..names.len()).map(|place| gained[place].saturating_sub(lost[place])).sum();
        let members = names.iter().zip(&gained).zip(&lost);
        Plan {
            moves: gained.iter().sum(),
            bound,
            members: members.map(|((name, gained), lost)| (name.to_string(), *gained, *lost)).collect(),
        }
    }
}

fn check(members: &[Member], copies: usize) -> Result<(), LayoutError> {
    if members.len() > MEMBERS_MAX {
        return Err(LayoutError::TooManyMembers(members.len()));
    }
    if !(1..=COPIES_MAX).contains(&copies) {
        return Err(LayoutError::Copies(copies));
    }
    if let Some(pair) = members.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(LayoutError::NameTwice(pair[0].name.clone()));
    }
    if let Some(member) = members.iter().find(|member| member.weight > WEIGHT_MAX) {
        return Err(LayoutError::Weight(member.name.clone(), member.weight));
    }
    match members.iter().filter(|member| member.weight > 0).count() {
        0 => Err(LayoutError::NoMembers),
        members if members < copies => Err(LayoutError::TooManyCopies { copies, members }),
        _ => Ok(()),
    }
}
