"""The door at its edges: who may come in, how many, over what, and what Python does meanwhile."""

import asyncio
import itertools
import os
import re
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from conftest import Serve, Served
from turbopump import Node
from turbopump.config import parse
from wire import DEADLINE_SECONDS, Address, Wire, command, once, resident, until

IDLE = 10_000
SPARE = 500
NOBODY = 65534


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Lets this process open as many files as there are idle connections to make."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IDLE + SPARE
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
    except (ValueError, PermissionError):
        pytest.fail(f"the hard limit of open files is {hard}: `ulimit -Hn {wanted}` lets this test run")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(hard, wanted)))


def connections(address: Address) -> int:
    """How many clients there are, the asking one included."""
    found = re.search(rb'"connections": (\d+)', once(address, b"status||\n"))
    assert found
    return int(found[1])


def test_ten_thousand_idle_connections(serve: Serve, many_descriptors: None) -> None:
    """Cost little each, delay nobody, and are served when they say something."""
    del many_descriptors
    node = serve().ready()
    before = resident(node.process.pid)
    wires = [Wire(node.socket) for _ in range(IDLE)]
    try:
        until(lambda: connections(node.socket) == IDLE + 1, "all to be connected")
        assert resident(node.process.pid) - before < IDLE * 4_000
        for wire in wires[::10]:
            wire.send(b"PING\r\n")
        for wire in wires[::10]:
            assert wire.reply() == b"+PONG\r\n"
    finally:
        for wire in wires:
            wire.socket.close()

    until(lambda: connections(node.socket) == 1, "all to be forgotten")


def refusal(path: str, request: bytes = b"") -> bytes:
    """The first that a client reads, even if it was turned away before it has said anything."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_SECONDS)
        client.connect(path)
        with suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(request)
        return client.recv(4096)


def test_without_descriptors_clients_are_told_and_served_again_later(serve: Serve) -> None:
    """The limit of the process is lowered while it runs; those who are in stay in."""
    node = serve().ready()
    with Wire(node.socket).keep() as early:
        used = max(int(entry.name) for entry in Path(f"/proc/{node.process.pid}/fd").iterdir())
        limits = (used + 11, used + 11)
        resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, limits)
        wires = []
        told = b""
        for _ in range(100):
            wire = Wire(node.socket)
            wires.append(wire)
            with suppress(BrokenPipeError, ConnectionResetError):
                wire.send(b"PING\r\n")
            told = wire.socket.recv(1000)
            if told != b"+PONG\r\n":
                break
        assert b"ulimit" in told
        assert told.startswith((b"-ERR ", b"error|code=busy"))
        assert b"ulimit" in refusal(node.socket)
        assert early.send(b"status||\nping||\n").line() == b"{"
        assert len(wires) > 5

        for wire in wires:
            wire.socket.close()
        until(lambda: once(node.socket, b"ping||\n") == b"pong\n", "room again")
        assert "no_descriptor" in node.text()


def test_a_crowd_without_descriptors_is_told_one_and_all(serve: Serve) -> None:
    """Nobody is left waiting for an answer that never comes."""
    node = serve().ready()
    used = max(int(entry.name) for entry in Path(f"/proc/{node.process.pid}/fd").iterdir())
    resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (used + 6, used + 6))
    wires = [Wire(node.socket) for _ in range(60)]
    answers = []
    for wire in wires:
        with suppress(BrokenPipeError, ConnectionResetError):
            wire.send(b"PING\r\n")
        answers.append(wire.socket.recv(1000))
    for wire in wires:
        wire.socket.close()

    assert set(map(bool, answers)) == {True}
    assert sum(answer == b"+PONG\r\n" for answer in answers) < 10


@pytest.mark.parametrize("request_", [b"", b"ping||\n", b"PING\r\n"], ids=["silent", "pipe", "resp"])
def test_at_the_configured_limit_clients_are_told(serve: Serve, request_: bytes) -> None:
    """In words they understand, with the setting's name; room comes back with each that leaves."""
    node = serve({"limits": {"max_connections": 20}}).ready()
    wires = [Wire(node.socket).keep() for _ in range(20)]
    for _ in range(5):
        told = refusal(node.socket, request_)
        assert b"limits.max_connections" in told
        assert told.startswith((b"error|code=busy", b"-ERR "))
    assert wires[3].send(b"ping||\n").line() == b"pong"
    for wire in wires[:10]:
        wire.socket.close()
    until(lambda: b"connections" in once(node.socket, b"status||\n"), "room again")
    fresh = [Wire(node.socket).keep() for _ in range(9)]
    for wire in wires[10:] + fresh:
        assert wire.send(b"ping||\n").line() == b"pong"
        wire.socket.close()


@contextmanager
def being(uid: int, gid: int) -> Iterator[None]:
    """Runs as another user, if root can be one; the kernel tells who connects, not who asks."""
    root = os.geteuid() == 0
    groups = os.getgroups()
    if root:
        os.setgroups([])
        os.setegid(gid)
        os.seteuid(uid)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)


# Only root can be somebody else: others test the list with themselves.
USER, GROUP = (NOBODY, 54_321) if os.geteuid() == 0 else (os.getuid(), os.getgid())


