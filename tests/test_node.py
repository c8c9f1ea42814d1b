"""node.py: a node inside a program starts, answers, drains and says when its engine breaks."""

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import Any, cast

import pytest

from conftest import turn
from turbopump import (
    Config,
    ConfigError,
    ConflictError,
    MerkleTree,
    Node,
    NodeFailedError,
    NoSpaceError,
    RequestError,
    UnavailableError,
)
from turbopump._native import Asked, Drained, Engine, Failed, Logged
from turbopump.config import load, parse
from turbopump.directory import Plan, make
from turbopump.keys import NodeKey
from wire import once


class Recorder:
    """An engine that notes what it is told and says what a test wants."""

    def __init__(self, options: dict[str, object]) -> None:
        self.options = options
        self.calls: list[Any] = []
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._events: list[Any] = []

    def say(self, event: Any) -> None:
        """Queues an event."""
        self._events.append(event)
        os.eventfd_write(self._fd, 1)

    def fileno(self) -> int:
        """Readable while events wait."""
        return self._fd

    def poll_events(self) -> list[Any]:
        """Takes them."""
        os.eventfd_read(self._fd)
        events, self._events = self._events, []
        return events

    def stop(self) -> None:
        """Notes it."""
        self.calls.append("stop")
        os.close(self._fd)

    def __getattr__(self, name: str) -> Any:
        """Notes any other call."""
        return lambda *args, **_options: self.calls.append((name, *args))


def recorded(monkeypatch: pytest.MonkeyPatch, config: Config | None = None) -> tuple[Node, list[Recorder]]:
    """A node on a recorder, which is in the list once the node has started. Events are told by class name."""
    for name in ("Asked", "Drained", "Failed", "Logged"):
        monkeypatch.setattr(f"turbopump.node.{name}", EVENTS[name])
    made: list[Recorder] = []

    def make(options: dict[str, object]) -> Engine:
        made.append(Recorder(options))
        return cast("Engine", made[0])

    return Node(config, engine=make), made


def event(original: type) -> type:
    """A class with the fields of a native event, which only the engine can make."""
    fields = original.__match_args__  # type: ignore[attr-defined] # all events have it

    def init(self: Any, *values: Any) -> None:
        for field, value in zip(fields, values, strict=True):
            setattr(self, field, value)

    return type(original.__name__, (), {"__match_args__": fields, "__init__": init})


EVENTS = {kind.__name__: event(kind) for kind in (Asked, Drained, Failed, Logged)}


async def test_a_private_node_needs_nothing() -> None:
    """No file, no socket: keys and values, text or bytes."""
    async with Node() as node:
        version = await node.put("greeting", "hällo")

        assert await node.get("greeting") == "hällo".encode()
        assert await node.get(b"greeting") == "hällo".encode()
        assert await node.get("other") is None
        assert await node.exists("greeting")
        assert not await node.exists("other")
        assert len(version) == 33
        assert node.addresses == []


async def test_a_node_of_a_cluster_reads_its_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """When it is made: which member it is depends on them. The engine gets them once it starts."""
    make(tmp_path, Plan(3))
    config = load(tmp_path / "cluster.json")
    with pytest.raises(ConfigError, match="the keys of a, b, c are here"):
        Node(config)
    for name in "ac":
        (tmp_path / "keys" / f"{name}.key").unlink()
    node, made = recorded(monkeypatch, config)
    assert node.member.name == "b"

    async with node:
        cluster = cast("dict[str, Any]", made[0].options["cluster"])
        assert cluster["me"] == 1
        assert cluster["transport_key"] == NodeKey.load(tmp_path / "keys" / "b.key").transport
        assert [member["name"] for member in cluster["members"]] == ["a", "b", "c"]
        made[0].say(EVENTS["Drained"](0, 0))


async def test_an_entry_has_its_version_and_expiry() -> None:
    """Read together with the value, so they belong to it."""
    async with Node() as node:
        version = await node.put("a", "1")
        entry = await node.read("a")
        assert entry is not None
        assert (entry.value, entry.version, entry.expires_ms) == (b"1", version, None)

        now_ms = time.time() * 1000
        await node.put("a", "2", ttl=60.5)
        entry = await node.read("a")
        assert entry is not None
        assert entry.expires_ms is not None
        assert 60_000 < entry.expires_ms - now_ms < 61_500
        assert await node.read("nothing") is None


