//! Where keys belong: the members, the layout of each keyspace, and which of the members this node is. Not
//! who is alive: that is the cluster's to know.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::keyspace::{Acks, Keyspace, Keyspaces};
use crate::layout::{Layout, LayoutError, Member};
use crate::slot::{SLOTS, key_slot};
use crate::slots::{Scope, SlotSet};
use crate::version::NodeId;

/// A member's place in the order of their names.
pub type MemberIndex = u16;

/// Where keys belong.
#[derive(Debug)]
pub struct Routes {
    me: MemberIndex,
    names: Vec<String>,
    ids: Vec<NodeId>,
    keyspaces: Keyspaces,
    /// Where Redis's clients find each, `host:port`.
    doors: Vec<Option<String>>,
    /// One for each keyspace.
    layouts: Vec<Arc<Layout>>,
    /// By member: as `collected_by`.
    collected: Vec<SlotSet>,
    /// By member: whether it is there, as far as this node knows.
    up: Vec<AtomicBool>,
    /// Whether this node keeps every key.
    keeps_all: bool,
}

impl Routes {
    /// The routes of the member called `me` among `members`; `ids` has a node's id for its name.
    ///
    /// # Errors
    /// The members cannot keep as many copies as a keyspace asks for.
    pub fn new(
        mut members: Vec<Member>,
        me: &str,
        keyspaces: Keyspaces,
        ids: impl Fn(&str) -> NodeId,
    ) -> Result<Self, LayoutError> {
        members.sort();
        let keepers = members.iter().filter(|member| member.weight > 0).count();
        let mut made: Vec<(usize, Arc<Layout>)> = Vec::new();
        let mut layouts = Vec::new();
        for keyspace in keyspaces.iter() {
            let copies = if keyspace.copies == 0 { keepers } else { keyspace.copies };
            if !made.iter().any(|(of, _)| *of == copies) {
                made.push((copies, Arc::new(Layout::new(members.clone(), copies, None)?)));
            }
            layouts.extend(made.iter().find(|(of, _)| *of == copies).map(|(_, layout)| Arc::clone(layout)));
        }
        let names: Vec<String> = members.into_iter().map(|member| member.name).collect();
        let me = names.iter().position(|name| name == me).ok_or(LayoutError::NoMembers)?;
        let ids = names.iter().map(|name| ids(name)).collect();
        let doors = vec![None; names.len()];
        let collected =
            (0..names.len()).map(|member| collected_by(&layouts, member as MemberIndex)).collect();
        let up = (0..names.len()).map(|member| AtomicBool::new(member == me)).collect();
        let mine = |layout: &Arc<Layout>| layout.loads()[me].0 == SLOTS;
        let keeps_all = layouts.iter().all(mine);
        Ok(Routes { me: me as MemberIndex, names, ids, keyspaces, doors, layouts, collected, up, keeps_all })
    }

    /// The same, with where Redis's clients find each member: `host:port`.
    pub fn with_doors(self, doors: Vec<Option<String>>) -> Self {
        Routes { doors, ..self }
    }

    /// A member is there, or not any more.
    pub fn set_up(&self, member: MemberIndex, up: bool) {
        self.up[usize::from(member)].store(up, Relaxed);
    }

    /// Whether a member is there, as far as this node knows.
    pub fn is_up(&self, member: MemberIndex) -> bool {
        self.up.get(usize::from(member)).is_some_and(|up| up.load(Relaxed))
    }

    /// Where a client of Redis's finds the first replica of `key` that is there, if it can.
    pub fn door(&self, key: &[u8]) -> Option<&str> {
        let first = *self.replicas(key).iter().find(|member| self.is_up(**member))?;
        self.doors.get(usize::from(first))?.as_deref()
    }

    /// This node.
    pub fn me(&self) -> MemberIndex {
        self.me
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are no members, which cannot be: this node is one.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// A member's name.
    pub fn name(&self, member: MemberIndex) -> &str {
        self.names.get(usize::from(member)).map_or("?", String::as_str)
    }

    /// Whose versions carry this id.
    pub fn member_of(&self, id: NodeId) -> Option<MemberIndex> {
        self.ids.iter().position(|other| *other == id).map(|index| index as MemberIndex)
    }

    /// The rules of `key`.
    pub fn rules(&self, key: &[u8]) -> &Keyspace {
        self.keyspaces.get(self.keyspaces.index_of(key))
    }

    /// Who keeps `key`, the primary first.
    pub fn replicas(&self, key: &[u8]) -> &[MemberIndex] {
        self.layouts[self.keyspaces.index_of(key)].replicas(key_slot(key))
    }

    /// Whether this node keeps `key`.
    pub fn is_mine(&self, key: &[u8]) -> bool {
        self.replicas(key).contains(&self.me)
    }

    /// Whether this node keeps every key: then nobody else need be asked which there are.
    pub fn keeps_all(&self) -> bool {
        self.keeps_all
    }

    /// The fewest replicas that a key has.
    pub fn copies_min(&self) -> usize {
        self.layouts.iter().map(|layout| layout.copies()).min().unwrap_or(0)
    }

    /// The replicas of each slot, for each keyspace.
    pub fn all_replicas(&self) -> impl Iterator<Item = &[MemberIndex]> {
        self.layouts.iter().flat_map(|layout| (0..SLOTS as u16).map(|slot| layout.replicas(slot)))
    }

    /// What this node and another one both keep, by placement.
    pub fn shared(&self, peer: MemberIndex) -> Vec<Scope> {
        let mut scopes: Vec<Scope> = Vec::new();
        for (keyspace, layout) in self.keyspaces.iter().zip(&self.layouts) {
            if scopes.iter().any(|scope| scope.group == keyspace.group) {
                continue;
            }
            let both = |slot: &u16| {
                let replicas = layout.replicas(*slot);
                replicas.contains(&self.me) && replicas.contains(&peer)
            };
            let slots: SlotSet = (0..SLOTS as u16).filter(both).collect();
            scopes.push(Scope { group: keyspace.group, slots });
        }
        scopes.retain(|scope| !scope.slots.is_empty());
        scopes
    }

    /// The slots whose deletes `member` decides to forget: those of which it is the primary, in the placement
    /// with the fewest copies, and which it keeps in all placements, so that it hears of every replica.
    pub fn collected_by(&self, member: MemberIndex) -> &SlotSet {
        &self.collected[usize::from(member)]
    }

    /// How many other replicas must have confirmed a write, or been asked for a read, of so many in all.
    pub fn others_needed(acks: Acks, replicas: usize) -> usize {
        match acks {
            Acks::One => 0,
            Acks::Quorum => replicas / 2,
            Acks::All => replicas.saturating_sub(1),
        }
    }
}

fn collected_by(layouts: &[Arc<Layout>], member: MemberIndex) -> SlotSet {
    let fewest = layouts.iter().min_by_key(|layout| layout.copies());
    let collects = |slot: &u16| {
        fewest.is_some_and(|layout| layout.replicas(*slot).first() == Some(&member))
            && layouts.iter().all(|layout| layout.replicas(*slot).contains(&member))
    };
    (0..SLOTS as u16).filter(collects).collect()
}
