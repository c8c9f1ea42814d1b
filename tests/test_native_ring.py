"""Ring: who keeps what, the same everywhere, with as few moves as there can be."""

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turbopump import Ring, key_slot

SLOTS = 16384

names = st.lists(st.text("abcdefgh", min_size=1, max_size=3), min_size=1, max_size=12, unique=True)


def slots(ring: Ring) -> list[list[str]]:
    """Who keeps each slot."""
    return [ring.owners_of_slot(slot) for slot in range(SLOTS)]


def test_a_key_is_where_its_slot_is() -> None:
    """As Redis Cluster has it: hash tags keep keys together."""
    ring = Ring(["a", "b", "c", "d"], copies=2)
    for key in ("", "user:1", b"\xff", "{user}.name"):
        assert ring.owners(key) == ring.owners_of_slot(key_slot(key))
    assert ring.owners("{user}.name") == ring.owners("user")
    assert (ring.copies, ring.members) == (2, {"a": 1, "b": 1, "c": 1, "d": 1})
    assert repr(ring) == "Ring(4 members, copies=2)"


@settings(max_examples=15, deadline=None)
@given(names, st.integers(1, 4))
def test_every_slot_is_kept_by_different_members(members: list[str], copies: int) -> None:
    """As many as there are copies; each keeps as many as the others, to one."""
    if len(members) < copies:
        with pytest.raises(ValueError, match=f"{copies} copies need {copies} members"):
            Ring(members, copies=copies)
        return
    ring = Ring(members, copies=copies)
    table = slots(ring)
    assert all(len(set(owners)) == copies for owners in table)
    kept = Counter(itertools.chain.from_iterable(table))
    first = Counter(owners[0] for owners in table)
    assert ring.loads() == {name: (kept[name], first[name]) for name in sorted(members)}
    assert max(kept.values()) - min(kept.values()) <= 1
    assert Ring(reversed(members), copies=copies) == ring


@settings(max_examples=10, deadline=None)
@given(names, names)
def test_no_more_moves_than_must(before: list[str], after: list[str]) -> None:
    """Whatever comes and goes; and a plan tells what the tables tell."""
    first = Ring(before, copies=1)
    second = Ring(after, copies=1, before=first)
    plan = second.plan(first)
    moved = [new for old, new in zip(slots(first), slots(second), strict=True) if old != new]
    assert plan["moves"] == plan["bound"] == len(moved)
    gains = Counter(itertools.chain.from_iterable(moved))
    assert {name: gain for name, (gain, _) in plan["members"].items()} == {
        name: gains[name] for name in sorted({*before, *after})
    }
    assert Ring(after, copies=1, before=second) == second


weighted = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3), st.integers(0, 5), min_size=1, max_size=10
)


@settings(max_examples=20, deadline=None)
@given(weighted, st.integers(1, 3))
def test_a_member_keeps_its_share(members: dict[str, int], copies: int) -> None:
    """By its weight, as far as a slot's copies are on different members; weight 0 keeps none."""
    keepers = {name: weight for name, weight in members.items() if weight}
    if len(keepers) < copies:
        with pytest.raises(ValueError, match="no member has a weight" if not keepers else "copies need"):
            Ring(members, copies=copies)
        return
    loads = Ring(members, copies=copies).loads()
    assert set(loads) == set(members)
    assert sum(kept for kept, _ in loads.values()) == copies * SLOTS
    assert sum(first for _, first in loads.values()) == SLOTS
    for name, (kept, first) in loads.items():
        assert first <= kept <= SLOTS
        assert (kept == 0) == (members[name] == 0)
    free = sorted((keepers[name], loads[name][0]) for name in keepers if loads[name][0] < SLOTS)
    # Those who could keep more have as much for each unit of weight, but for rounding.
    units = [kept / weight for weight, kept in free]
    assert not units or max(units) - min(units) <= 1


@settings(max_examples=20, deadline=None)
@given(names, st.integers(1, 3), st.data())
def test_a_zone_has_no_more_copies_than_it_must(members: list[str], copies: int, data: st.DataObject) -> None:
    """With as many zones as copies, or more, each that is large enough takes one of a slot."""
    zones = {name: data.draw(st.sampled_from(["east", "west", "north"]), name) for name in members}
    sizes = Counter(zones.values())
    if len(members) < copies:
        return
    table = slots(Ring(members, copies=copies, zones=zones))
    for owners in table:
        found = Counter(zones[name] for name in owners)
        assert len(found) == min(copies, len(sizes))