async def test_a_wait_ends_when_the_key_has_a_value(folder: Path) -> None:
    """Written before, by another task, or by a client; other tasks run meanwhile."""
    config = parse({"members": [{"socket": str(folder / "s"), "reactors": 2}]})
    async with Node(config, listen=True) as node, asyncio.TaskGroup() as group:
        first = await node.put("a", "1")
        assert await node.wait("a", 20) == first

        waits = [group.create_task(node.wait(key, 20)) for key in ("b", "b", "c")]
        await turn()
        second = await node.put("b", "2")
        assert await asyncio.gather(*waits[:2]) == [second, second]
        answer = await asyncio.to_thread(once, str(folder / "s"), b"write|name=c|3\n")
        assert answer.decode().strip() == f"ok|version={await waits[2]}"


async def test_a_wait_goes_on_when_the_value_has_gone_again() -> None:
    """It answers a value that is there."""
    async with Node() as node, asyncio.TaskGroup() as group:
        wait = group.create_task(node.wait("a", 20))
        await turn()
        await node.put("a", "1")
        await node.delete("a")
        other = group.create_task(node.wait("b", 20))
        await turn()
        await node.put("b", "1")
        await other  # its event came behind the first one's
        assert not wait.done()
        version = await node.put("a", "2")
        assert await wait == version


async def test_a_wait_that_is_over_leaves_nothing_behind() -> None:
    """Whether its time was up or somebody cancelled it: the place is free for the next one."""
    async with Node(parse({"limits": {"max_waits": 1}})) as node, asyncio.TaskGroup() as group:
        for _ in range(3):
            with pytest.raises(UnavailableError) as raised:
                await node.wait("a", 0.001)
            assert raised.value.code == "timeout"

            wait = group.create_task(node.wait("a", 20))
            await turn()
            with pytest.raises(UnavailableError) as raised:
                await node.wait("b", 20)
            assert raised.value.code == "busy"
            wait.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wait
        for timeout in (0, -1, float("nan")):
            with pytest.raises(RequestError):
                await node.wait("a", timeout)


async def test_a_node_that_stops_lets_go_who_waits() -> None:
    """With the word that clients get; and a drain does not take longer for it."""
    async with Node() as node:
        wait = asyncio.create_task(node.wait("a", 20))
        await turn()
    with pytest.raises(UnavailableError) as raised:
        await wait
    assert raised.value.code == "shutting_down"
    with pytest.raises(RuntimeError):
        await node.wait("a", 20)


async def test_conditions_hold_or_raise() -> None:
    """With the code that says which."""
    async with Node() as node:
        first = await node.put("a", "1", if_absent=True)
        with pytest.raises(ConflictError) as raised:
            await node.put("a", "2", if_absent=True)
        assert raised.value.code == "exists"

        with pytest.raises(ConflictError) as raised:
            await node.put("b", "1", if_present=True)
        assert raised.value.code == "missing"

        second = await node.put("a", "2", if_version=first)
        with pytest.raises(ConflictError) as raised:
            await node.delete("a", if_version=first)
        assert raised.value.code == "version_mismatch"
        assert await node.delete("a", if_version=second) is not None
        assert await node.delete("a") is None
        assert second > first


async def test_keyspaces_have_their_rules() -> None:
    """The configuration reaches the store."""
    config = parse(
        {
            "keyspaces": [
                {"prefix": "log/", "writes": "immutable"},
                {"prefix": "cache/", "ttl": 3600},
                {"prefix": "small/", "max_memory": 1000},
            ],
            "limits": {"max_key": 20, "max_value": 2000},
        }
    )
    async with Node(config) as node:
        await node.put("log/1", "a")
        await node.put("log/1", "a")
        with pytest.raises(ConflictError) as conflict:
            await node.put("log/1", "b")
        assert conflict.value.code == "immutable"

        await node.put("cache/1", "a")
        entry = await node.read("cache/1")
        assert entry is not None
        assert entry.expires_ms is not None

        with pytest.raises(NoSpaceError):
            await node.put("small/1", "a" * 1500)
        with pytest.raises(RequestError) as request:
            await node.put("k" * 21, "a")
        assert request.value.code == "bad_key"
        with pytest.raises(RequestError) as request:
            await node.put("k", "a" * 2001)
        assert request.value.code == "value_too_long"
        with pytest.raises(RequestError):
            await node.get("")


