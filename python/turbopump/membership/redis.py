"""CLUSTER, in the words of Redis Cluster: its clients send each command to a member that keeps the key.

Source: the pages of CLUSTER SLOTS, SHARDS, NODES and INFO of Redis 7.2. Departures: every replica of a key
takes writes, so a member that is down gives its place as master to the next one that keeps the slot; and
members that Redis clients cannot reach, because they do not listen on TCP, are left out.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeAlias

from turbopump.config import Member
from turbopump.errors import error_for
from turbopump.membership.peers import Peer
from turbopump.membership.topology import SLOTS, Topology, node_id, ranges, shard_id, slot_of

Reply: TypeAlias = "bool | int | str | bytes | list[Reply] | dict[str, Reply] | None"

CURSOR_SLOT_BITS = (
    20  # a scan's cursor has the slot above so many bits, in which it has the place in the slot
)
SCAN_KEYS = 1000  # looked at in one go: about 0.1 ms
KEYS_MAX = 10_000  # of one GETKEYSINSLOT: its reply is made whole


class Scanned(Protocol):
    """The engine, as far as its keys can be listed."""

    def scan(self, cursor: int, limit: int, prefix: bytes = ...) -> tuple[int, list[tuple[bytes, int]]]:
        """Some keys and sizes from a cursor on, and the next cursor."""


class RedisCluster:
    """Answers CLUSTER for a node."""

    def __init__(
        self, topology: Topology, me: Member, peers: Callable[[], Sequence[Peer]], engine: Scanned
    ) -> None:
        self._topology = topology
        self._me = me
        self._peers = peers
        self._engine = engine
        self._slots: tuple[frozenset[str], Reply] | None = None
        self._maps: dict[str, Callable[[], Reply]] = {
            "info": lambda: "".join(f"{name}:{value}\r\n" for name, value in self._info()),
            "myid": lambda: node_id(me),
            "myshardid": self._own_shard,
            "nodes": lambda: "".join(f"{self._line(peer)}\n" for peer in peers()),
            "shards": lambda: [self._shard(names, slots) for names, slots in self._shards().items()],
            "slots": self._slots_reply,
        }

    def answer(self, args: Sequence[bytes]) -> Reply:
        """The answer to CLUSTER and what followed it.

        Raises:
            RequestError: There is no such subcommand, or its arguments are wrong.
        """
        word, *rest = (arg.decode(errors="replace") for arg in args) if args else ("",)
        match word.lower(), rest:
            case "keyslot", [_]:
                reply: Reply = slot_of(args[1])
            case "countkeysinslot", [slot]:
                reply = sum(1 for _ in self._keys(_slot(slot)))
            case "getkeysinslot", [slot, count]:
                most = _number(count, KEYS_MAX, f"Invalid number of keys: 0 to {KEYS_MAX}")
                reply = list(islice(self._keys(_slot(slot)), most))
            case "help", []:
                reply = list(HELP)
            case name, [] if name in self._maps:
                if not self._topology.is_cluster:
                    raise error_for(
                        "denied", "This instance has cluster support disabled: it is a node alone"
                    )
                reply = self._maps[name]()
            case _:
                raise error_for("syntax", f"unknown subcommand or wrong number of arguments for '{word}'")
        return reply

    def _slots_reply(self) -> Reply:
        """A list for each range of slots: first, last, and who keeps it; the one to write to comes first.

        Here most members are a primary of some slots and a replica of others. redis-py takes each for what it
        is when it is first named, and asks primaries alone for what all nodes must be asked: so one slot of
        each member comes first, without replicas.
        """
        down = frozenset(peer.member.name for peer in self._peers() if not peer.answers)
        if (
            self._slots is None or self._slots[0] != down
        ):  # up to 16384 ranges: made when somebody comes or goes
            nodes = self._endpoints()
            table = [self._reachable(names, down, nodes) for names in self._topology.shown]
            heads = {names[0]: slot for slot, names in reversed(list(enumerate(table)))}
            reply: list[Reply] = [[slot, slot, nodes[name]] for name, slot in heads.items()]
            for first, last in ranges(table):
                start = first + (heads[table[first][0]] == first)
                if start <= last:
                    reply.append([start, last, *(nodes[name] for name in table[first])])
            self._slots = (down, reply)
        return self._slots[1]

    def _endpoints(self) -> dict[str, Reply]:
        """What CLUSTER SLOTS says of each member that Redis clients can reach."""
        found: dict[str, Reply] = {}
        for member in self._topology.members:
            host, port = member.door
            if port:
                found[member.name] = [host, port, node_id(member), []]
        if not found:
            raise error_for(
                "denied", 'no member listens on TCP, which cluster clients need: add "tcp" to the members'
            )
        return found

    @staticmethod
    def _reachable(names: Sequence[str], down: frozenset[str], nodes: dict[str, Reply]) -> tuple[str, ...]:
        """Those of a slot's members that a client can ask; others ask them for it, if there are none."""
        keeping = [name for name in names if name in nodes]
        alive = [name for name in keeping if name not in down] or [name for name in nodes if name not in down]
        return tuple(alive or keeping or nodes)

    def _shards(self) -> dict[tuple[str, ...], list[int]]:
        """The slots by who keeps them, the primary first; then those who keep none, each by itself."""
        shards: dict[tuple[str, ...], list[int]] = {}
        shown = self._topology.shown
        for first, last in ranges(shown):
            shards.setdefault(tuple(shown[first]), []).extend((first, last))
        keeping = {name for names in shards for name in names}
        return shards | {(m.name,): [] for m in self._topology.members if m.name not in keeping}

    def _own_shard(self) -> Reply:
        return shard_id(next((names for names in self._shards() if names[0] == self._me.name), ()))

    def _shard(self, names: tuple[str, ...], slots: list[int]) -> Reply:
        states = {peer.member.name: peer for peer in self._peers()}
        master = next((name for name in names if states[name].answers), names[0])
        nodes: list[Reply] = []
        for name in names:
            host, port = states[name].member.door
            about: dict[str, Reply] = {"id": node_id(states[name].member)}
            if port:
                about["port"] = port
            nodes.append(
                about
                | {
                    "ip": host,
                    "endpoint": host,
                    "role": "master" if name == master else "replica",
                    "replication-offset": 0,
                    "health": "online" if states[name].answers else "failed",
                }
            )
        return {"slots": list(slots), "nodes": nodes}

    def _line(self, peer: Peer) -> str:
        """A line of NODES: id, address, flags, -, ping, pong, epoch, link, and the slots it is first of."""
        host, port = peer.member.door
        bus = peer.member.udp.port if peer.member.udp else 0
        flags = ["myself"] * (peer.state == "self") + ["master"] + ["fail"] * (not peer.answers)
        flags += ["noaddr"] * (port == 0)
        link = "connected" if peer.answers else "disconnected"
        shown = self._topology.shown
        first_of = [names[0] == peer.member.name for names in shown]
        slots = [
            f"{first}-{last}" if first != last else str(first)
            for first, last in ranges(first_of)
            if first_of[first]
        ]
        where = f"{host}:{port}@{bus}"
        return " ".join([node_id(peer.member), where, ",".join(flags), "-", "0", "0", "1", link, *slots])

    def _info(self) -> Iterator[tuple[str, object]]:
        found = self._peers()
        lost = [peer for peer in found if not peer.answers]
        gone = {peer.member.name for peer in lost}
        table = self._topology.table
        fine = sum(not gone.issuperset(names) for names in table)
        yield "cluster_state", "ok" if fine == SLOTS else "fail"
        yield "cluster_slots_assigned", SLOTS
        yield "cluster_slots_ok", fine
        yield "cluster_slots_pfail", 0
        yield "cluster_slots_fail", SLOTS - fine
        yield "cluster_known_nodes", len(found)
        yield "cluster_size", sum(peer.member.weight > 0 for peer in found)
        yield "cluster_current_epoch", 1
        yield "cluster_my_epoch", 1
        for way in ("sent", "received"):
            yield f"cluster_stats_bytes_{way}", sum(peer.figures.get(f"bytes_{way}") or 0 for peer in found)

    def _keys(self, slot: int) -> Iterator[bytes]:
        """The keys of a slot that this node holds."""
        cursor, end = slot << CURSOR_SLOT_BITS, (slot + 1) << CURSOR_SLOT_BITS
        while True:
            cursor, found = self._engine.scan(cursor, SCAN_KEYS)
            for key, _size in found:
                if slot_of(key) == slot:
                    yield key
            if cursor == 0 or cursor >= end:
                return


HELP = (
    "CLUSTER COUNTKEYSINSLOT slot: how many keys of a slot this node holds.",
    "CLUSTER GETKEYSINSLOT slot count: some of them.",
    "CLUSTER INFO: how the cluster is, as name:value lines.",
    "CLUSTER KEYSLOT key: the slot of a key.",
    "CLUSTER MYID, CLUSTER MYSHARDID: this node's names.",
    "CLUSTER NODES: a line for each member.",
    "CLUSTER SHARDS, CLUSTER SLOTS: who keeps which slots.",
)


def _slot(text: str) -> int:
    return _number(text, SLOTS - 1, "Invalid slot")


def _number(text: str, most: int, otherwise: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= most):
        raise error_for("syntax", otherwise)
    return int(text)
