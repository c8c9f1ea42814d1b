"""A cluster inside a test: embedded nodes, their directory, the network between them."""

import asyncio
import json
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final, Literal, cast

from turbopump.config import Config, parse, rules
from turbopump.directory import FILE, KEYS, SECRET, Plan, make
from turbopump.errors import ConfigError
from turbopump.membership import Topology
from turbopump.node import Node
from turbopump.testing.network import Network, Traffic, Weather

NODES_MAX: Final = 16  # each pair has two relays, which all run in one thread
SLOTS: Final = 16384
DEADLINE_SECONDS: Final = 20.0  # for a machine that is busy with other tests
PAUSE_SECONDS: Final = 0.01  # between two looks at how the nodes are

_QUICK: Final[Mapping[str, Any]] = {
    "cluster": {"sync_seconds": 0.1, "peer_timeout": 1.0},
    "drain_seconds": 1.0,
}
"""A test does not wait as long as a cluster that has to last: what it overrides of the defaults."""


class Cluster:
    """Nodes of this process and the network between them. `cluster()` makes one.

    `cluster["a"]` is a node. What is said of nodes here is said of those that run: `kill` takes one away.

    Attributes:
        names: All nodes', a, b, c and so on, whether they run or not.
    """

    def __init__(
        self, document: Mapping[str, Any], network: Network, host: str, setup: Callable[[Node], object] | None
    ) -> None:
        """A cluster of which no node runs.

        Args:
            document: The configuration; what each has of its own, the addresses, is not looked at.
            network: What is between the nodes.
            host: The loopback address of all nodes.
            setup: Is shown each node before it starts.
        """
        self.names: Sequence[str] = tuple(member["name"] for member in document["members"])
        self._document = document
        self._network = network
        self._host = host
        self._setup = setup
        self._running: dict[str, Node] = {}
        self._kept_together = _kept_together(parse(document))

    def __getitem__(self, name: str) -> Node:
        """The node of this name.

        Raises:
            KeyError: There is none, or it was killed.
        """
        return self._running[name]

    def __iter__(self) -> Iterator[Node]:
        """The nodes that run, in the order of their names."""
        return iter([self._running[name] for name in self.names if name in self._running])

    def split(self, *groups: Collection[str]) -> None:
        """Cuts the network in parts that do not hear each other; nodes in no group are one more.

        Cuts add up until `mend`. Nodes find out as they would elsewhere: after `cluster.peer_timeout`.

        Raises:
            KeyError: There is no such node.
            ValueError: A node is in two groups.

        Example:
            cluster.split({"a"}, {"b", "c"})
            await cluster.noticed()
        """
        self._network.split(groups)

    def cut(self, source: str, target: str) -> None:
        """Cuts one direction: nothing from `source` reaches `target` any more, until `mend`.

        Raises:
            KeyError: There is no such node.
            ValueError: They are the same.
        """
        self._network.cut(source, target)

    def mend(self) -> None:
        """Undoes all splits and cuts; the weather stays.

        Nodes that lost each other find that out at their next attempt: they make one after a quarter of a
        second, later only every 5 s. `noticed` and `healed` wait for it.
        """
        self._network.mend()

    def weather(
        self,
        *,
        loss: float = 0.0,
        delay: float = 0.0,
        jitter: float = 0.0,
        duplicate: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Changes what happens to datagrams on all ways; without arguments, nothing does.

        Args:
            loss: The part that is lost, 0 to 1.
            delay: Seconds that each takes in one direction, to 60.
            jitter: Up to so many seconds more, evenly at random: so they overtake each other.
            duplicate: The part that arrives twice, 0 to 1.
            seed: The fate of the n-th datagram from one node to another follows from it. Which datagram
                that is depends on time, and differs from run to run.

        Raises:
            ValueError: A figure is out of range.
        """
        self._network.change(Weather(loss=loss, delay=delay, jitter=jitter, duplicate=duplicate), seed)

    def traffic(self, source: str, target: str) -> Traffic:
        """How many datagrams from one node to another were carried, lost, repeated and cut so far.

        Raises:
            KeyError: There is no such node.
            ValueError: They are the same.
        """
        return self._network.traffic(source, target)

    async def kill(self, name: str) -> None:
        """Takes a node away in the middle of whatever it does; its memory is gone.

        The others hear nothing more of it, not even that it leaves. Its clients' connections break, and
        callbacks that wait or run are ended. It is not SIGKILL: the node's threads end in order, tasks of
        callbacks are cancelled, so their `finally` runs, and a callback's thread goes on until it returns.

        Raises:
            KeyError: No such node runs.
        """
        node = self._running.pop(name)
        self._network.leave(name)
        # When it drains, which it does as soon as it has to wait.
        asyncio.get_running_loop().call_soon(node.abort)
        await node.__aexit__(None, None, None)

    async def restart(self, name: str, *, empty: Literal[True]) -> Node:
        """Starts a node anew, after `kill` or in its place; returns it. `healed` waits until it has its keys.

        Args:
            name: Which.
            empty: True: nodes keep nothing on disk, so it comes back without a key, and the test says so.

        Raises:
            KeyError: There is no such node.
            ValueError: `empty` is not True.
        """
        if name not in self.names:
            raise KeyError(name)
        if empty is not True:
            raise ValueError(f"empty={empty!r}: a node keeps nothing on disk, so it comes back empty")
        if name in self._running:
            await self.kill(name)
        return await self._start(name)

    async def noticed(self, within: float = DEADLINE_SECONDS) -> None:
        """Waits until each node knows whom it reaches: what was cut, mended, killed or started.

        Args:
            within: Seconds.

        Raises:
            TimeoutError: Some do not; says which.
        """
        await _until(self._mistaken, within)

    async def healed(self, within: float = DEADLINE_SECONDS) -> None:
        """Waits until all nodes hold the same of what they keep together.

        Each two must have been found equal by a comparison that began after this call, and both must say so:
        then whatever one of them had at the time of the call all others have that keep it. While the network
        is cut that does not come true.

        Args:
            within: Seconds.

        Raises:
            TimeoutError: It did not come true; says between whom.
        """
        await _until(partial(self._unequal, time.monotonic()), within)

    async def _start(self, name: str) -> Node:
        place = self._host, _free_port(self._host)
        node = Node(parse(self._seen_by(name, place)), name=name, listen=True)
        if self._setup is not None:
            self._setup(node)
        await node.__aenter__()
        self._running[name] = node
        self._network.join(name, place)
        return node

    async def _leave(
        self,
        name: str,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops a node in order, if it runs."""
        node = self._running.pop(name, None)
        if node is not None:
            await node.__aexit__(kind, error, trace)

    def _seen_by(self, name: str, place: tuple[str, int]) -> dict[str, Any]:
        """The configuration as a node has it: where it finds another one is a relay's door."""
        places = {other: self._network.door(name, other) for other in self.names if other != name}
        places[name] = place
        members = [
            member | {"address": "{}:{}".format(*places[member["name"]])}
            for member in self._document["members"]
        ]
        return {**self._document, "members": members}

    def _mistaken(self) -> Iterator[str]:
        for name, node in self._running.items():
            for peer in _peers(node):
                alive = peer["state"] == "alive"
                if peer["name"] != name and alive != self._network.is_whole(name, peer["name"]):
                    yield f"to {name}, {peer['name']} is {peer['state']}"

    def _unequal(self, since: float) -> Iterator[str]:
        for name, node in self._running.items():
            now = time.monotonic()  # before the node looks at its own clock, so that no error is in favour
            for peer in _peers(node):
                if frozenset({name, peer["name"]}) not in self._kept_together:
                    continue
                ago = peer["last_equal_ms"]
                if peer["name"] in self._running and (ago is None or now - (ago + 1) / 1000 <= since):
                    yield f"{name} was not found equal to {peer['name']}, which is {peer['state']} to it"


@asynccontextmanager
async def cluster(
    nodes: int = 3,
    *,
    config: Mapping[str, Any] | None = None,
    keyspaces: Sequence[Mapping[str, Any]] = (),
    setup: Callable[[Node], object] | None = None,
    within: float = DEADLINE_SECONDS,
) -> AsyncIterator[Cluster]:
    """A cluster of nodes in this process, called a, b, c and so on, that all know each other.

    Each is a `turbopump.Node` with keys of its own, and serves clients on a unix socket, which is the first
    of its `addresses`. Directory, sockets and nodes are gone at the end. The relays run in this event loop:
    what blocks it, such as a `turbopump.Client` in the same thread, stops the network too.

    Args:
        nodes: How many, 1 to 16.
        config: What to have otherwise, as in a configuration file; sections are merged. By default the
            defaults, but for `cluster.sync_seconds` 0.1, `cluster.peer_timeout` 1 and `drain_seconds` 1.
        keyspaces: As in a configuration file.
        setup: Called with each new node before it starts, restarted ones too: the place for `node.on(...)`.
        within: Seconds until all must know each other.

    Raises:
        ConfigError: The configuration is not valid; nothing was started.
        TimeoutError: They did not find each other in time; says who.

    Example:
        async with cluster(nodes=3) as nodes:
            await nodes["a"].put("greeting", "hello")
            await nodes.healed()
            assert await nodes["b"].get("greeting") == b"hello"
    """
    if not 1 <= nodes <= NODES_MAX:
        raise ConfigError([f"{nodes} nodes: 1 to {NODES_MAX}"])
    # One of 16 million: no other test takes a port there between our looking for a free one and the node.
    host = "127.{}.{}.{}".format(*(1 + secrets.randbelow(254) for _ in range(3)))
    with TemporaryDirectory(prefix="turbopump-") as folder:
        document = _document(Path(folder), nodes, {**(config or {}), **_listed(keyspaces)})
        names = [member["name"] for member in document["members"]]
        with closing(Network(names, host)) as network:
            made = Cluster(document, network, host, setup)
            async with AsyncExitStack() as stack:
                for name in names:
                    stack.push_async_exit(partial(made._leave, name))  # noqa: SLF001 - ours
                    await made._start(name)  # noqa: SLF001 - ours
                await made.noticed(within)
                yield made


def _listed(keyspaces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"keyspaces": [dict(keyspace) for keyspace in keyspaces]} if keyspaces else {}


def _document(folder: Path, nodes: int, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What `turbopump init` writes, in this folder, with these overrides."""
    if "members" in overrides:
        raise ConfigError(["members: they are made here; say how many with `nodes`"])
    make(folder, Plan(nodes, tcp_port=None, socket_directory=folder))
    document: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    document["cluster"] |= {"secret": str(folder / SECRET), "key": str(folder / KEYS / "{name}.key")}
    for member in document["members"]:
        member.setdefault("socket", str(folder / "socket"))
    return _merged(_merged(document, _QUICK), overrides)


def _merged(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The document, in which sections have what they had and what is to be otherwise."""
    merged = dict(document)
    for name, value in overrides.items():
        section = merged.get(name)
        if isinstance(section, Mapping) and isinstance(value, Mapping):
            merged[name] = {**section, **value}
        else:
            merged[name] = value
    return merged


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _kept_together(config: Config) -> set[frozenset[str]]:
    """The pairs of members that have to hold the same of something."""
    topology = Topology(config)
    rings = {keyspace.prefix: topology.ring(keyspace) for keyspace in rules(config)}
    owners = {tuple(sorted(ring.owners_of_slot(slot))) for ring in rings.values() for slot in range(SLOTS)}
    return {frozenset(pair) for names in owners for pair in combinations(names, 2)}


def _peers(node: Node) -> Iterable[Mapping[str, Any]]:
    return cast("Iterable[Mapping[str, Any]]", node.stats()["peers"])


async def _until(complaints: Callable[[], Iterator[str]], within: float) -> None:
    """Looks again until there is nothing to complain of."""
    deadline = time.monotonic() + within
    while found := list(complaints()):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not within {within:g} s: {'; '.join(found)}")
        await asyncio.sleep(PAUSE_SECONDS)
