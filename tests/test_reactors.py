"""A node with several reactors: clients on different threads are served as if there were one."""

import asyncio
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Serve, Served
from turbopump import Node
from turbopump.config import parse
from wire import Wire, command, once, until

REACTORS = 3
CLIENTS = 24


@pytest.fixture(scope="module")
def wide() -> Iterator[Served]:
    """A node with three of them."""
    path = Path(tempfile.mkdtemp(prefix="tp-", dir="/tmp"))
    served = Served(path, {"members": [{"reactors": REACTORS}]}, ())
    try:
        yield served.ready()
    finally:
        served.close()
        shutil.rmtree(path)


@pytest.fixture
def wires(wide: Served) -> Iterator[list[Wire]]:
    """Enough connections for some to be on each reactor."""
    made = [Wire(wide.socket) for _ in range(CLIENTS)]
    yield made
    for wire in made:
        wire.socket.close()


def test_clients_are_served_by_all_threads(wide: Served, wires: list[Wire]) -> None:
    """One thread each, beside Python's; every connection is answered."""
    for wire in wires:
        assert wire.ask("PING") == b"+PONG\r\n"

    threads = list(Path(f"/proc/{wide.process.pid}/task").iterdir())
    assert len(threads) >= REACTORS + 1


def test_what_one_writes_all_read(wires: list[Wire]) -> None:
    """At once: the reply to the write is the moment."""
    for number, writer in enumerate(wires):
        assert writer.ask("SET", "seen", number) == b"+OK\r\n"
        for reader in wires:
            assert reader.ask("GET", "seen") == b"$%d\r\n%d\r\n" % (len(str(number)), number)


def test_no_increment_is_lost(wires: list[Wire]) -> None:
    """All at once, on one key."""
    each = 2_000
    first = int(wires[0].ask("INCR", "counter")[1:])
    for wire in wires:
        wire.send(command("INCR", "counter") * each)
    seen = sorted(int(wire.reply()[1:]) for wire in wires for _ in range(each))

    assert seen == list(range(first + 1, first + 1 + each * CLIENTS))


def test_of_many_who_compare_and_set_one_wins(wires: list[Wire]) -> None:
    """With `if_version`, round after round."""
    for wire in wires:
        wire.keep()
    for number in range(50):
        version = wires[number % CLIENTS].send(b"write|name=cas|0\n").line().split(b"=")[1]
        for wire in wires:
            wire.send(b"write|name=cas if_version=%b|1\n" % version)
        answers = [wire.line() for wire in wires]

        assert sum(answer.startswith(b"ok|") for answer in answers) == 1
        assert sum(answer.startswith(b"error|code=version_mismatch|") for answer in answers) == CLIENTS - 1


def test_who_waits_is_woken_by_a_write_on_any_thread(wide: Served, wires: list[Wire]) -> None:
    """By each of the others, in turn."""
    for wire in wires:
        wire.keep()
    for number, writer in enumerate(wires):
        waiting = [wire for wire in wires if wire is not writer]
        for wire in waiting:
            wire.send(b"wait|name=wake-%d timeout=20|\n" % number)
        if number % 2:
            once(wide.socket, b"ping||\n")
        written = writer.send(b"write|name=wake-%d|x\n" % number).line()
        for wire in waiting:
            assert wire.line() == written


def test_clients_of_all_threads_are_listed_and_can_be_ended(wide: Served, wires: list[Wire]) -> None:
    """From any of them."""
    ids = [int(wire.ask("CLIENT", "ID")[1:]) for wire in wires]
    listed = wires[0].ask("CLIENT", "LIST").decode()
    assert set(ids) <= {int(number) for number in re.findall(r"\bid=(\d+)", listed)}

    for number, wire in zip(ids[1:], wires[1:], strict=True):
        assert wires[0].ask("CLIENT", "KILL", "ID", number) == b":1\r\n"
        assert wire.rest() == b""
    until(lambda: wires[0].ask("CLIENT", "LIST").count(b"id=") >= 1, "the list")
    assert b'"connections": 2,' in once(wide.socket, b"status||\n")


def test_cold_answers_find_their_way_back(wires: list[Wire]) -> None:
    """Many at once, from all threads, each in its place."""
    for wire in wires:
        wire.keep(frame=True)
    for number, wire in enumerate(wires):
        wire.send(
            b"".join(b"state|id=%d|\nping|id=%d|\n" % (number + at, number + at) for at in range(1, 50))
        )
    for number, wire in enumerate(wires):
        for at in range(1, 50):
            state, pong = wire.framed(), wire.framed()
            assert (state.params["id"], state.body) == (str(number + at), b"running\n")
            assert (pong.params["id"], pong.body) == (str(number + at), b"pong")


def test_a_flush_and_a_scan_beside_writers(wide: Served, wires: list[Wire]) -> None:
    """Neither waits for the other for ever, and what is written last is there."""
    over = threading.Event()

    def write() -> None:
        for number in range(1_000_000):
            if over.is_set():
                return
            wires[1].ask("SET", f"beside-{number % 500}", number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            assert wires[2].ask("FLUSHDB") == b"+OK\r\n"
            once(wide.socket, b"list|limit=100|\n")
    finally:
        over.set()
        writer.join()
    wires[1].ask("SET", "last", 1)
    wires[2].ask("FLUSHDB")

    assert wires[3].ask("DBSIZE") == b":0\r\n"


def test_all_threads_drain(serve: Serve) -> None:
    """Every write that was read is answered, whichever of them read it."""
    node = serve({"members": [{"reactors": REACTORS}]}).ready()
    wires = [Wire(node.socket) for _ in range(CLIENTS)]
    for number, wire in enumerate(wires):
        wire.send(command("SET", f"drained-{number}", "x") * 500)
    for wire in wires:
        assert wire.reply() == b"+OK\r\n"

    assert node.stop() == 0
    for wire in wires:
        with wire:
            replies = wire.rest()
            assert replies == b"+OK\r\n" * (len(replies) // 5)


async def test_a_node_in_a_program_may_have_several(folder: Path) -> None:
    """And the program shares the store with all of them."""
    path = str(folder / "s")
    async with Node(parse({"members": [{"socket": path, "reactors": REACTORS}]}), listen=True) as node:
        version = await node.put("a", "1")
        loop = asyncio.get_running_loop()
        answers = await asyncio.gather(
            *(loop.run_in_executor(None, once, path, b"wait|name=a|\n") for _ in range(CLIENTS))
        )

    assert set(answers) == {f"ok|version={version}\n".encode()}
