"""callbacks.py: what is run after something happened to a key, in which bounds, and what is counted."""

import asyncio
import json
import os
import queue
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from conftest import Serve, turn
from turbopump import Changed, Client, ConfigError, Node, log
from turbopump._native import Engine
from turbopump.callbacks import Callbacks
from turbopump.config import Callback, Config, Member, Terms, engine_options, parse

TURNS_MAX = 100_000
SEEN: queue.Queue[Changed] = queue.Queue()


def note(change: Changed) -> None:
    """What the configurations here name."""
    SEEN.put(change)


def config(*callbacks: dict[str, Any], **more: Any) -> Config:
    """A configuration with callbacks."""
    return parse({"callbacks": list(callbacks), **more})


def change(key: str = "a", kind: str = "written") -> Changed:
    """A change that no engine made."""
    made = SimpleNamespace(revision=1, kind=kind, key=key.encode(), version="v", size=1)
    return cast("Changed", made)


async def until(happened: Callable[[], bool]) -> None:
    """Lets others run until something has happened."""
    async with asyncio.timeout(20):
        while not happened():
            await turn()


def figures(node: Node, index: int = 0) -> dict[str, Any]:
    """What is counted of a callback."""
    return cast("list[dict[str, Any]]", node.stats()["callbacks"])[index]


async def test_decorators() -> None:
    """Coroutine functions and others, before the start and after, by prefix and event."""
    node, found, gone = Node(), asyncio.Queue[str](), asyncio.Queue[str]()

    @node.on("written", prefix="a/")
    async def wrote(change: Changed) -> None:
        value = await node.get(change.key)
        found.put_nowait(f"{change.key.decode()}={(value or b'').decode()}")

    async with node:
        loop = asyncio.get_running_loop()

        @node.on("deleted")
        def deleted(change: Changed) -> None:
            loop.call_soon_threadsafe(gone.put_nowait, change.key.decode())

        await node.put("b", "0")
        await node.put("a/1", "x")
        await node.delete("b")
        assert await found.get() == "a/1=x"
        assert await gone.get() == "b"
        await until(lambda: figures(node, 1)["run"] == 1)
        assert found.empty()
        with pytest.raises(ConfigError, match="concurrency"):
            node.on("written", concurrency=0)
        with pytest.raises(ConfigError, match="events"):
            node.on(cast("Any", "eaten"))
    assert wrote is not None
    assert deleted is not None


async def test_a_function_of_the_configuration() -> None:
    """By its module and name, in a thread."""
    async with Node(config({"run": f"{__name__}:note", "prefix": "c/", "events": ["expired"]})) as node:
        await node.put("c/1", "123", ttl=0.001)
        seen = await asyncio.to_thread(SEEN.get, timeout=20)
        assert (seen.kind, seen.key, seen.size) == ("expired", b"c/1", 3)


def test_what_cannot_be_found_is_named() -> None:
    """All of it, before anything starts."""
    with pytest.raises(ConfigError) as raised:
        Node(
            config({"run": "nowhere:f"}, {"run": "json:nothing"}, {"run": "some-entry"}, {"run": "sys:path"})
        )
    assert [problem.split(":")[0] for problem in raised.value.problems] == [
        f"callbacks[{index}].run" for index in range(4)
    ]


async def test_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name in the group."""

    def entry_points(*, group: str, name: str) -> list[Any]:
        assert (group, name) == ("turbopump.callbacks", "mine")
        return [SimpleNamespace(load=lambda: note)]

    monkeypatch.setattr("turbopump.callbacks.entry_points", entry_points)
    async with Node(config({"run": "mine"})) as node:
        await node.put("e", "1")
        assert (await asyncio.to_thread(SEEN.get, timeout=20)).key == b"e"


@pytest.fixture
def fifo(folder: Path) -> Path:
    """What a command writes to, and a test waits at."""
    path = folder / "fifo"
    os.mkfifo(path)
    return path


async def test_a_command(fifo: Path) -> None:
    """Has the change in its environment and on its stdin; no shell has looked at it."""
    script = f'(cat; echo "$TURBOPUMP_KIND $TURBOPUMP_KEY $TURBOPUMP_SIZE $TURBOPUMP_VERSION $1") > {fifo}'
    command = {"run": ["/bin/sh", "-c", script, "sh", "$HOME `id`"], "events": ["written"]}
    async with Node(config(command)) as node:
        version = await node.put("a b;$x", "12345")
        told, line, _ = (await asyncio.to_thread(fifo.read_text)).split("\n")
        assert line == f"written a%20b;$x 5 {version} $HOME `id`"
        revision = json.loads(told).pop("revision")
        expected = {"key": "a%20b;$x", "kind": "written", "size": 5, "version": version}
        assert json.loads(told) == expected | {"revision": revision}
        await until(lambda: figures(node)["run"] == 1)


async def test_a_command_that_hangs_is_killed_with_its_children(fifo: Path) -> None:
    """At its time limit; nothing of it is left, not even a zombie."""
    script = f"sleep 1000 & echo $$ $! > {fifo}; wait"
    async with Node(config({"run": ["/bin/sh", "-c", script], "timeout": 0.3})) as node:
        await node.put("a", "1")
        shell, child = map(int, (await asyncio.to_thread(fifo.read_text)).split())
        await until(lambda: figures(node)["failed"] == 1)
        with pytest.raises(ProcessLookupError):
            os.kill(shell, 0)
        await until(lambda: _is_dead(child))
        assert figures(node)["running"] == 0


def _is_dead(pid: int) -> bool:
    """Whether a process that is not ours to take has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").split()[2] == "Z"
    except FileNotFoundError:
        return True


