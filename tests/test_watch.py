"""watch: what changes is told as it happens, can be gone on with, and is never skipped silently."""

import asyncio
import json
import re
import subprocess

import pytest

from conftest import Serve, Served
from turbopump import AsyncClient, Client, ConnectionLostError, Node, RequestError, UnavailableError
from turbopump.config import parse
from wire import Wire, once, until

LINE = re.compile(rb"event\|revision=(\d+) kind=(\w+) version=([0-9a-f-]{33}) size=(\d+) name=(\S+)\n")


def begun(wire: Wire, command: str = "watch||") -> int:
    """Where a client that has begun to watch is."""
    line = wire.send(command.encode() + b"\n").line()
    assert line.startswith(b"ok|revision="), line
    return int(line.split(b"=")[1])


def told(wire: Wire) -> tuple[str, str]:
    """The kind and the key of the next change."""
    line = wire.line() + b"\n"
    match = LINE.fullmatch(line)
    assert match, line
    return match[2].decode(), match[5].decode()


def test_lines_for_nc(node: Served, prefix: str) -> None:
    """One a change, in order; the key is percent-encoded, so that a line is a line."""
    with Wire(node.socket) as wire, Client(node.socket) as client:
        start = begun(wire, f"watch|prefix={prefix}|")
        version = client.put(f"{prefix}a b\n", "12345")
        client.put("other", "1")
        client.delete(f"{prefix}a b\n")

        line = LINE.fullmatch(wire.line() + b"\n")
        assert line
        assert (line[2], line[3], line[4]) == (b"written", version.encode(), b"5")
        assert line[5] == f"{prefix}a%20b%0A".encode()
        assert int(line[1]) == start + 1
        assert told(wire) == ("deleted", f"{prefix}a%20b%0A")