async def test_listing_lets_others_run() -> None:
    """Thousands of keys, a prefix, and another task that gets its turns meanwhile."""
    async with Node() as node:
        for number in range(5000):
            await node.put(f"{'odd' if number % 2 else 'even'}/{number}", "")
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await turn()

        async with asyncio.TaskGroup() as group:
            counting = group.create_task(count())
            found = [key async for key in node.list("odd/")]
            counting.cancel()

        assert sorted(found) == sorted(f"odd/{number}".encode() for number in range(1, 5000, 2))
        assert turns > 1
        assert await node.clear() == 5000
        assert [key async for key in node.list()] == []


async def test_the_digest_tree_follows_the_store() -> None:
    """A delete undoes a put, as far as it is remembered."""
    async with Node() as node:
        empty = node.merkle()
        await node.put("a", "1")
        one = node.merkle()

        assert isinstance(one, MerkleTree)
        assert one != empty
        assert len(one.diff(empty)) == 1
        assert node.stats()["writes"] == 1


async def test_wrong_types_are_refused() -> None:
    """Five is not five zero bytes."""
    async with Node() as node:
        with pytest.raises(TypeError):
            await node.put(5, "a")  # type: ignore[arg-type] # on purpose
        with pytest.raises(TypeError):
            await node.get(5)  # type: ignore[arg-type] # on purpose


async def test_a_node_starts_once() -> None:
    """And answers only while it is there."""
    node = Node()
    states: list[str] = [node.state]
    with pytest.raises(RuntimeError, match="the node is new"):
        await node.get("a")
    async with node:
        states.append(node.state)
        with pytest.raises(RuntimeError, match="starts once"):
            await node.__aenter__()
    states.append(node.state)

    assert states == ["new", "running", "stopped"]
    for call in (node.get("a"), node.put("a", "1"), node.delete("a"), node.exists("a"), node.clear()):
        with pytest.raises(RuntimeError, match="the node is stopped"):
            await call


async def test_an_error_of_the_body_comes_out_as_it_is() -> None:
    """Not wrapped in a group."""
    with pytest.raises(KeyError, match="mine"):
        async with Node():
            raise KeyError("mine")


async def test_cancelling_ends_a_node() -> None:
    """As any other part of a program."""
    started = asyncio.Event()
    node = Node()

    async def embedded() -> None:
        async with node:
            started.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(embedded())
        await started.wait()
        task.cancel()

    assert task.cancelled()
    assert node.state == "stopped"


async def test_clients_are_served_if_it_listens(folder: Path) -> None:
    """Hot and cold commands, from another thread of control; afterwards the socket is gone."""
    path = str(folder / "s")
    config = parse({"members": [{"name": "inner", "socket": path}]})
    async with Node(config, listen=True) as node:
        await node.put("a", "1")
        for request, answer in ((b"read|name=a|\n", b"1"), (b"state||\n", b"running\n")):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(request)
            assert await asyncio.wait_for(reader.read(), 10) == answer
            writer.close()
            await writer.wait_closed()
        assert node.addresses == [path]

    assert not os.path.lexists(path)  # noqa: ASYNC240 - in memory, and nothing else runs
    assert node.drained is not None
    assert node.drained.aborted == 0


async def test_clients_cannot_end_the_program(folder: Path) -> None:
    """SHUTDOWN is for nodes that are processes."""
    path = str(folder / "s")
    async with Node(parse({"members": [{"socket": path}]}), listen=True):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"*1\r\n$8\r\nSHUTDOWN\r\n")
        answer = await asyncio.wait_for(reader.readline(), 10)
        writer.close()
        await writer.wait_closed()

    assert b"part of another program" in answer


async def test_a_taken_socket_leaves_nothing_running(folder: Path) -> None:
    """The second node fails, the first one does not notice."""
    config = parse({"members": [{"socket": str(folder / "s")}]})
    async with Node(config, listen=True) as first:
        second = Node(config, listen=True)
        with pytest.raises(ConfigError, match="another node"):
            await second.__aenter__()

        assert second.state == "stopped"
        assert first.state == "running"


def test_a_member_that_is_not_there() -> None:
    """Known before anything starts."""
    with pytest.raises(ConfigError, match="no member is called 'b'"):
        Node(parse({"members": [{"name": "a"}]}), name="b")


