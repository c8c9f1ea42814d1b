"""What callbacks, watchers and `versions` see of a bad network: on each node exactly what happened to it."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from conftest import turn
from turbopump import AsyncClient, Changed, Client, Node, UnavailableError
from turbopump.testing import Cluster, cluster

DEADLINE_SECONDS = 20.0
KINDS = ("written", "arrived", "healed", "deleted", "expired", "lost")
NAMES = ("a", "b", "c")
# For stories with a split that is noticed soon, and for those in which no node must take another for dead,
# however busy the machine is.
QUICK: dict[str, Any] = {"cluster": {"peer_timeout": 0.5}}
STEADY: dict[str, Any] = {"cluster": {"peer_timeout": 15}}
# A write on any node succeeds, whoever is away; under "all/" it has been seen by everybody when it returns.
KEYSPACES = [{"prefix": "", "write_acks": "one"}, {"prefix": "all/", "write_acks": "all"}]
FENCE = "fence"


class Told:
    """What callbacks of every kind were told on each node, in order."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, Changed]] = []
        self._more = asyncio.Event()

    def setup(self, node: Node) -> None:
        """Has a node tell."""

        @node.on(*cast("Any", KINDS), concurrency=1)
        async def tell(change: Changed) -> None:
            self.changes.append((node.member.name, change))
            self._more.set()

        assert tell is not None

    def of(self, name: str) -> list[str]:
        """Kinds and keys of a node's changes."""
        return [f"{change.kind} {change.key.decode()}" for node, change in self.changes if node == name]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits until something is so after a change."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not holds():
                self._more.clear()
                await self._more.wait()

    async def all_of(self, nodes: Cluster) -> None:
        """Waits until every callback has run that is due, by writing what all nodes are told last."""
        await nodes["a"].put(FENCE, "last")
        ends = {f"{kind} {FENCE}" for kind in KINDS}
        await self.until(lambda: all(ends & set(self.of(node.member.name)) for node in nodes))


async def values(nodes: Cluster, key: str) -> list[bytes | None]:
    """What each node has under a key."""
    return [await node.get(key) for node in nodes]


async def test_each_node_is_told_what_happened_here_and_elsewhere() -> None:
    """Written and arrived, deleted and expired, exactly once each and in order."""
    told = Told()
    async with cluster(config=STEADY, keyspaces=KEYSPACES, setup=told.setup) as nodes:
        await nodes["a"].put("all/1", "x")
        await nodes["b"].put("all/2", "x")
        await nodes["b"].put("all/1", "y")
        await nodes["c"].delete("all/1")
        await nodes["c"].delete("all/never")
        await nodes["c"].put("all/3", "x", ttl=0.1)
        await told.until(lambda: all("expired all/3" in told.of(name) for name in NAMES))
        await told.all_of(nodes)
    stories = [("a", "all/1"), ("b", "all/2"), ("b", "all/1"), ("c", "all/3"), ("a", FENCE)]
    for name in NAMES:
        one, two, again, short, last = (
            f"{'written' if name == writer else 'arrived'} {key}" for writer, key in stories
        )
        assert told.of(name) == [one, two, again, "deleted all/1", short, "expired all/3", last]


async def test_in_a_partition_those_are_told_that_keep_the_key() -> None:
    """One of them that it was written there, the other that it arrived; whoever was asked to write it."""
    told = Told()
    config = {**STEADY, "placement": "partition", "copies": 2}
    async with cluster(config=config, setup=told.setup) as nodes:
        keys = [f"key{number}" for number in range(12)]
        for key in keys:
            await nodes["a"].put(key, "x")
            await nodes["a"].delete(key)
        await nodes.healed()
        await told.until(lambda: len(told.changes) == 4 * len(keys))
    for key in keys:
        of = {name: [what.split()[0] for what in told.of(name) if what.split()[1] == key] for name in NAMES}
        assert sorted(of.values()) == [[], ["arrived", "deleted"], ["written", "deleted"]]
    assert all(told.of(name) for name in NAMES)


async def test_what_was_missed_is_healed_and_not_arrived() -> None:
    """Each key once, on the side that did not have it; deletes are deletes."""
    told = Told()
    async with cluster(config=QUICK, keyspaces=KEYSPACES, setup=told.setup) as nodes:
        await nodes["a"].put("old", "x")
        await nodes.healed()
        nodes.split({"a"}, {"b", "c"})
        await nodes.noticed()
        for number in range(5):
            await nodes["b"].put(f"right{number}", "x")
        await nodes["b"].delete("old")
        await nodes["a"].put("left", "x")
        nodes.mend()
        await nodes.healed()
        await told.all_of(nodes)
    first, *rest = told.of("a")
    assert first == "written old"
    missed = [f"healed right{number}" for number in range(5)]
    assert sorted(rest[:-1]) == sorted(["written left", "deleted old", *missed])
    for name in ("b", "c"):
        assert [what for what in told.of(name) if what.endswith("left")] == ["healed left"]
        assert len([what for what in told.of(name) if "right" in what]) == 5


