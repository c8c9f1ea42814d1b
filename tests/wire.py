"""A raw client for tests: bytes out and bytes in, with a deadline, and readers of both protocols' replies.

Written from the protocols' descriptions and not from the code under test: it shares nothing with it.
"""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import unquote_to_bytes

DEADLINE_SECONDS = 20.0
PROBES_MAX = 1_000_000

Address = str | tuple[str, int]


class Framed(NamedTuple):
    """A framed reply of the pipe protocol."""

    status: str
    params: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The error's word, nothing for success."""
        return self.params.get("code", "")


class Wire:
    """A connection. Each read waits for what it wants, the deadline at most."""

    def __init__(self, address: Address, *, seconds: float = DEADLINE_SECONDS) -> None:
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        try:
            # Blocking: with a time-out, a full backlog refuses instead of making the caller wait.
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self.socket.settimeout(seconds)
        self._read = bytearray()

    def __enter__(self) -> Self:
        """The connection."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        self.socket.close()

    def send(self, data: bytes) -> Self:
        """Sends all of it."""
        self.socket.sendall(data)
        return self

    def half_close(self) -> Self:
        """Says that nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def line(self) -> bytes:
        """The next line, without its end."""
        while (end := self._read.find(b"\n")) < 0:
            assert self._more(), f"the connection ended within a line: {bytes(self._read)!r}"
        return self._take(end + 1)[:-1]

    def exactly(self, count: int) -> bytes:
        """So many bytes."""
        while len(self._read) < count:
            assert self._more(), f"the connection ended {count - len(self._read)} bytes early"
        return self._take(count)

    def rest(self) -> bytes:
        """All there is until the other side closes."""
        while self._more():
            pass
        return self._take(len(self._read))

    def keep(self, *, frame: bool = False) -> Self:
        """Has the pipe protocol keep the connection."""
        self.send(b"keep|frame=1|\n" if frame else b"keep||\n")
        if frame:
            assert self.framed().status == "ok"
        else:
            assert self.line() == b"ok|"
        return self

    def framed(self) -> Framed:
        """The next framed reply of the pipe protocol."""
        status, params = self._until(b"|").decode(), self._until(b"|").decode()
        pairs = dict(pair.split("=", 1) for pair in params.split())
        body = self.exactly(int(pairs.pop("length")))
        assert self.exactly(1) == b"\n"
        return Framed(status, {name: unquote_to_bytes(value).decode() for name, value in pairs.items()}, body)

    def reply(self) -> bytes:
        """The next RESP reply, as it came."""
        head = self.line() + b"\n"
        assert head.endswith(b"\r\n"), head
        kind, text = head[:1], head[1:-2]
        if kind in b"$=!" and int(text) >= 0:
            return head + self.exactly(int(text) + 2)
        inner = {b"*": 1, b"~": 1, b">": 1, b"%": 2}.get(kind, 0)
        return head + b"".join(self.reply() for _ in range(inner * max(0, int(text)) if inner else 0))

    def ask(self, *words: bytes | str | int) -> bytes:
        """The RESP reply to a command."""
        return self.send(command(*words)).reply()

    def _until(self, end: bytes) -> bytes:
        while (at := self._read.find(end)) < 0:
            assert self._more(), f"the connection ended before {end!r}: {bytes(self._read)!r}"
        return self._take(at + 1)[:-1]

    def _more(self) -> bool:
        received = self.socket.recv(1 << 16)
        self._read += received
        return bool(received)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._read[:count])
        del self._read[:count]
        return taken


def once(address: Address, request: bytes) -> bytes:
    """What one request in a connection of its own is answered."""
    with Wire(address) as wire:
        return wire.send(request).rest()


def command(*words: bytes | str | int) -> bytes:
    """A command as RESP clients send it."""
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)])


def until(happened: Callable[[], bool], what: str, *, seconds: float = DEADLINE_SECONDS) -> None:
    """Looks again and again whether something has happened, for what tells nobody that it did."""
    deadline = time.monotonic() + seconds
    for _ in range(PROBES_MAX):
        if happened():
            return
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        os.sched_yield()
    raise AssertionError(f"not in {PROBES_MAX} looks: {what}")


def peak(pid: int) -> int:
    """The most bytes of memory that a process had since it began, or since `forget_peak`."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def forget_peak(pid: int) -> None:
    """Has `peak` begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