async def test_reading_stays_in_the_process() -> None:
    """It never waits: not for the loop, and not for a thread. `make bench` has the time it takes."""
    async with Node() as node:
        await node.put("key", "value")
        with pytest.raises(StopIteration) as done:
            node.get("key").send(None)

    assert done.value.value == b"value"


async def test_a_broken_engine_ends_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it waits for; the error says what the engine said."""
    node, made = recorded(monkeypatch)

    async def embedded() -> None:
        async with node:
            made[0].say(EVENTS["Failed"]("a panic"))
            await asyncio.Event().wait()

    with pytest.raises(NodeFailedError, match="a panic"):
        await embedded()

    assert made[0].calls[-1] == "stop"
    assert not [call for call in made[0].calls if call[0] == "drain"]
    assert node.state == "stopped"


async def test_a_broken_engine_is_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says after its end makes no tasks in a group that is ending."""
    node, made = recorded(monkeypatch)

    async def embedded() -> None:
        async with node:
            made[0].say(EVENTS["Failed"]("a panic"))
            try:
                await asyncio.Event().wait()
            finally:
                made[0].say(EVENTS["Asked"](1, "state", []))
                await turn()

    with pytest.raises(NodeFailedError):
        await embedded()

    assert not [call for call in made[0].calls if call[0] == "reply"]


async def test_a_broken_engine_ends_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """There will be no Drained event from it."""
    node, made = recorded(monkeypatch)
    with pytest.raises(NodeFailedError, match="late panic"):
        async with node:
            made[0].say(EVENTS["Failed"]("late panic"))

    assert made[0].calls[-1] == "stop"


async def test_the_bodys_own_error_is_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two things went wrong: neither is lost."""
    node, made = recorded(monkeypatch)

    async def embedded() -> None:
        async with node:
            made[0].say(EVENTS["Failed"]("a panic"))
            try:
                await asyncio.Event().wait()
            finally:
                raise KeyError("mine")

    with pytest.raises(NodeFailedError) as raised:
        await embedded()

    assert isinstance(raised.value.__cause__, KeyError)


async def test_the_drain_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """And told to the engine in milliseconds."""
    node, made = recorded(monkeypatch, parse({"drain_seconds": 2.5}))
    async with node:
        made[0].say(EVENTS["Drained"](3, 0))

    assert ("drain", 2500) in made[0].calls
    assert made[0].calls.index(("drain", 2500)) < made[0].calls.index("stop")
    assert node.drained is not None
    assert (node.drained.answered, node.drained.aborted) == (3, 0)


async def test_a_drain_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that forgets its deadline does not hold the process."""
    monkeypatch.setattr("turbopump.node.DRAIN_GRACE_SECONDS", 0.0)
    node, made = recorded(monkeypatch, parse({"drain_seconds": 0}))
    async with node:
        pass

    assert node.drained is None
    assert made[0].calls[-1] == "stop"


async def test_a_drain_can_be_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a second signal."""
    node, made = recorded(monkeypatch, parse({"drain_seconds": 3600}))
    node.abort()
    async with node:
        node.abort()  # not while it runs: there is nothing to cut short
        asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(node.abort))

    assert node.drained is None
    assert made[0].calls[-1] == "stop"


async def test_what_the_engine_says_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Through Python's logging, from Python's thread."""
    node, made = recorded(monkeypatch, parse({"drain_seconds": 0}))
    monkeypatch.setattr("turbopump.node.DRAIN_GRACE_SECONDS", 0.0)
    async with node:
        made[0].say(EVENTS["Logged"]("warning", "too many clients", {"limit": "5"}))
        await turn()

    assert "too many clients" in caplog.text


async def test_cold_commands_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its number."""
    node, made = recorded(monkeypatch)
    async with node:
        made[0].say(EVENTS["Asked"](41, "state", []))
        made[0].say(EVENTS["Asked"](42, "dance", []))
        made[0].say(EVENTS["Drained"](0, 0))

    replies = {call[1]: call[2] for call in made[0].calls if call[0] == "reply"}
    assert replies[41] in {"running", "stopping"}
    assert replies[42].code == "unknown_command"


async def test_the_event_loop_may_be_busy(folder: Path) -> None:
    """Hot commands never wait for Python: here it does not even run."""
    path = str(folder / "s")
    async with Node(parse({"members": [{"socket": path}]}), listen=True) as node:
        await node.put("a", "1")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(path)
            client.sendall(b"read|name=a|\n")

            assert client.recv(10) == b"1"
