"""Memory at its edges: values of hundreds of megabytes, keys that come and go, lifetimes that end at once."""

import random
import re
import statistics
import threading
import time
from pathlib import Path
from typing import Self

import pytest

from conftest import Serve, Served
from wire import Wire, command, once, resident, until

LARGE = 256 << 20
PIECE = random.Random(9).randbytes(1 << 20)


def highest(pid: int) -> int:
    """The most memory that a process has had since `forget`."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    assert found
    return int(found[1]) * 1024


def forget(pid: int) -> None:
    """Begins the measure of `highest` anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


class Others(threading.Thread):
    """A client that measures how long others are served while something happens."""

    def __init__(self, node: Served) -> None:
        super().__init__()
        self._wire = Wire(node.socket)
        self._over = threading.Event()
        self.taken: list[float] = []

    def __enter__(self) -> Self:
        """Begins."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends."""
        self._over.set()
        self.join()
        self._wire.socket.close()

    def run(self) -> None:
        """One command after the other."""
        while not self._over.is_set() and len(self.taken) < 1_000_000:
            start = time.perf_counter()
            assert self._wire.ask("PING") == b"+PONG\r\n"
            self.taken.append(time.perf_counter() - start)

    def were_served(self) -> bool:
        """Whether nobody noticed; this process's own interpreter is most of what is measured."""
        return len(self.taken) > 0 and statistics.median(self.taken) < 0.02 and max(self.taken) < 1


@pytest.mark.parametrize("protocol", ["pipe", "resp"])
def test_a_large_value_takes_its_own_size_and_delays_nobody(serve: Serve, protocol: str) -> None:
    """In, and out again, with at most a fifth more memory than its bytes."""
    node = serve().ready()
    idle = resident(node.process.pid)
    with Wire(node.socket) as wire, Others(node) as others:
        if protocol == "pipe":
            wire.keep().send(b"write|name=large length=%d|" % LARGE)
        else:
            wire.send(b"*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n$%d\r\n" % LARGE)
        for _ in range(LARGE // len(PIECE)):
            wire.send(PIECE)
        assert wire.send(b"\r\n").line().startswith((b"ok|version=", b"+OK"))
        assert highest(node.process.pid) - idle < LARGE * 1.2

        forget(node.process.pid)
        wire.send(b"read|name=large|\n" if protocol == "pipe" else command("GET", "large"))
        if protocol == "resp":
            assert wire.line() == b"$%d\r" % LARGE
        for _ in range(LARGE // len(PIECE)):
            assert wire.exactly(len(PIECE)) == PIECE
        assert highest(node.process.pid) - idle < LARGE * 1.2
        once(node.socket, b"delete|name=large|\n")
    assert others.were_served()

    until(lambda: resident(node.process.pid) - idle < LARGE / 5, "its memory to be given back")


def test_a_large_value_that_comes_and_goes_at_once(node: Served) -> None:
    """Its memory is given back, though nobody had time to notice that it was taken."""
    before = resident(node.process.pid)
    with Wire(node.socket) as wire:
        wire.ask("SET", "brief", PIECE * 100)
        assert wire.ask("DEL", "brief") == b":1\r\n"

    until(lambda: resident(node.process.pid) - before < 30_000_000, "its memory to be given back")


def test_a_large_value_of_unknown_length(serve: Serve) -> None:
    """`length=eof` costs no more."""
    node = serve().ready()
    idle = resident(node.process.pid)
    with Wire(node.socket) as wire:
        wire.send(b"write|name=large length=eof|")
        for _ in range(LARGE // len(PIECE)):
            wire.send(PIECE)
        assert wire.half_close().rest().startswith(b"ok|version=")
    assert highest(node.process.pid) - idle < LARGE * 1.2

    assert once(node.socket, b"versions|name=large|\n").split()[1] == b"size=%d" % LARGE


def test_appending_to_a_large_value_delays_nobody(node: Served) -> None:
    """However long it has become: others wait for their own commands only."""
    with Wire(node.socket) as wire:
        wire.ask("SET", "appended", PIECE * 64)
        with Others(node) as others:
            for _ in range(20):
                wire.ask("APPEND", "appended", "x")
        assert others.were_served()
        assert wire.ask("STRLEN", "appended") == b":%d\r\n" % (64 * len(PIECE) + 20)
        wire.ask("DEL", "appended")


def test_keys_that_come_and_go_leave_nothing(node: Served) -> None:
    """Two hundred thousand of them, in a store that holds a tenth of them at a time."""
    with Wire(node.socket) as wire:
        wire.ask("FLUSHDB")
        empty = accounted(node)
        for turn in range(10):
            wire.send(b"".join(command("SET", f"{turn}-{number}", "v" * 100) for number in range(20_000)))
            assert wire.exactly(5 * 20_000) == b"+OK\r\n" * 20_000
            if turn == 2:
                before = resident(node.process.pid)
            wire.send(b"".join(command("DEL", f"{turn}-{number}") for number in range(20_000)))
            assert wire.exactly(4 * 20_000) == b":1\r\n" * 20_000

    assert resident(node.process.pid) - before < 5_000_000
    assert accounted(node) - empty < 1_000_000


def accounted(node: Served) -> int:
    """Bytes that the node says it holds."""
    found = re.search(rb'"memory": (\d+)', once(node.socket, b"status||\n"))
    assert found
    return int(found[1])


def test_many_lifetimes_that_end_at_once(node: Served) -> None:
    """Fifty thousand: they are gone when their time has come, and collected while others are served."""
    count = 50_000
    with Wire(node.socket) as wire:
        wire.ask("FLUSHDB")
        empty = accounted(node)
        for at in range(0, count, 1_000):
            sets = (
                command("SET", f"short-{number}", "v" * 100, "PX", 500) for number in range(at, at + 1_000)
            )
            wire.send(b"".join(sets)).exactly(5 * 1_000)
        with Others(node) as others:
            until(lambda: wire.ask("DBSIZE") == b":0\r\n", "all of them to be collected")
        assert others.were_served()
    assert accounted(node) - empty < 1_000_000
    assert b'"expiring": 0,' in once(node.socket, b"status||\n")


def test_connections_that_come_and_go_leave_nothing(node: Served) -> None:
    """Each with a request of some size, answered or not."""
    chance = random.Random(10)
    before = 0
    for turn in range(4_000):
        if turn == 1_000:
            before = resident(node.process.pid)
        size = chance.choice([10, 1_000, 30_000, 200_000])
        with Wire(node.socket) as wire:
            wire.send(command("SET", "churn", PIECE[:size])[: None if turn % 3 else size])
            if turn % 3:
                wire.reply()

    assert resident(node.process.pid) - before < 5_000_000
