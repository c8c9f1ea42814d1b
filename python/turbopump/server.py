"""The door: listening sockets, and answers to the commands that need a decision.

It opens each socket and hands it to the engine, which accepts and serves; no client's bytes pass through
here. Not the answers themselves: those are in `commands.py`.
"""

import fcntl
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from structlog.stdlib import BoundLogger

from turbopump._native import Asked, Refusal
from turbopump.config import Member, Tcp
from turbopump.errors import ConfigError, TurbopumpError

Command = Callable[[list[bytes]], Awaitable[Any]]

BACKLOG = 4096  # connections that may wait to be accepted; the kernel lowers it to net.core.somaxconn


class Table(Protocol):
    """The side that serves: what the door needs of the engine."""

    def listen(self, fd: int, *, tcp: bool) -> None:
        """Serves a listening socket, of which it takes a duplicate."""

    def reply(self, ask: int, answer: Any) -> None:
        """Answers a cold command."""


class Server:
    """The listening sockets of a node.

    `open` once, `answer` for every `Asked` event, `close` before the engine drains.
    """

    def __init__(
        self, member: Member, table: Table, commands: Mapping[str, Command], log: BoundLogger
    ) -> None:
        self._member = member
        self._table = table
        self._commands = commands
        self._log = log
        self._sockets: list[socket.socket] = []
        self._file: tuple[int, int] | None = None

    @property
    def addresses(self) -> list[str]:
        """Where clients find the node: a path, and `tcp://host:port` if it listens there too."""
        return [_address(listener) for listener in self._sockets]

    def open(self) -> None:
        """Binds what the member is to listen on and hands it to the engine.

        Raises:
            ConfigError: An address is taken, or the system refuses it. What was opened before is closed.
        """
        try:
            unix = bind_unix(self._member.socket, self._member.socket_mode)
            self._sockets.append(unix)
            self._file = _identity(self._member.socket)
            self._table.listen(unix.fileno(), tcp=False)
            if self._member.tcp:
                tcp = bind_tcp(self._member.tcp)
                self._sockets.append(tcp)
                self._table.listen(tcp.fileno(), tcp=True)
        except BaseException:
            self.close()
            raise
        self._log.info("listening", addresses=self.addresses)

    def close(self) -> None:
        """Closes the sockets and removes the socket file, unless it is another node's by now."""
        for listener in self._sockets:
            listener.close()
        self._sockets.clear()
        try:
            if self._file is not None and self._file == _identity(self._member.socket):
                Path(self._member.socket).unlink(missing_ok=True)
        except OSError as error:  # no reason to leave clients without their answers
            self._log.warning("socket file stays", path=self._member.socket, reason=error.strerror)
        self._file = None

    async def answer(self, asked: Asked) -> None:
        """Answers a cold command, whatever happens: its client waits, and so does all behind it."""
        answer = await self._decide(asked)
        try:
            self._table.reply(asked.ask, answer)
        except TypeError as error:  # a command answered what no protocol can say
            self._log.exception("answer failed", command=asked.command)
            self._table.reply(asked.ask, Refusal("internal", f"{asked.command} failed: {error}"))

    async def _decide(self, asked: Asked) -> Any:
        command = self._commands.get(asked.command)
        if command is None:
            return Refusal("unknown_command", f"this node does not know {asked.command!r}")
        try:
            return await command(asked.args)
        except TurbopumpError as error:
            return Refusal(error.code, str(error))
        except Exception as error:  # noqa: BLE001 - a defect in one command must not take the node down
            self._log.exception("command failed", command=asked.command)
            return Refusal("internal", f"{asked.command} failed, see the node's log: {error!r}")


def bind_unix(path: str, mode: int) -> socket.socket:
    """A listening unix socket. The file of a node that is gone is replaced.

    Args:
        path: Where; at most 107 bytes.
        mode: Permission bits of the file, such as 0o600. It never has others, not even for a moment.

    Raises:
        ConfigError: A live node has it, it is no socket, or the system refuses.
    """
    try:
        with _alone_in(Path(path).parent):
            _remove_stale(path)
            return _bound(path, mode)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}: give a path in a folder you may write to"]) from error


def bind_tcp(tcp: Tcp) -> socket.socket:
    """A listening TCP socket.

    Raises:
        ConfigError: The address is taken, or not one of this machine.
    """
    family = socket.AF_INET6 if ":" in tcp.host else socket.AF_INET
    try:
        return socket.create_server((tcp.host, tcp.port), family=family, backlog=BACKLOG)
    except OSError as error:
        problem = f"tcp://{tcp.host}:{tcp.port}: {error.strerror}: give a free port of this machine's address"
        raise ConfigError([problem]) from error


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keeps other nodes from binding in a folder: one that is bound and does not listen yet looks stale."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _remove_stale(path: str) -> None:
    """Removes a socket file that nobody listens on; refuses any other file."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ConfigError([f"{path}: there is a file that is not a socket: give another path or remove it"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # its queue is full: alive, and busy
    raise ConfigError([f"{path}: another node serves there: stop it or give another path"])


def _bound(path: str, mode: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(~mode & 0o777)
    try:
        listener.bind(path)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(umask)
    return listener


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _address(listener: socket.socket) -> str:
    name = listener.getsockname()
    if isinstance(name, str):
        return name
    host, port = name[:2]
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
