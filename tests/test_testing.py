"""turbopump.testing: whole clusters in a test, and the network that misbehaves on demand."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from typing import Any, cast

import pytest
import pytest_asyncio

import turbopump.testing
from conftest import turn
from test_readme import environment
from turbopump import Changed, ConfigError, Node, UnavailableError
from turbopump.testing import Cluster, cluster
from turbopump.testing.network import Way, Weather

DEADLINE_SECONDS = 20.0
NAMES = ("a", "b", "c")
# For stories with a split that is noticed soon, and for those in which no node must take another for dead,
# however busy the machine is.
QUICK: dict[str, Any] = {"cluster": {"peer_timeout": 0.5}}
STEADY: dict[str, Any] = {"cluster": {"peer_timeout": 15}}


async def values(nodes: Cluster, key: str) -> list[bytes | None]:
    """What each node has under a key."""
    return [await node.get(key) for node in nodes]


def states(node: Node) -> dict[str, str]:
    """How the others are to a node."""
    peers = cast("Iterable[dict[str, Any]]", node.stats()["peers"])
    return {peer["name"]: peer["state"] for peer in peers if peer["state"] != "self"}


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_all_know_each_other_and_nothing_is_left(count: int) -> None:
    """As soon as one is inside; a directory, sockets and threads are gone behind."""
    async with cluster(nodes=count) as nodes:
        assert [node.member.name for node in nodes] == list("abcde"[:count])
        assert [set(states(node).values()) for node in nodes] == [{"alive"} if count > 1 else set()] * count
        await nodes["a"].put("greeting", "hello")
        await nodes.healed()
        assert await values(nodes, "greeting") == [b"hello"] * count
        found = [Path(node.addresses[0]) for node in nodes]
        assert all(path.is_socket() for path in found)
        every = list(nodes)
    assert [node.state for node in every] == ["stopped"] * count
    assert not found[0].parent.exists()


@pytest_asyncio.fixture
async def trio() -> AsyncIterator[Cluster]:
    """What a user writes: pytest enters and leaves it in different tasks."""
    async with cluster() as nodes:
        yield nodes


async def test_it_is_a_fixture(trio: Cluster) -> None:
    """Which leaves as it came."""
    await trio["c"].put("key", "value")
    await trio.healed()
    assert await values(trio, "key") == [b"value"] * 3


def test_the_example_of_the_module_is_a_test(tmp_path: Path) -> None:
    """As it stands there, with pytest-asyncio alone; and it runs more than nothing."""
    text = turbopump.testing.__doc__ or ""
    _, _, example = text.partition("Example:\n")
    file = tmp_path / "test_shop.py"
    file.write_text(dedent(example), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pytest_asyncio.plugin", str(file)]
    alone = environment() | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=alone, capture_output=True, text=True, timeout=50, check=False
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


async def test_both_sides_of_a_split_agree_when_it_is_over() -> None:
    """Each side goes on with what it may; later all have all, and one value of each key."""
    async with cluster(config=QUICK) as nodes:
        nodes.split({"a"}, {"b", "c"})
        await nodes.noticed()
        await nodes["b"].put("right", "kept by two of three")
        with pytest.raises(UnavailableError, match="written on 1 of 3 replicas"):
            await nodes["a"].put("left", "kept by one")
        with suppress(UnavailableError):
            await nodes["a"].put("both", "from a")
        await nodes["c"].put("both", "from c")
        assert await values(nodes, "left") == [b"kept by one", None, None]
        assert await values(nodes, "right") == [None, b"kept by two of three", b"kept by two of three"]

        with pytest.raises(TimeoutError, match=r"a was not found equal to b.*c was not found equal to a"):
            await nodes.healed(within=0.1)
        nodes.mend()
        await nodes.healed()

        assert await values(nodes, "left") == [b"kept by one"] * 3
        assert await values(nodes, "right") == [b"kept by two of three"] * 3
        [last] = set(await values(nodes, "both"))
        assert last in {b"from a", b"from c"}
        assert len({node.merkle().root() for node in nodes}) == 1


async def test_one_direction_can_be_cut() -> None:
    """Then these two count as apart, in both directions, and a third one brings the news."""
    async with cluster(config=QUICK) as nodes:
        nodes.cut("a", "b")
        await nodes.noticed()
        assert "alive" not in {states(nodes["a"])["b"], states(nodes["b"])["a"]}
        assert nodes.traffic("a", "b").cut > 0
        assert nodes.traffic("b", "a").cut == 0
        async with nodes["b"].watch("news") as changes, asyncio.timeout(DEADLINE_SECONDS):
            await nodes["a"].put("news", "by way of c")
            assert (await anext(changes)).kind == "healed"
        nodes.mend()
        await nodes.healed()
        assert set(states(nodes["a"]).values()) == set(states(nodes["b"]).values()) == {"alive"}


async def test_a_node_alone_is_cut_off_from_all() -> None:
    """Who stands in no group is in one with the others that do not."""
    async with cluster(config=QUICK) as nodes:
        nodes.split({"b"})
        await nodes.noticed()
        assert "alive" not in states(nodes["b"]).values()
        assert (states(nodes["a"])["c"], states(nodes["c"])["a"]) == ("alive", "alive")


async def test_bad_weather_loses_nothing_that_was_confirmed() -> None:
    """One datagram of twenty is lost, some come twice, and none in order."""
    async with cluster(config=STEADY) as nodes:
        nodes.weather(loss=0.05, delay=0.001, jitter=0.002, duplicate=0.05, seed=7)
        names = [f"key{number}" for number in range(200)]
        for at in range(0, len(names), 20):
            writes = [
                nodes[NAMES[at // 20 % 3]].put(name, f"value of {name}") for name in names[at : at + 20]
            ]
            await asyncio.gather(*writes)
        await nodes.healed()
        for node in nodes:
            assert [await node.get(name) for name in names] == [f"value of {n}".encode() for n in names]
        traffic = [nodes.traffic(one, other) for one in NAMES for other in NAMES if one != other]
        assert sum(way.lost for way in traffic) > 0
        assert sum(way.repeated for way in traffic) > 0


async def test_a_delay_is_felt() -> None:
    """There and back; and not any more in fair weather."""
    async with cluster(config=STEADY, keyspaces=[{"prefix": "", "write_acks": "all"}]) as nodes:
        loop = asyncio.get_running_loop()
        nodes.weather(delay=0.1)
        begun = loop.time()
        await nodes["a"].put("slow", "1")
        assert loop.time() - begun >= 0.2
        nodes.weather()
        await nodes.healed()


def test_the_weather_is_repeatable() -> None:
    """From its seed, on each way by itself."""

    def fates(source: str, seed: int) -> list[tuple[float, ...]]:
        way = Way(source, "z", "127.0.0.1")
        way.door.close()
        way.change(Weather(loss=0.3, delay=0.1, jitter=0.1, duplicate=0.3), seed)
        return [tuple(way.fates()) for _ in range(1000)]

    found = fates("a", 7)
    assert found == fates("a", 7)
    assert found not in (fates("a", 8), fates("b", 7))
    assert {len(fate) for fate in found} == {0, 1, 2}
    assert all(0.1 <= delay <= 0.2 for fate in found for delay in fate)
    assert 250 < sum(not fate for fate in found) < 350


async def test_who_comes_back_empty_is_made_whole() -> None:
    """With what was written meanwhile, and without what was deleted."""
    async with cluster(config=QUICK) as nodes:
        for number in range(300):
            await nodes["a"].put(f"key{number}", str(number))
        await nodes.healed()
        old = nodes["b"]
        await nodes.kill("b")
        assert old.state == "stopped"
        with pytest.raises(KeyError):
            nodes["b"]
        assert [node.member.name for node in nodes] == ["a", "c"]
        await nodes["c"].put("later", "1")
        for number in range(0, 300, 3):
            await nodes["c"].delete(f"key{number}")

        assert await nodes.restart("b", empty=True) is nodes["b"]
        await nodes.healed()

        expected = {b"key%d" % number for number in range(300) if number % 3} | {b"later"}
        assert {key async for key in nodes["b"].list()} == expected
        assert len({node.merkle().root() for node in nodes}) == 1


async def test_who_comes_back_empty_asks_the_others_before_it_says_no() -> None:
    """From the first moment on, before it has heard of them."""
    async with cluster(config=QUICK) as nodes:
        for number in range(300):
            await nodes["a"].put(f"key{number}", str(number))
        await nodes.healed()
        await nodes.kill("b")
        restarted = await nodes.restart("b", empty=True)
        found = await asyncio.gather(*(restarted.get(f"key{number}") for number in range(300)))
        assert found == [str(number).encode() for number in range(300)]
        assert await restarted.get("never written") is None


async def test_a_killed_node_says_no_goodbye() -> None:
    """The others find out by themselves; its callbacks end."""
    ended = asyncio.Event()
    begun = asyncio.Event()

    def setup(node: Node) -> None:
        @node.on("written")
        async def endless(_change: Changed) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        assert endless is not None

    async with cluster(config=QUICK, setup=setup) as nodes:
        await nodes["c"].put("key", "value")
        await begun.wait()
        carried = [nodes.traffic("c", name).carried for name in ("a", "b")]
        await nodes.kill("c")
        assert ended.is_set()
        await nodes.noticed()
        assert "alive" not in {states(nodes["a"])["c"], states(nodes["b"])["c"]}
        assert [nodes.traffic("c", name).carried for name in ("a", "b")] == carried


@pytest.mark.parametrize("copies", [1, 2])
async def test_in_a_partition_those_are_compared_that_share_keys(copies: int) -> None:
    """With one copy nobody does; each key is where it belongs, and read from anywhere."""
    async with cluster(config={**STEADY, "placement": "partition", "copies": copies}) as nodes:
        for number in range(30):
            await nodes[NAMES[number % 3]].put(f"key{number}", str(number))
        await nodes.healed()
        for number in range(30):
            assert await values(nodes, f"key{number}") == [str(number).encode()] * 3
        assert sum(cast("int", node.stats()["keys"]) for node in nodes) == 30 * copies


async def test_healed_is_of_now() -> None:
    """What was written before the call is everywhere behind it, each time."""
    config = {"cluster": {**STEADY["cluster"], "sync_seconds": 0.05}}
    async with cluster(config=config, keyspaces=[{"prefix": "", "write_acks": "one"}]) as nodes:
        nodes.weather(delay=0.02)
        for number in range(10):
            await nodes[NAMES[number % 3]].put("key", str(number))
            assert set(await values(nodes, "key")) != {str(number).encode()}
            await nodes.healed()
            assert set(await values(nodes, "key")) == {str(number).encode()}


async def test_what_a_test_raises_comes_out_as_it_is() -> None:
    """Whatever is under way: who waits for the other side of a split is told that the node stops."""
    waits: list[asyncio.Task[str]] = []

    async def fail() -> None:
        async with cluster(config=STEADY) as nodes:
            nodes.split({"a"})
            waits.append(asyncio.create_task(nodes["a"].put("key", "value")))
            await turn()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    with pytest.raises(UnavailableError) as raised:
        await waits[0]
    assert raised.value.code == "shutting_down"


async def test_what_cannot_be_is_refused() -> None:
    """By its name, and nothing changes."""
    wrongs: list[dict[str, Any]] = [{"members": []}, {"cluster": {"sync_seconds": 0}}, {"nonsense": 1}]
    for wrong in wrongs:
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            await cluster(config=wrong).__aenter__()
    with pytest.raises(ConfigError, match="17 nodes: 1 to 16"):
        await cluster(nodes=17).__aenter__()
    async with cluster(nodes=2) as nodes:
        with pytest.raises(ValueError, match="b stands in two groups"):
            nodes.split({"a", "b"}, {"b"})
        for missing in (lambda: nodes.split({"x"}), lambda: nodes.cut("a", "x"), lambda: nodes["x"]):
            with pytest.raises(KeyError, match="x"):
                missing()
        with pytest.raises(ValueError, match="a has no way to itself"):
            nodes.cut("a", "a")
        with pytest.raises(ValueError, match=r"loss=1\.5: 0 to 1"):
            nodes.weather(loss=1.5)
        with pytest.raises(KeyError, match="x"):
            await nodes.kill("x")
        with pytest.raises(KeyError, match="x"):
            await nodes.restart("x", empty=True)
        with pytest.raises(ValueError, match="comes back empty"):
            await nodes.restart("a", empty=cast("Any", False))
        await nodes["a"].put("key", "value")