def test_nc_itself(node: Served, prefix: str) -> None:
    """`nc -U` needs no more than the line."""
    nc = subprocess.Popen(["nc", "-U", node.socket], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert nc.stdin
    assert nc.stdout
    try:
        nc.stdin.write(f"watch|prefix={prefix}|\n".encode())
        nc.stdin.flush()
        assert nc.stdout.readline().startswith(b"ok|revision=")
        once(node.socket, f"write|name={prefix}x|1\n".encode())
        assert LINE.fullmatch(nc.stdout.readline())
    finally:
        nc.kill()
        nc.wait()
        nc.stdin.close()
        nc.stdout.close()


def test_half_closed_it_goes_on(node: Served, prefix: str) -> None:
    """As with `echo watch || nc -N`: the client has nothing more to say, and still listens."""
    with Wire(node.socket) as wire, Client(node.socket) as client:
        wire.send(f"watch|prefix={prefix}|\n".encode()).half_close()
        assert wire.line().startswith(b"ok|revision=")
        client.put(f"{prefix}a", "1")
        assert told(wire) == ("written", f"{prefix}a")


def test_from_a_revision(node: Served, prefix: str) -> None:
    """Who left goes on where it was; a revision of another start, or of nobody, is refused."""
    with Client(node.socket) as client:
        with client.watch(prefix) as changes:
            client.put(f"{prefix}1", "1")
            assert next(changes).key == f"{prefix}1".encode()
            seen = changes.revision
        client.put(f"{prefix}2", "1")
        client.put(f"{prefix}3", "1")
        with client.watch(prefix, since=seen) as changes:
            assert [next(changes).key for _ in range(2)] == [f"{prefix}2".encode(), f"{prefix}3".encode()]
        for bad in (0, seen + 1_000_000):
            with pytest.raises(UnavailableError, match=r"the oldest is \d+") as raised:
                client.watch(since=bad)
            assert raised.value.code == "gone"


def test_some_kinds(node: Served, prefix: str) -> None:
    """Only those that are asked for; others are named when there is no such kind."""
    with Client(node.socket) as client:
        with client.watch(prefix, kinds=["deleted", "expired"]) as changes:
            client.put(f"{prefix}a", "1")
            client.delete(f"{prefix}a")
            client.put(f"{prefix}b", "123", ttl=0.001)
            found = [next(changes) for _ in range(2)]
        assert [(change.kind, change.key, change.size) for change in found] == [
            ("deleted", f"{prefix}a".encode(), 0),
            ("expired", f"{prefix}b".encode(), 3),
        ]
        with pytest.raises(RequestError, match="written, arrived, healed"):
            client.watch(kinds=["eaten"])


def test_redis_commands_are_told_of(node: Served, prefix: str) -> None:
    """Whatever protocol the write came by."""
    with Client(node.socket) as client, client.watch(prefix) as changes, Wire(node.socket) as wire:
        wire.send(f"SET {prefix}r 1\r\nINCR {prefix}r\r\nDEL {prefix}r\r\n".encode())
        assert [next(changes).kind for _ in range(3)] == ["written", "written", "deleted"]


def test_the_slow_are_told(serve: Serve) -> None:
    """Who does not read falls behind what is kept, is told so, and is let go."""
    node = serve({"limits": {"max_changes": 2000, "max_output": 4096}}).ready()
    with Wire(node.socket) as wire, Client(node.socket) as client:
        begun(wire)
        with client.pipeline() as pipe:
            for number in range(20_000):
                pipe.put(f"{number:0500}", "1")
        got = wire.rest().splitlines()
        assert got[-1].startswith(b"error|code=gone|"), got[-1]
        assert len(got) < 20_000
        assert all(LINE.fullmatch(line + b"\n") for line in got[:-1])
        revisions = [int(line.split()[0].rpartition(b"=")[2]) for line in got[:-1]]
        assert revisions == list(range(revisions[0], revisions[0] + len(revisions)))
        wait_for_none(client)


def test_as_many_as_may(serve: Serve) -> None:
    """One more is refused, and taken when another has left."""
    node = serve({"limits": {"max_watches": 1}}).ready()
    with Client(node.socket) as client:
        with client.watch(), pytest.raises(UnavailableError) as raised:
            client.watch()
        assert raised.value.code == "busy"
        wait_for_none(client)
        client.watch().close()


def wait_for_none(client: Client) -> None:
    """Until the node knows that nobody watches."""
    until(lambda: client.status()["watches"] == 0, "nobody watches")


def test_killed_it_is_gone(node: Served) -> None:
    """CLIENT KILL ends a watch like any connection."""
    with Client(node.socket) as client, client.watch() as changes, Wire(node.socket) as wire:
        listed = wire.send(b"CLIENT LIST\r\n")
        length = int(listed.line().strip().lstrip(b"$"))
        text = listed.exactly(length + 2).decode()
        ids = [line.split()[0].removeprefix("id=") for line in text.splitlines() if line]
        wire.send(f"CLIENT KILL ID {ids[1]}\r\n".encode())
        wire.line()
        with pytest.raises(ConnectionLostError):
            next(changes)
        wait_for_none(client)


def test_a_drain_tells_what_there_is_and_ends(serve: Serve) -> None:
    """What changed before is told, then that the node stops; nobody holds it up."""
    node = serve().ready()
    with Client(node.socket) as client, client.watch() as changes:
        client.put("a", "1")
        assert node.stop() == 0
        assert next(changes).key == b"a"
        with pytest.raises(UnavailableError) as raised:
            next(changes)
        assert raised.value.code == "shutting_down"


async def test_for_asyncio(node: Served, prefix: str) -> None:
    """The same, and more changes than one read takes."""
    async with AsyncClient(node.socket) as client, client.watch(prefix) as changes:
        async with client.pipeline() as pipe:
            for number in range(3000):
                pipe.put(f"{prefix}{number}", "1")
        found = [await anext(changes) for _ in range(3000)]
        assert [change.key for change in found] == [f"{prefix}{number}".encode() for number in range(3000)]
        assert changes.revision == found[-1].revision
        async with client.watch(prefix, since=found[10].revision) as again:
            assert (await anext(again)).key == f"{prefix}11".encode()


async def test_within_a_node() -> None:
    """Without a socket between; it ends with the node."""
    async with Node(parse({"limits": {"max_changes": 100}})) as node:
        async with node.watch("a", kinds=["written"]) as changes:
            assert node.stats()["watches"] == 1
            await node.put("a1", "12")
            await node.put("b", "1")
            await node.delete("a1")
            first = await anext(changes)
            assert (first.kind, first.key, first.size) == ("written", b"a1", 2)
            later = asyncio.ensure_future(anext(changes))
            await node.put("a2", "1")
            assert (await later).key == b"a2"
            for number in range(200):
                await node.put(f"a{number}", "1")
            with pytest.raises(UnavailableError) as raised:
                await anext(changes)
            assert raised.value.code == "gone"
        assert node.stats()["watches"] == 0


async def test_it_ends_with_the_node() -> None:
    """Whoever waits for the next change is told that there will be none."""

    async def follow(node: Node, begun: asyncio.Event) -> str:
        async with node.watch() as changes:
            begun.set()
            with pytest.raises(UnavailableError) as raised:
                await anext(changes)
            return raised.value.code

    begun = asyncio.Event()
    async with Node() as node:
        following = asyncio.create_task(follow(node, begun))
        await begun.wait()
    assert await following == "shutting_down"


def test_revisions_rise_over_a_restart(serve: Serve) -> None:
    """The first of a start is above all of the one before, and fits a JSON number."""
    revisions = []
    for _ in range(2):
        node = serve().ready()
        with Client(node.socket) as client, client.watch() as changes:
            revisions.append(changes.revision)
        assert node.stop() == 0
    assert revisions[0] < revisions[1] < 2**53
    assert json.loads(json.dumps(revisions[1])) == revisions[1]