@settings(max_examples=10, deadline=None)
@given(names, st.integers(1, 3), st.data())
def test_a_change_moves_little_and_heals(members: list[str], copies: int, data: st.DataObject) -> None:
    """With several copies too: within 1% of the least, as even as a new ring, and as the plan tells it."""
    if len(members) < copies + 1:
        return
    gone = data.draw(st.sampled_from(members), "gone")
    left = [name for name in members if name != gone]
    first = Ring(members, copies=copies)
    second = Ring(left, copies=copies, before=first)
    plan = second.plan(first)
    tables = list(zip(slots(first), slots(second), strict=True))
    moves = sum(len(set(new) - set(old)) for old, new in tables)
    assert plan["moves"] == moves
    assert plan["bound"] <= moves <= plan["bound"] * 1.01 + 1
    kept = [kept for kept, _ in second.loads().values()]
    assert max(kept) - min(kept) <= 1
    assert second == Ring(reversed(left), copies=copies, before=first)


@settings(max_examples=20, deadline=None)
@given(names, st.binary(max_size=20), st.binary(max_size=10))
def test_keys_of_one_tag_are_together(members: list[str], key: bytes, tag: bytes) -> None:
    """On every ring: whatever stands around the tag; and a key is on the members of its slot."""
    ring = Ring(members, copies=1)
    assert ring.owners(key) == ring.owners_of_slot(key_slot(key))
    if tag and b"}" not in tag and b"{" not in key:
        assert ring.owners(key + b"{" + tag + b"}") == ring.owners(b"{" + tag + b"}" + key)


def test_weights_and_zones() -> None:
    """A member of twice the weight keeps twice as much; a zone that is lost takes one copy only."""
    ring = Ring({"a": 1, "b": 2, "c": 3, "d": 0}, copies=1)
    assert [kept for kept, _ in ring.loads().values()] == [2731, 5461, 8192, 0]
    zones = {"a": "east", "b": "east", "c": "west", "d": "west"}
    ring = Ring(list(zones), copies=2, zones=zones)
    assert all(len({zones[name] for name in owners}) == 2 for owners in slots(ring))
    assert {kept for kept, _ in ring.loads().values()} == {SLOTS // 2}


def test_a_plan_says_who_gains_and_who_loses() -> None:
    """A new member gains its share, of which each of the others loses its part."""
    three = Ring(["a", "b", "c"], copies=2)
    four = Ring(["a", "b", "c", "d"], copies=2, before=three)
    plan = four.plan(three)
    assert plan["moves"] == plan["bound"] == SLOTS * 2 // 4
    assert plan["members"]["d"] == (8192, 0)
    assert sum(lost for _, lost in plan["members"].values()) == 8192
    assert three.plan(three) == {"moves": 0, "bound": 0, "members": {"a": (0, 0), "b": (0, 0), "c": (0, 0)}}


@pytest.mark.parametrize(
    ("members", "options", "problem"),
    [
        ([], {}, "no member has a weight"),
        (["a"], {"copies": 0}, "0 copies: 1 to 16"),
        (["a"], {"copies": 17}, "17 copies: 1 to 16"),
        (["a", "b"], {}, "3 copies need 3 members with a weight, there are 2"),
        (["a", "a"], {}, "two members are called a"),
        ({"a": 0}, {"copies": 1}, "no member has a weight"),
        ({"a": 1_000_001}, {"copies": 1}, "a has the weight 1000001"),
        (["a"], {"copies": 1, "zones": {"b": "east"}}, "zones names b, which is no member"),
        ([str(number) for number in range(1025)], {}, "1025 members, 1024 at most"),
    ],
)
def test_what_is_no_ring(members: list[str], options: dict[str, int], problem: str) -> None:
    """Is told with what to do."""
    with pytest.raises(ValueError, match=problem):
        Ring(members, **options)  # type: ignore[arg-type]


def test_there_are_16384_slots() -> None:
    """Not one more."""
    ring = Ring(["a"], copies=1)
    for slot in (-1, SLOTS, 1 << 70):
        with pytest.raises(IndexError, match="slots are 0 to 16383"):
            ring.owners_of_slot(slot)