@pytest.mark.parametrize(
    ("guests", "admitted"),
    [
        ({}, True),
        ({"uids": [USER]}, True),
        ({"uids": [USER + 1]}, False),
        ({"uids": []}, False),
        ({"gids": [GROUP]}, True),
        ({"gids": [GROUP + 1]}, False),
        ({"uids": [USER + 1], "gids": [GROUP]}, True),
        ({"uids": [USER], "gids": [GROUP + 1]}, True),
        ({"uids": [USER + 1], "gids": [GROUP + 1]}, False),
    ],
)
async def test_the_guest_list_decides(folder: Path, guests: dict[str, list[int]], *, admitted: bool) -> None:
    """By what the kernel says of the peer, not by what the peer says."""
    member = {"socket": str(folder / "s"), "socket_mode": "0666", "guests": guests}
    os.chmod(folder, 0o755)  # noqa: PTH101, S103 - others shall reach the socket
    async with Node(parse({"members": [member]}), listen=True):
        with being(USER, GROUP):
            told = refusal(str(folder / "s"), b"PING\r\n")

    if admitted:
        assert told == b"+PONG\r\n"
    else:
        assert b"guest list" in told
        assert told.startswith((b"error|code=denied", b"-ERR "))


def test_over_tcp_resp_clients_give_the_password_first(serve: Serve) -> None:
    """In each of Redis's ways; RESET takes the admission back."""
    node = serve({"members": [{"tcp": {"port": 0, "password": "open sesame"}}]}).ready()
    address = tcp_address(node)
    with Wire(address) as wire:
        for words in (["GET", "a"], ["PING"], ["INFO"], ["SHUTDOWN"], ["CLIENT", "ID"], ["NONSENSE"]):
            assert wire.ask(*words).startswith((b"-NOAUTH ", b"-ERR unknown command")), words
        assert wire.ask("HELLO", 3).startswith(b"-NOAUTH ")
        assert wire.ask("AUTH", "sesame").startswith(b"-WRONGPASS ")
        assert wire.ask("AUTH", "other", "open sesame").startswith(b"-WRONGPASS ")
        assert wire.ask("HELLO", 3, "AUTH", "default", "sesame").startswith(b"-WRONGPASS ")
        assert wire.ask("GET", "a").startswith(b"-NOAUTH ")
        assert wire.ask("HELLO", 3, "AUTH", "default", "open sesame").startswith(b"%7\r\n")
        assert wire.ask("GET", "a") == b"_\r\n"
        assert wire.ask("RESET") == b"+RESET\r\n"
        assert wire.ask("GET", "a").startswith(b"-NOAUTH ")
        assert wire.ask("AUTH", "open sesame") == b"+OK\r\n"
        assert wire.ask("SET", "a", "1") == b"+OK\r\n"
    with Wire(node.socket) as wire:
        assert wire.ask("GET", "a") == b"$1\r\n1\r\n"


def test_who_has_not_given_the_password_costs_little(serve: Serve) -> None:
    """A stranger may not make the node set memory aside for him."""
    node = serve({"members": [{"tcp": {"port": 0, "password": "sesame"}}]}).ready()
    address = tcp_address(node)
    before = resident(node.process.pid)
    wires = [Wire(address) for _ in range(20)]
    for index, wire in enumerate(wires):
        start = (
            b"write|name=a length=1000000000|"
            if index % 2
            else b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1000000000\r\n"
        )
        wire.send(start)
        with suppress(BrokenPipeError, ConnectionResetError):
            wire.send(b"x" * 5_000_000)
    once(node.socket, b"ping||\n")
    grown = resident(node.process.pid) - before
    for wire in wires:
        wire.socket.close()

    assert grown < 20_000_000


def tcp_address(node: Served) -> tuple[str, int]:
    """Where a node listens on TCP."""
    found = re.search(rb"tcp://([0-9.]+):(\d+)", once(node.socket, b"membership||\n"))
    assert found
    return found[1].decode(), int(found[2])


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - that is what is refused
def test_beyond_loopback_a_password_is_needed(serve: Serve, host: str) -> None:
    """Without one nothing is bound, and the text says what to do."""
    node = serve({"members": [{"tcp": {"host": host, "port": 0}}]})

    assert node.notified() == ""
    assert node.ended() == 2
    assert "password" in node.text()
    assert host in node.text()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
async def test_on_loopback_none_is_needed(folder: Path, host: str) -> None:
    """Who can reach it is on this machine already."""
    member = {"socket": str(folder / "s"), "tcp": {"host": host, "port": 0}}
    async with Node(parse({"members": [member]}), listen=True) as node:
        assert node.addresses[1].startswith("tcp://")


def test_a_browser_cannot_write(serve: Serve) -> None:
    """Any page may send a request to a port of this machine: what is in its body is not run."""
    node = serve({"members": [{"tcp": {"port": 0}}]}).ready()
    address = tcp_address(node)
    bodies = (b"SET evil 1\r\n", b"write|name=evil|1\n", command("SET", "evil", "1"))
    for method, body in itertools.product(("POST", "GET", "OPTIONS", "PUT"), bodies):
        head = f"{method} / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with Wire(address) as wire, suppress(ConnectionResetError):
            wire.send(head + body).half_close().rest()

        assert once(node.socket, b"exists|name=evil|\n") == b"ok|exists=0\n", (method, body)