async def test_who_comes_back_empty_is_told_of_each_key_once() -> None:
    """As healed; the others are told of nothing."""
    told = Told()
    async with cluster(config=STEADY, keyspaces=KEYSPACES, setup=told.setup) as nodes:
        keys = [f"all/{number}" for number in range(50)]
        for key in keys:
            await nodes["a"].put(key, "x")
        await told.all_of(nodes)
        told.changes.clear()
        await nodes.restart("c", empty=True)
        await nodes.healed()
        await told.until(lambda: len(told.of("c")) > len(keys))
        await nodes["a"].put("all/after", "x")
        await told.until(lambda: all(any("after" in what for what in told.of(name)) for name in NAMES))
    assert sorted(told.of("c")[:-1]) == sorted(f"healed {key}" for key in [*keys, FENCE])
    assert [told.of(name) for name in ("a", "b")] == [["written all/after"], ["arrived all/after"]]


async def two_that_did_not_know_each_other(nodes: Cluster, told: Told, first: str) -> list[str]:
    """A key that a and b, which c hears, have each written alone; both versions, the later one last."""
    versions = []
    for name in (first, "b" if first == "a" else "a"):
        versions.append(await nodes[name].put("key", f"from {name}"))
        if name == "b":
            await told.until(lambda: told.of("c") != [])
    return sorted(versions)


def losses(told: Told, name: str) -> list[str]:
    """The versions of which a node was told that they are lost."""
    return [change.version for node, change in told.changes if (node, change.kind) == (name, "lost")]


async def siblings(node: Node) -> list[tuple[str, bytes]]:
    """Versions and values of `key` that lost, as clients see them."""
    async with AsyncClient(node.addresses[0]) as client:
        known = await client.versions("key")
        lost = [version.version for version in known if version.sibling]
        entries = [await client.read("key", version=version) for version in lost]
        return [(entry.version, entry.value) for entry in entries if entry is not None]


async def check_loss(nodes: Cluster, told: Told, lost: str, won: str, *, noticed: bool) -> None:
    """All have one value, and know which one gave way to it.

    Some of them, if the split was noticed: who is healed by the third node, which was told what is right
    already, cannot know that its own value was not known to the writer.
    """
    read = [await node.read("key") for node in nodes]
    assert {entry.version for entry in read if entry is not None} == {won}
    [winner] = set(await values(nodes, "key"))
    loser = b"from a" if winner == b"from b" else b"from b"
    told_of = [losses(told, name) for name in NAMES]
    kept = [await siblings(node) for node in nodes]
    assert [bool(of) for of in told_of] == [bool(of) for of in kept]
    assert [of for of in told_of if of] == [[lost]] * (sum(map(bool, told_of)) if noticed else 3)
    assert [of for of in kept if of] == [[(lost, loser)]] * sum(map(bool, kept))
    assert any(kept)


async def tell_of_a_split(
    nodes: Cluster, told: Told, first: str, writes: str, *, noticed: bool = False
) -> None:
    """Two write a key while the network is cut, and it is mended."""
    earlier, later = await two_that_did_not_know_each_other(nodes, told, first)
    nodes.mend()
    await nodes.healed()
    await told.all_of(nodes)
    lost, won = (earlier, later) if writes == "versioned" else (later, earlier)
    await check_loss(nodes, told, lost, won, noticed=noticed)


async def until_over(node: Node, key: str) -> None:
    """Waits until nobody reads a key any more."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await node.exists(key):
            await turn()


async def test_what_is_over_is_not_healed() -> None:
    """Whoever is told of a key finds it; this one is gone before the node that is told has started."""
    told = Told()
    async with cluster(config=QUICK, keyspaces=KEYSPACES, setup=told.setup) as nodes:
        await nodes.kill("c")
        await nodes.noticed()
        await nodes["a"].put("key", "value", ttl=0.05)
        await until_over(nodes["a"], "key")
        await nodes.restart("b", empty=True)
        await nodes.healed()
        await nodes["b"].put("last", "x")
        await told.until(lambda: "written last" in told.of("b"))
        assert "healed key" not in told.of("b")


@pytest.mark.parametrize("first", ["a", "b"])
@pytest.mark.parametrize("writes", ["versioned", "immutable"])
async def test_who_loses_within_a_connection_is_kept(first: str, writes: str) -> None:
    """A split that nobody noticed: what was sent comes late, and is known to be concurrent."""
    told = Told()
    keyspaces = [{"prefix": "", "write_acks": "one", "writes": writes}]
    async with cluster(config=STEADY, keyspaces=keyspaces, setup=told.setup) as nodes:
        nodes.split({"a"}, {"b", "c"})
        await tell_of_a_split(nodes, told, first, writes)


@pytest.mark.parametrize("first", ["a", "b"])
@pytest.mark.parametrize("writes", ["versioned", "immutable"])
async def test_who_loses_to_the_other_side_of_a_split_is_kept(first: str, writes: str) -> None:
    """The README's `lost`, and `versions`, for a split that was noticed."""
    told = Told()
    keyspaces = [{"prefix": "", "write_acks": "one", "writes": writes}]
    async with cluster(config=QUICK, keyspaces=keyspaces, setup=told.setup) as nodes:
        nodes.split({"a"}, {"b", "c"})
        await nodes.noticed()
        await tell_of_a_split(nodes, told, first, writes, noticed=True)


