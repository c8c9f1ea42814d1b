"""What must hold between parts of the file: a line for each thing that does not, with what to do about it."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from turbopump.config.keyspace import COPIES_MAX, Keyspace
from turbopump.config.member import Member
from turbopump.config.placement import is_clone, keepers, rules
from turbopump.config.public_key import PublicKey
from turbopump.config.section import is_loopback

if TYPE_CHECKING:
    from turbopump.config.address import Address
    from turbopump.config.document import Config

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def disagreements(config: "Config") -> Iterator[str]:
    """The problems of a file each section of which is good by itself."""
    if config.cluster is None and len(config.members) > 1:
        yield (
            f'cluster: missing; there are {len(config.members)} members: add "cluster": {{}}, or keep one; '
            "`turbopump init` makes a whole directory"
        )
        return
    if config.cluster is not None:
        yield from _reachable(config.members)
        yield from _keys(config.members)
        yield from _neighbours(config.members)
    yield from _placed(config)


def _reachable(members: tuple[Member, ...]) -> Iterator[str]:
    """Every member has an address of its own that the others can send to."""
    for index, member in enumerate(members):
        if member.address is None:
            yield (
                f"members[{index}].address: missing; add where the other members find {member.name}, "
                'such as "10.0.0.1" or "box1:1593"'
            )
    addressed = [(index, member, member.udp) for index, member in enumerate(members) if member.udp]
    for index, first, address in _twins(addressed, lambda address: address):
        yield (
            f'members[{index}].address = "{address}": {first} has it too: '
            "write another address, or another port"
        )
    if any(not is_loopback(address.host) for _, _, address in addressed):
        for index, member, address in addressed:
            if is_loopback(address.host):
                yield (
                    f'members[{index}].address = "{member.address}": only its own machine reaches that, '
                    "and not all members are on it: write the address that the others reach"
                )


def _keys(members: tuple[Member, ...]) -> Iterator[str]:
    """Every member has a public key of its own, in both halves."""
    for index, member in enumerate(members):
        if member.public_key is None:
            yield (
                f"members[{index}].public_key: missing; add what `turbopump keygen` prints for {member.name}"
            )
    keyed = [
        (index, member, PublicKey.parse(member.public_key))
        for index, member in enumerate(members)
        if member.public_key is not None
    ]
    halves: tuple[Callable[[PublicKey], bytes], ...] = (lambda key: key.identity, lambda key: key.transport)
    seen: set[int] = set()
    for half in halves:
        for index, first, _key in _twins(keyed, half):
            if index not in seen:
                seen.add(index)
                yield (
                    f"members[{index}].public_key: it is that of {first}: make another one with "
                    "`turbopump keygen`, for a node is known by its key"
                )


def _neighbours(members: tuple[Member, ...]) -> Iterator[str]:
    """Members on one box do not take each other's sockets."""
    hosts: dict[str, list[tuple[int, Member]]] = {}
    told: set[Address] = set()  # who has another's address has its box, which is told already
    for index, member in enumerate(members):
        if member.udp is not None and member.udp not in told:
            told.add(member.udp)
            box = "this machine" if is_loopback(member.udp.host) else member.udp.host
            hosts.setdefault(box, []).append((index, member))
    for neighbours in hosts.values():
        sockets = [(index, member, member.socket) for index, member in neighbours]
        for index, first, path in _twins(sockets, lambda path: path):
            yield f'members[{index}].socket = "{path}": {first} is on the same box and has it: write another'
        ports = [
            (index, member, (member.tcp.host, member.tcp.port))
            for index, member in neighbours
            if member.tcp is not None and member.tcp.port != 0
        ]
        for index, first, (_host, port) in _twins(ports, lambda tcp: tcp):
            yield f"members[{index}].tcp.port = {port}: {first} is on the same box and has it: write another"


def _placed(config: "Config") -> Iterator[str]:
    """There are as many members as copies, and no rule that cannot be kept."""
    count = keepers(config)
    if count == 0:
        yield "members: none has a weight: give one a weight above 0, for somebody must keep the keys"
        return
    if config.copies is not None and config.copies > count:
        yield f"copies = {config.copies}: {_too_few(count)}"
    if count > COPIES_MAX and any(is_clone(config, keyspace) for keyspace in rules(config)):
        yield (
            f"placement: a clone keeps every key on all {count} members with a weight, {COPIES_MAX} at most: "
            'write "partition", or the weight 0 for some'
        )
    for index, keyspace in enumerate(config.keyspaces):
        yield from (f"keyspaces[{index}].{problem}" for problem in _ruled(config, keyspace, count))


def _ruled(config: "Config", keyspace: Keyspace, count: int) -> Iterator[str]:
    length = len(keyspace.prefix.encode())
    if length >= config.limits.max_key:
        yield (
            f"prefix: it has {length} bytes, and keys have at most limits.max_key = {config.limits.max_key}: "
            "no key would fit"
        )
    if keyspace.copies is not None and is_clone(config, keyspace):
        yield (
            f"copies = {keyspace.copies}: a clone keeps its keys on every member: leave it out, "
            'or add "placement": "partition"'
        )
    elif keyspace.copies is not None and keyspace.copies > count:
        yield f"copies = {keyspace.copies}: {_too_few(count)}"
    if keyspace.transport == "datagram" and keyspace.write_acks != "one":
        yield (
            f'write_acks = "{keyspace.write_acks}": a datagram may be lost, and then nobody confirms it: '
            'write "one", or "transport": "reliable"'
        )


def _too_few(count: int) -> str:
    members = "1 member has" if count == 1 else f"{count} members have"
    return f"only {members} a weight, and each keeps one copy: write {count} or less, or add members"


def _twins(found: Iterable[tuple[int, Member, T]], of: Callable[[T], K]) -> Iterator[tuple[int, str, T]]:
    """Those that have what an earlier one has: their place, whose it was first, and what."""
    first: dict[K, str] = {}
    for index, member, value in found:
        key = of(value)
        if key in first:
            yield index, first[key], value
        first.setdefault(key, member.name)
