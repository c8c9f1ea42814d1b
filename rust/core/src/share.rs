//! Which of its replicas answers for a key where all keys are asked for, so that each comes once. Not the
//! asking: that is in `walk`.

use crate::routes::{MemberIndex, Routes};

/// Who answers for which keys. The same on all nodes that are told the same: they have the same layouts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Share {
    /// Who answers for all that it keeps.
    first: Option<MemberIndex>,
    /// By member: whether it is up. Of those that are, the first replica answers.
    up: Vec<bool>,
}

impl Share {
    /// As this node sees it now; `first` answers for all that it keeps.
    pub fn new(routes: &Routes, first: Option<MemberIndex>) -> Self {
        let up = (0..routes.len()).map(|member| routes.is_up(member as MemberIndex)).collect();
        Share { first, up }
    }

    /// The same, as if a member were not up.
    pub fn without(&self, member: MemberIndex) -> Self {
        let up = self.up.iter().enumerate().map(|(index, up)| *up && index != usize::from(member)).collect();
        Share { first: self.first.filter(|first| *first != member), up }
    }

    /// Who answers for a key with these replicas; `None` if none of them is up.
    pub fn keeper(&self, replicas: &[MemberIndex]) -> Option<MemberIndex> {
        let first = self.first.filter(|first| replicas.contains(first));
        let is_up = |member: &MemberIndex| self.up.get(usize::from(*member)) == Some(&true);
        first.or_else(|| replicas.iter().copied().find(is_up))
    }

    /// Those that are up.
    pub fn members(&self) -> impl Iterator<Item = MemberIndex> {
        let all = self.up.iter().enumerate();
        all.filter(|(_, up)| **up).map(|(member, _)| member as MemberIndex)
    }

    /// Who would have to come back before somebody answers for every key.
    pub fn missing<'r>(&self, routes: &'r Routes) -> Vec<&'r str> {
        // Each key has its copies on different members: with fewer away, one of them is there.
        let away = self.up.iter().filter(|up| !**up).count();
        if away < routes.copies_min() {
            return Vec::new();
        }
        let lost = routes.all_replicas().filter(|replicas| self.keeper(replicas).is_none());
        let mut missing: Vec<MemberIndex> = lost.flatten().copied().collect();
        missing.sort_unstable();
        missing.dedup();
        missing.into_iter().map(|member| routes.name(member)).collect()
    }

    /// What another node is told: `first`, and a hexadecimal digit for four members.
    pub fn encode(&self) -> (String, String) {
        let first = self.first.map_or_else(String::new, |first| first.to_string());
        let digit = |four: &[bool]| {
            let bits = four.iter().enumerate().fold(0, |bits, (place, up)| bits | u32::from(*up) << place);
            char::from_digit(bits, 16)
        };
        (first, self.up.chunks(4).filter_map(digit).collect())
    }

    /// What `encode` made, if it did.
    pub fn decode(routes: &Routes, first: &[u8], up: &[u8]) -> Option<Self> {
        let first = match std::str::from_utf8(first).ok()? {
            "" => None,
            text => Some(text.parse().ok().filter(|first| usize::from(*first) < routes.len())?),
        };
        if up.len() != routes.len().div_ceil(4) {
            return None;
        }
        let mut all = Vec::new();
        for byte in up {
            let bits = char::from(*byte).to_digit(16)?;
            all.extend((0..4).map(|place| bits & 1 << place != 0));
        }
        all.truncate(routes.len());
        Some(Share { first, up: all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::{Keyspace, Keyspaces};
    use crate::layout::{LayoutError, Member};
    use crate::version::NodeId;
    use proptest::prelude::*;

    fn routes(count: usize) -> Result<Routes, LayoutError> {
        let member = |index| Member { name: format!("n{index:02}"), weight: 1, zone: String::new() };
        let space = |prefix: &str, copies| Keyspace { prefix: prefix.into(), copies, ..Keyspace::default() };
        let keyspaces = Keyspaces::new(vec![space("", 2), space("three/", 3)]);
        Routes::new((0..count).map(member).collect(), "n00", keyspaces, |_| NodeId(1))
    }

    proptest! {
        /// Whoever is up: a member that is up and keeps it, the coordinator if it does; else it is missing.
        #[test]
        fn one_replica_answers_for_each_key(
            count in 3usize..10, up in proptest::collection::vec(any::<bool>(), 9), first in 0u16..3,
        ) {
            let routes = routes(count).map_err(|error| TestCaseError::fail(error.to_string()))?;
            (1..count).for_each(|member| routes.set_up(member as MemberIndex, up[member - 1]));
            let first = Some(first).filter(|first| routes.is_up(*first));
            let share = Share::new(&routes, first);
            let (told, bits) = share.encode();
            prop_assert_eq!(Share::decode(&routes, told.as_bytes(), bits.as_bytes()), Some(share.clone()));
            let mut all_kept = true;
            for replicas in routes.all_replicas() {
                match share.keeper(replicas) {
                    Some(keeper) => {
                        prop_assert!(replicas.contains(&keeper) && routes.is_up(keeper));
                        prop_assert!(first.is_none_or(|first| first == keeper || !replicas.contains(&first)));
                    }
                    None => {
                        all_kept = false;
                        prop_assert!(replicas.iter().all(|member| !routes.is_up(*member)));
                        let missing = share.missing(&routes);
                        prop_assert!(replicas.iter().all(|member| missing.contains(&routes.name(*member))));
                    }
                }
                if !all_kept { break }
            }
            prop_assert_eq!(share.missing(&routes).is_empty(), all_kept);
        }
    }

    #[test]
    fn what_another_cluster_would_say_is_refused() -> Result<(), LayoutError> {
        let routes = routes(5)?;
        for (first, up) in [("5", "f1"), ("x", "f1"), ("0", "f"), ("0", "f11"), ("0", "g1"), ("-1", "f1")] {
            assert_eq!(Share::decode(&routes, first.as_bytes(), up.as_bytes()), None, "{first} {up}");
        }
        Ok(())
    }
}