async def test_who_knew_what_he_replaced_loses_nobody() -> None:
    """Writes one after the other, on different nodes and through a split, leave no siblings."""
    told = Told()
    async with cluster(config=QUICK, keyspaces=KEYSPACES, setup=told.setup) as nodes:
        for name in ("a", "b", "c", "a"):
            await nodes[name].put("key", f"from {name}")
            await nodes.healed()
        nodes.split({"a"}, {"b", "c"})
        await nodes.noticed()
        await nodes["b"].put("key", "from b")
        await nodes["b"].put("key", "from b again")
        nodes.mend()
        await nodes.healed()
        await told.all_of(nodes)
        assert [losses(told, name) for name in NAMES] == [[]] * 3
        assert [await siblings(node) for node in nodes] == [[]] * 3
        assert await values(nodes, "key") == [b"from b again"] * 3


async def next_of(changes: Any) -> tuple[str, bytes]:
    """The kind and the key of what a watcher is told next."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        change = await anext(changes)
    return change.kind, change.key


Watched = Callable[..., Any]  # `watch` of a node or of an asyncio client


async def follow(nodes: Cluster, watch: Watched) -> None:
    """What one who watches b sees of writes on a, before a split, after it, and after having been away."""
    async with watch("w/") as changes:
        await nodes["a"].put("w/1", "x")
        await nodes["a"].put("other", "x")
        assert await next_of(changes) == ("arrived", b"w/1")
        nodes.split({"b"})
        await nodes.noticed()
        await nodes["a"].put("w/2", "x")
        nodes.mend()
        assert await next_of(changes) == ("healed", b"w/2")
        seen = changes.revision
    await nodes.noticed()
    await nodes["a"].put("all/3", "x")
    await nodes["a"].put("w/3", "x")
    await nodes["b"].put("w/4", "x")
    await nodes["a"].delete("w/1")
    await nodes.healed()
    async with watch("w/", since=seen) as changes:
        told = [await next_of(changes) for _ in range(3)]
        assert sorted(told) == [("arrived", b"w/3"), ("deleted", b"w/1"), ("written", b"w/4")]
        await nodes["c"].put("w/5", "x")
        assert await next_of(changes) == ("arrived", b"w/5")
    async with watch(since=seen, kinds=["deleted"]) as changes:
        assert await next_of(changes) == ("deleted", b"w/1")


async def test_a_node_is_watched_through_a_split() -> None:
    """Within the program."""
    async with cluster(keyspaces=KEYSPACES) as nodes:
        await follow(nodes, nodes["b"].watch)


async def test_a_client_watches_through_a_split() -> None:
    """Over the socket."""
    async with (
        cluster(keyspaces=KEYSPACES) as nodes,
        AsyncClient(nodes["b"].addresses[0]) as client,
    ):
        await follow(nodes, client.watch)


async def test_a_blocking_client_watches_from_a_thread() -> None:
    """In the event loop's own it would stop the network that it waits for."""
    async with cluster(keyspaces=KEYSPACES) as nodes:
        where = nodes["b"].addresses[0]
        with Client(where) as client, client.watch("w/") as changes:
            await nodes["a"].put("w/1", "x")
            first = await asyncio.to_thread(next, changes)
            nodes.split({"b"})
            await nodes.noticed()
            await nodes["a"].put("w/2", "x")
            nodes.mend()
            second = await asyncio.to_thread(next, changes)
            assert [(first.kind, first.key), (second.kind, second.key)] == [
                ("arrived", b"w/1"),
                ("healed", b"w/2"),
            ]
            with client.watch("w/", since=first.revision) as again:
                assert await asyncio.to_thread(next, again) == second


async def test_nobody_goes_on_behind_a_restart() -> None:
    """A revision is of one life of a node: what came between cannot be told, and that is said."""
    async with cluster(config=STEADY, keyspaces=KEYSPACES) as nodes:
        async with nodes["b"].watch() as changes:
            await nodes["a"].put("all/1", "x")
            assert await next_of(changes) == ("arrived", b"all/1")
            seen = changes.revision
        await nodes.restart("b", empty=True)
        with pytest.raises(UnavailableError) as raised:
            async with nodes["b"].watch(since=seen):
                pass
        assert raised.value.code == "gone"
        await nodes.healed()