async def test_while_a_callback_blocks_asyncio_hot_commands_go_on(folder: Path) -> None:
    """The loop is not given back before thousands of them are answered: they do not need it."""
    path = str(folder / "s")
    done = threading.Event()
    begun = threading.Event()
    cold: list[bytes] = []

    def client() -> None:
        with Wire(path).keep() as wire, Wire(path).keep() as other:
            assert wire.send(b"state||\n").line() == b"running"
            begun.set()
            other.send(b"ping||\nstate||\nping||\n")
            for number in range(5_000):
                assert wire.send(b"write|name=hot|%d\n" % number).line().startswith(b"ok|")
            cold.append(other.line())
            done.set()
            cold.extend(other.line() for _ in range(2))

    async with Node(parse({"members": [{"socket": path}]}), listen=True) as node:
        thread = asyncio.get_running_loop().run_in_executor(None, client)
        while not begun.is_set():
            await turn()
        assert done.wait(DEADLINE_SECONDS)  # blocks the loop, on purpose
        await thread
        assert await node.get("hot") == b"4999"

    assert cold == [b"pong", b"running", b"pong"]


async def turn() -> None:
    """Lets everything run that is ready."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    await done


HOT = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.settimeout(20)
client.connect(sys.argv[1])
for number in range(20_000):
    client.sendall(b"SET hot %d\\r\\n" % number)
    assert client.recv(100) == b"+OK\\r\\n"
"""


def hot(path: str) -> subprocess.Popen[bytes]:
    """Another process that writes, one command after the other."""
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", HOT, path])


async def test_while_python_computes_hot_commands_go_on(folder: Path) -> None:
    """Not only the loop is busy, but the interpreter: the commands of another process do not need it."""
    path = str(folder / "s")
    async with Node(parse({"members": [{"socket": path}]}), listen=True) as node:
        with hot(path) as client:
            while client.poll() is None:
                assert sum(range(100_000)) > 0  # holds the interpreter's lock, and never yields to the loop
        assert client.returncode == 0
        assert await node.get("hot") == b"19999"


async def test_cold_commands_that_nobody_decides_are_refused_and_not_kept(folder: Path) -> None:
    """The queue to asyncio is bounded; who finds it full is told `busy`, and the others are answered."""
    path = str(folder / "s")
    config = parse({"members": [{"socket": path}], "limits": {"max_events": 16}})
    asked = threading.Event()
    answers: list[bytes] = []

    def client() -> None:
        wires = [Wire(path).send(b"state||\n") for _ in range(100)]
        once(path, b"ping||\n")
        asked.set()
        for wire in wires:
            with wire:
                answers.append(wire.rest())

    async with Node(config, listen=True):
        thread = asyncio.get_running_loop().run_in_executor(None, client)
        assert asked.wait(DEADLINE_SECONDS)  # blocks the loop, on purpose
        await thread

    told = [answer.split(b"|")[1] if b"|" in answer else answer for answer in answers]
    assert set(told) == {b"running\n", b"code=busy"}
    assert 10 <= told.count(b"running\n") <= 20


def test_cold_and_hot_commands_are_answered_in_order(node: Served) -> None:
    """In a long pipeline of both, in both protocols."""
    count = 300
    with Wire(node.socket).keep() as wire:
        wire.send(b"write|name=order|1\nstate||\nread|name=order|\nring||\nping||\n" * count)
        for _ in range(count):
            assert wire.line().startswith(b"ok|version=")
            assert wire.line() == b"running"
            assert wire.exactly(1) == b"1"
            assert wire.line() == b"0-16383 node"
            assert wire.line() == b"pong"
    with Wire(node.socket) as wire:
        commands = (("SET", "order", "2"), ("CONFIG", "GET", "port"), ("GET", "order"), ("INFO", "cluster"))
        wire.send(b"".join(command(*words) for words in commands) * count)
        for _ in range(count):
            assert wire.reply() == b"+OK\r\n"
            assert wire.reply() == b"*2\r\n$4\r\nport\r\n$1\r\n0\r\n"
            assert wire.reply() == b"$1\r\n2\r\n"
            assert b"cluster_enabled:0" in wire.reply()


def test_many_clients_ask_cold_commands_at_once(node: Served) -> None:
    """Each gets its own answer, and those that leave before it cost nothing."""
    wires = [Wire(node.socket).keep(frame=True) for _ in range(200)]
    for number, wire in enumerate(wires):
        wire.send(b"status|id=%d|\n" % (number + 1) * 3)
    for wire in wires[::2]:
        wire.socket.close()
    for number, wire in list(enumerate(wires))[1::2]:
        for _ in range(3):
            assert wire.framed().params["id"] == str(number + 1)
        wire.socket.close()

    until(lambda: connections(node.socket) == 1, "the others to be forgotten")
