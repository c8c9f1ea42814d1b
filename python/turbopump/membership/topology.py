"""Who keeps what, as the configuration has it: the same on every node, computed and not agreed upon."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby

from turbopump._native import Ring, key_slot
from turbopump.config import Config, Keyspace, Member, PublicKey, copies_of, keepers, rules

SLOTS = 16384


class Topology:
    """The members and their rings.

    Attributes:
        members: In the order of their names.
        is_cluster: Whether the configuration is one of a cluster; one node alone has a topology too.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._rings: dict[int, Ring] = {}
        self.members = sorted(config.members, key=lambda member: member.name)
        self.is_cluster = config.cluster is not None

    @cached_property
    def main(self) -> Keyspace:
        """The keyspace for all keys that no other one takes: whose ring is shown where only one is."""
        return next(keyspace for keyspace in rules(self._config) if not keyspace.prefix)

    def keyspace(self, key: bytes) -> Keyspace:
        """The keyspace of a key: that of the longest prefix."""
        fitting = (rule for rule in rules(self._config) if key.startswith(rule.prefix.encode()))
        return max(fitting, key=lambda rule: len(rule.prefix.encode()))

    def is_clone(self, keyspace: Keyspace) -> bool:
        """Whether all members that keep keys keep those of a keyspace."""
        return copies_of(self._config, keyspace) == 0

    def ring(self, keyspace: Keyspace) -> Ring:
        """Who keeps the slots of a keyspace. Those with as many copies have one ring."""
        copies = copies_of(self._config, keyspace) or keepers(self._config)
        if copies not in self._rings:
            weights = {member.name: member.weight for member in self.members}
            zones = {member.name: member.zone for member in self.members if member.zone}
            self._rings[copies] = Ring(weights, copies=copies, zones=zones)
        return self._rings[copies]

    def owners(self, key: bytes) -> list[str]:
        """The names of those who keep a key, the primary first."""
        return self.ring(self.keyspace(key)).owners(key)

    @cached_property
    def table(self) -> list[list[str]]:
        """For each slot the names of those who keep it in the main keyspace, the primary first."""
        ring = self.ring(self.main)
        return [ring.owners_of_slot(slot) for slot in range(SLOTS)]

    @cached_property
    def shown(self) -> list[list[str]]:
        """The table for clients that ask for a map. In a clone any member is right, so each has one range."""
        if not self.is_clone(self.main):
            return self.table
        names = [member.name for member in self.members if member.weight]
        firsts = (slot * len(names) // SLOTS for slot in range(SLOTS))
        return [[*names[first:], *names[:first]] for first in firsts]

    def member(self, name: str) -> Member:
        """The member with a name, which is one from a ring."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Member]:
        return {member.name: member for member in self.members}


def ranges(values: Sequence[object]) -> Iterator[tuple[int, int]]:
    """The first and the last index of each run of equal values."""
    first = 0
    for _, run in groupby(values):
        last = first + sum(1 for _ in run) - 1
        yield first, last
        first = last + 1


def node_id(member: Member) -> str:
    """40 hexadecimal digits that Redis clients know a node by: of its public key, so they stay with it."""
    key = member.public_key
    known = member.name.encode() if key is None else PublicKey.parse(key).identity
    return hashlib.blake2b(known, digest_size=20, person=b"turbopump node").hexdigest()


def shard_id(names: Sequence[str]) -> str:
    """40 hexadecimal digits for the members that keep the same slots."""
    return hashlib.blake2b("\0".join(names).encode(), digest_size=20, person=b"turbopump shard").hexdigest()


def slot_of(key: bytes) -> int:
    """The slot of a key."""
    return key_slot(key)