async def test_a_command_that_fails_is_counted() -> None:
    """By its exit code, or because there is no such program."""
    async with Node(config({"run": ["false"]}, {"run": ["/nowhere/program"]})) as node:
        await node.put("a", "1")
        await until(lambda: figures(node, 0)["failed"] == figures(node, 1)["failed"] == 1)


async def test_retries_wait_twice_as_long_each_time() -> None:
    """And end with success, or are given up."""
    waits: list[float] = []
    fails = [True, True, False, True, True, True, True]

    async def pause(seconds: float) -> None:
        waits.append(seconds)

    async def work(_change: Changed) -> None:
        if fails.pop(0):
            raise ValueError("not now")

    callbacks = Callbacks((), log.logger("test"), pause)
    callbacks.add(Terms(retries=3, backoff=0.5, concurrency=1), work)
    async with asyncio.TaskGroup() as group:
        callbacks.start(group.create_task, lambda _rules: None)
        callbacks.take(change())
        callbacks.take(change())
    [told] = callbacks.stats()
    assert waits == [0.5, 1, 0.5, 1, 2]
    assert (told["run"], told["failed"]) == (1, 1)


async def test_all_is_bounded() -> None:
    """So many at once, so many that wait; the others are dropped and counted."""
    running, most, free = 0, 0, asyncio.Event()

    async def work(_change: Changed) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await free.wait()
        running -= 1

    callbacks = Callbacks((), log.logger("test"))
    callbacks.add(Terms(concurrency=3, queue=5), work)
    async with asyncio.TaskGroup() as group:
        callbacks.start(group.create_task, lambda _rules: None)
        for _ in range(5):
            callbacks.take(change())
        await until(lambda: running == 3)
        for _ in range(10):
            callbacks.take(change())
        assert callbacks.stats()[0]["queued"] == 5
        free.set()
    [told] = callbacks.stats()
    assert (most, told["run"], told["dropped"]) == (3, 8, 7)


async def test_a_thread_that_hangs_keeps_its_place() -> None:
    """Nobody can end it; but there are never more of them than there may be."""
    begun, free = queue.Queue[int](), queue.Queue[int]()

    def work(_change: Changed) -> None:
        begun.put(1)
        free.get()

    callbacks = Callbacks((), log.logger("test"))
    callbacks.add(Terms(concurrency=1, timeout=0.05), work)
    async with asyncio.TaskGroup() as group:
        callbacks.start(group.create_task, lambda _rules: None)
        for _ in range(3):
            callbacks.take(change())
    assert (begun.qsize(), callbacks.stats()[0]["failed"]) == (1, 3)
    free.put(1)


async def test_a_node_that_stops_runs_what_is_due() -> None:
    """What was written before has its callback; what takes too long then is ended."""
    done: list[bytes] = []
    node = Node(parse({"drain_seconds": 0.2}))

    @node.on("written", prefix="quick")
    async def quick(change: Changed) -> None:
        await turn()
        done.append(change.key)

    @node.on("written", prefix="slow", timeout=1000)
    async def slow(_change: Changed) -> None:
        await asyncio.Event().wait()

    async with node:
        for number in range(20):
            await node.put(f"quick{number}", "1")
        await node.put("slow", "1")
    assert len(done) == 20
    assert quick is not slow


def test_the_engine_passes_on_only_what_is_wanted() -> None:
    """The rest never reaches Python; what finds no room is counted."""
    options = engine_options(Config(), Member())
    engine = Engine(options | {"limits": cast("dict[str, object]", options["limits"]) | {"max_events": 16}})
    engine.put(b"a0", b"before")
    engine.set_rules([(b"a", "written,expired"), (b"b", "deleted")])
    for key in (b"a1", b"b", b"c"):
        engine.put(key, b"1")
        engine.delete(key)
    told = [event for event in engine.poll_events() if isinstance(event, Changed)]
    assert [(event.kind, event.key) for event in told] == [("written", b"a1"), ("deleted", b"b")]
    assert told[0].revision < told[1].revision
    for number in range(100):
        engine.put(f"a{number}".encode(), b"1")
    assert len(engine.poll_events()) == 16
    assert engine.stats()["changes_dropped"] == 84
    engine.set_rules([])
    engine.put(b"a1", b"1")
    assert engine.poll_events() == []


def test_a_served_node_says_what_came_of_them(serve: Serve, fifo: Path) -> None:
    """In its status, for every callback."""
    node = serve({"callbacks": [{"prefix": "x", "run": ["/bin/sh", "-c", f"echo ran > {fifo}"]}]}).ready()
    with Client(node.socket) as client:
        client.put("x1", "1")
        assert fifo.read_text() == "ran\n"
        [told] = client.status()["callbacks"]
        assert (told["name"], told["prefix"], told["failed"]) == ("/bin/sh", "x", 0)
    assert node.stop() == 0


def test_a_section_is_as_strict_as_any() -> None:
    """What `run` may be."""
    assert Callback(run="module.inner:Class.method").run == "module.inner:Class.method"
    assert Callback(run=("logger", "-t", "x")).timeout == 30
