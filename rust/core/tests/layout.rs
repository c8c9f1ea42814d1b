//! What a layout promises, whoever its members are.

use proptest::prelude::*;
use turbopump_core::layout::{Layout, LayoutError, MEMBERS_MAX, Member};
use turbopump_core::slot::SLOTS;

fn members(count: usize, zones: usize) -> Vec<Member> {
    let member = |i| Member { name: format!("n{i:03}"), zone: format!("z{}", i % zones), weight: 100 };
    (0..count).map(member).collect()
}

/// The rules that every layout keeps; returns its loads.
fn checked(layout: &Layout) -> Vec<usize> {
    let zone = |&member: &u16| layout.members()[usize::from(member)].zone.as_str();
    let mut spread = 0;
    for slot in 0..SLOTS as u16 {
        let mut replicas = layout.replicas(slot).to_vec();
        let mut zones: Vec<&str> = replicas.iter().map(zone).collect();
        zones.sort_unstable();
        let most = zones.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap_or(0);
        spread = spread.max(most);
        replicas.sort_unstable();
        replicas.dedup();
        assert_eq!(replicas.len(), layout.copies(), "slot {slot} has a member twice");
        assert!(replicas.iter().all(|&member| layout.members()[usize::from(member)].weight > 0));
    }
    let mut sizes: Vec<(String, usize)> = Vec::new();
    for member in layout.members().iter().filter(|member| member.weight > 0) {
        match sizes.iter_mut().find(|(zone, _)| *zone == member.zone) {
            Some((_, size)) => *size += 1,
            None => sizes.push((member.zone.clone(), 1)),
        }
    }
    let room = |most: usize| sizes.iter().map(|(_, size)| most.min(*size)).sum::<usize>();
    assert!(spread == 1 || room(spread - 1) < layout.copies(), "a zone has more than it must");
    layout.loads().into_iter().map(|(load, _)| load).collect()
}

fn unevenness(loads: &[usize]) -> f64 {
    let mean = loads.iter().sum::<usize>() as f64 / loads.len() as f64;
    loads.iter().max().copied().unwrap_or(0) as f64 / mean
}

#[test]
fn equal_members_keep_equally_many() -> Result<(), LayoutError> {
    for count in [3, 4, 5, 7, 10, 16, 30, 64, 100] {
        for zones in [1, count.min(3), count] {
            // With zones of unequal size the smaller ones' members keep more: nothing else is allowed.
            if zones == 3 && count % 3 != 0 {
                continue;
            }
            let layout = Layout::new(members(count, zones), 3, None)?;
            let loads = checked(&layout);
            assert!(unevenness(&loads) < 1.01, "{count} in {zones}: {loads:?}");
            let primaries: Vec<usize> = layout.loads().into_iter().map(|(_, primary)| primary).collect();
            assert!(unevenness(&primaries) < 1.05, "{count} in {zones}: {primaries:?}");
        }
    }
    Ok(())
}

#[test]
fn loads_follow_weights() -> Result<(), LayoutError> {
    let weigh = |weights: &[u32]| -> Vec<Member> {
        let member = |(i, &weight)| Member { name: format!("n{i}"), zone: String::new(), weight };
        weights.iter().enumerate().map(member).collect()
    };
    assert_eq!(checked(&Layout::new(weigh(&[1, 2, 3, 0]), 1, None)?), [2731, 5461, 8192, 0]);
    assert_eq!(checked(&Layout::new(weigh(&[1, 1, 1000]), 2, None)?), [SLOTS / 2, SLOTS / 2, SLOTS]);
    assert_eq!(checked(&Layout::new(weigh(&[500_000, 1_000_000]), 1, None)?), [5461, 10923]);
    Ok(())
}

#[test]
fn only_what_must_move_moves() -> Result<(), LayoutError> {
    for (count, zones) in [(3, 1), (4, 1), (10, 1), (29, 1), (30, 3), (99, 3), (10, 10)] {
        let before = Layout::new(members(count, zones), 3, None)?;
        let after = Layout::new(members(count + 1, zones), 3, Some(&before))?;
        checked(&after);
        let there = after.plan(&before);
        let back = Layout::new(members(count, zones), 3, Some(&after))?.plan(&after);
        for plan in [there, back] {
            assert!(plan.moves as f64 <= plan.bound as f64 * 1.01, "{count} in {zones}: {plan:?}");
        }
        assert_eq!(Layout::new(members(count + 1, zones), 3, Some(&after))?, after);
    }
    Ok(())
}

#[test]
fn what_cannot_be_is_said() {
    let three = members(3, 1);
    assert_eq!(Layout::new(vec![], 1, None), Err(LayoutError::NoMembers));
    assert_eq!(Layout::new(three.clone(), 0, None), Err(LayoutError::Copies(0)));
    assert_eq!(
        Layout::new(three.clone(), 4, None),
        Err(LayoutError::TooManyCopies { copies: 4, members: 3 })
    );
    let twice = [three.clone(), three[..1].to_vec()].concat();
    assert_eq!(Layout::new(twice, 1, None), Err(LayoutError::NameTwice("n000".into())));
    assert_eq!(
        Layout::new(members(MEMBERS_MAX + 1, 1), 1, None),
        Err(LayoutError::TooManyMembers(MEMBERS_MAX + 1))
    );
}

prop_compose! {
    fn cluster()(
        members in proptest::collection::btree_map(0u8..40, (0u8..5, 0u32..5), 1..20),
    ) -> Vec<Member> {
        let member = |(name, (zone, weight)): (u8, (u8, u32))| Member {
            name: format!("n{name}"), zone: format!("z{zone}"), weight: weight * 50,
        };
        members.into_iter().map(member).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn layouts_keep_the_rules(
        first in cluster(), second in cluster(), copies in 1usize..6, seed in any::<u64>(),
    ) {
        let before = Layout::new(first, copies, None);
        if let Ok(before) = &before {
            checked(before);
        }
        let mut shuffled = second.clone();
        let mixed = |mix: u64, byte: u8| mix.wrapping_mul(31) ^ u64::from(byte);
        let order = |member: &Member| member.name.bytes().fold(seed, mixed);
        shuffled.sort_by_key(order);
        let after = Layout::new(second, copies, before.as_ref().ok());
        prop_assert_eq!(&after, &Layout::new(shuffled, copies, before.as_ref().ok()));
        if let Ok(after) = after {
            checked(&after);
        }
    }
}
