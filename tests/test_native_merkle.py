"""`MerkleTree`: its laws, against a model that is a plain set of entries."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from turbopump import MerkleTree, key_slot

NOTHING = bytes(16)
SECRET = b"0123456789abcdef"

# Few keys and versions, so that they meet; tags, so that some keys share a slot, and neighbours a branch.
KEYS = st.one_of(st.sampled_from([b"a", b"b", b"{a}1", b"{a}2", b"", b"\xff\0"]), st.binary(max_size=10))
HALVES = st.integers(0, 2**64 - 1).map(lambda number: f"{number:016x}")
VERSIONS = st.tuples(HALVES, HALVES).map("-".join)
FEW_VERSIONS = st.sampled_from(
    [f"{stamp:016x}-{node:016x}" for stamp in (0, 1, 2**64 - 1) for node in (0, 7)]
)
ENTRIES = st.sets(st.tuples(KEYS, FEW_VERSIONS), max_size=30)
Entries = set[tuple[bytes, str]]


def tree(entries: Entries, secret: bytes = SECRET) -> MerkleTree:
    """A tree of these entries."""
    made = MerkleTree(secret)
    for key, version in entries:
        made.insert(key, version)
    return made


def slots(entries: Entries) -> list[int]:
    """Their slots, ascending."""
    return sorted({key_slot(key) for key, _ in entries})


class Trees(RuleBasedStateMachine):
    """Two trees and the sets they stand for, changed in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.trees: list[MerkleTree] = []
        self.sets: list[Entries] = []

    @initialize()
    def begin(self) -> None:
        """Both are empty."""
        self.trees = [MerkleTree(SECRET), MerkleTree(SECRET)]
        self.sets = [set(), set()]

    @rule(which=st.integers(0, 1), key=KEYS, version=FEW_VERSIONS)
    def change(self, which: int, key: bytes, version: str) -> None:
        """Inserts an entry that is not there, removes one that is."""
        entry = (key, version)
        if entry in self.sets[which]:
            self.sets[which].remove(entry)
            self.trees[which].remove(key, version)
        else:
            self.sets[which].add(entry)
            self.trees[which].insert(key, version)

    @rule()
    def copy(self) -> None:
        """The second becomes as the first."""
        self.trees[1] = self.trees[0].copy()
        self.sets[1] = set(self.sets[0])

    @invariant()
    def the_difference_is_that_of_the_sets(self) -> None:
        """Both ways, and it is empty exactly when the roots are equal."""
        if not self.trees:
            return
        mine, theirs = self.trees
        different = slots(self.sets[0] ^ self.sets[1])

        assert mine.diff(theirs) == theirs.diff(mine) == different
        assert (mine == theirs) == (mine.root() == theirs.root()) == (not different)

    @invariant()
    def what_is_empty_is_zero(self) -> None:
        """Slots, branches and root."""
        for made, entries in zip(self.trees, self.sets, strict=True):
            full = set(slots(entries))
            assert {slot for slot in full | {0, 16383} if made.slot(slot) != NOTHING} == full
            branches = {slot // 128 for slot in full}
            assert {branch for branch in range(128) if made.branch(branch) != NOTHING} == branches
            assert (made.root() == NOTHING) == (not entries)


TestTrees = Trees.TestCase
TestTrees.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(ENTRIES, st.randoms(use_true_random=False))
def test_the_order_of_insertions_does_not_matter(entries: Entries, chance: random.Random) -> None:
    """Commutative and associative: replicas that merged the same things are equal."""
    shuffled = list(entries)
    chance.shuffle(shuffled)
    other = MerkleTree(SECRET)
    for key, version in shuffled:
        other.insert(key, version)

    assert other == tree(entries)


@given(ENTRIES, ENTRIES)
def test_what_came_and_went_leaves_no_trace(entries: Entries, others: Entries) -> None:
    """Removing is the inverse of inserting, whatever stands beside."""
    made = tree(entries)
    for key, version in others - entries:
        made.insert(key, version)
    for key, version in others - entries:
        made.remove(key, version)

    assert made == tree(entries)
    assert not made != tree(entries)  # noqa: SIM202 - it is `!=` that is tested


@given(ENTRIES, ENTRIES)
def test_a_difference_is_where_the_slots_differ(entries: Entries, others: Entries) -> None:
    """The walk over the tree finds what comparing every slot finds."""
    mine, theirs = tree(entries), tree(others)
    walked = [slot for slot in slots(entries | others) if mine.slot(slot) != theirs.slot(slot)]

    assert mine.diff(theirs) == walked
    assert mine.diff(mine) == []


@given(ENTRIES, KEYS, FEW_VERSIONS)
def test_a_copy_changes_on_its_own(entries: Entries, key: bytes, version: str) -> None:
    """In both directions."""
    made = tree(entries - {(key, version)})
    copied = made.copy()
    before = made.root()
    copied.insert(key, version)
    assert made.root() == before
    assert made.diff(copied) == [key_slot(key)]

    made.insert(key, version)
    assert made == copied


@given(KEYS, VERSIONS, VERSIONS)
def test_each_version_has_its_digest(key: bytes, first: str, second: str) -> None:
    """The same key at another version is another entry; 16 bytes stand for it."""
    mine, theirs = tree({(key, first)}), tree({(key, second)})

    assert (mine == theirs) == (first == second)
    assert len(mine.root()) == len(mine.slot(key_slot(key))) == 16


@given(st.text(max_size=10), VERSIONS)
def test_text_stands_for_its_utf8(text: str, version: str) -> None:
    """As everywhere here."""
    mine, theirs = MerkleTree(), MerkleTree()
    mine.insert(text, version)
    theirs.insert(text.encode(), version)

    assert mine == theirs


def test_the_secret_keys_the_hash() -> None:
    """Who does not know it cannot foresee a digest; by default it is zeros."""
    entry = {(b"a", f"{1:016x}-{2:016x}")}

    assert tree(entry).root() != tree(entry, bytes(16)).root()
    default = MerkleTree()
    default.insert(b"a", f"{1:016x}-{2:016x}")
    assert default.root() == tree(entry, bytes(16)).root()


def test_digests_stay_what_they_are() -> None:
    """Nodes of two releases compare theirs: this is what the first release computes."""
    made = tree({(b"a", "018f3c2a9b7c0001-9e3779b97f4a7c15"), (b"b", "018f3c2a9b7c0002-9e3779b97f4a7c15")})

    assert made.root().hex() == "7b9eb6b3f9832a3aaa4a3513b15ed209"


@pytest.mark.parametrize("secret", [b"", b"short", bytes(17), bytes(1000)])
def test_a_secret_has_16_bytes(secret: bytes) -> None:
    """Another length is a mistake."""
    with pytest.raises(ValueError, match="16"):
        MerkleTree(secret)


@pytest.mark.parametrize(
    "version",
    [
        "",
        "1",
        "018f3c2a9b7c0001",
        "018f3c2a9b7c0001-",
        "018f3c2a9b7c0001-9e3779b97f4a7c1",
        "018f3c2a9b7c0001-9e3779b97f4a7c155",
        "018f3c2a9b7c0001_9e3779b97f4a7c15",
        "018f3c2a9b7c0001-9e3779b97f4a7c1g",
        "+18f3c2a9b7c0001-9e3779b97f4a7c15",
        " 018f3c2a9b7c0001-9e3779b97f4a7c15",
        "018f3c2a9b7c000é-9e3779b97f4a7c15",
    ],
)
def test_what_is_no_version_is_refused(version: str) -> None:
    """And nothing changes."""
    made = tree({(b"a", f"{1:016x}-{2:016x}")})
    before = made.root()
    for change in (made.insert, made.remove):
        with pytest.raises(ValueError):
            change(b"a", version)

    assert made.root() == before


@pytest.mark.parametrize("index", [-1, 128, 16384, 10**30])
def test_there_are_128_branches_of_128_slots(index: int) -> None:
    """Beyond them is nothing."""
    made = MerkleTree()
    with pytest.raises(IndexError):
        made.branch(index)
    if index != 128:
        with pytest.raises(IndexError):
            made.slot(index)


def test_a_tree_is_equal_to_trees_only() -> None:
    """And, as it changes, no key of a dict."""
    assert MerkleTree() != object()
    assert MerkleTree() != NOTHING
    with pytest.raises(TypeError):
        hash(MerkleTree())
    with pytest.raises(TypeError):
        MerkleTree().diff(NOTHING)  # type: ignore[arg-type] # that is what is tested


def test_trees_of_two_secrets_are_not_compared() -> None:
    """Every slot would differ, and none of them did."""
    entry = {(b"a", f"{1:016x}-{2:016x}")}
    with pytest.raises(ValueError, match="secret"):
        tree(entry).diff(tree(entry, bytes(16)))
    assert tree(entry) != tree(entry, bytes(16))


def test_a_hundred_thousand_entries() -> None:
    """One that is missing among them is found."""
    chance = random.Random(1)
    entries = {(chance.randbytes(8), f"{chance.getrandbits(64):016x}-{7:016x}") for _ in range(100_000)}
    mine, theirs = tree(entries), tree(entries)
    key, version = next(iter(entries))
    theirs.remove(key, version)

    assert mine.diff(theirs) == [key_slot(key)]
