"""server.py: the door opens where it is told, never over another node, and closes behind itself."""

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from turbopump import log
from turbopump._native import Refusal
from turbopump.config import Member, Tcp
from turbopump.errors import ConfigError, error_for
from turbopump.server import Command, Server, bind_tcp, bind_unix


class Recorder:
    """An engine that only notes what it is told."""

    def __init__(self) -> None:
        self.listening: list[tuple[int, bool]] = []
        self.replies: list[tuple[int, Any]] = []

    def listen(self, fd: int, *, tcp: bool) -> None:
        """Notes it."""
        self.listening.append((fd, tcp))

    def reply(self, ask: int, answer: Any) -> None:
        """Notes it; cannot say a set, as the engine cannot."""
        if isinstance(answer, set):
            raise TypeError("an answer is not a set")
        self.replies.append((ask, answer))


class Question:
    """What the engine's `Asked` looks like."""

    def __init__(self, ask: int, command: str, args: list[bytes]) -> None:
        self.ask, self.command, self.args = ask, command, args


@pytest.fixture
def table() -> Recorder:
    """The recording engine."""
    return Recorder()


def door(member: Member, table: Recorder, commands: dict[str, Command] | None = None) -> Server:
    """A server that is not open yet."""
    return Server(member, table, commands or {}, log.logger("turbopump.server"))


@pytest.fixture
def path(folder: Path) -> str:
    """Where a socket may be."""
    return str(folder / "s")


@pytest.fixture
def opened(path: str, table: Recorder) -> Iterator[Server]:
    """An open server."""
    server = door(Member(socket=path), table)
    server.open()
    yield server
    server.close()


def connects(path: str) -> bool:
    """Whether somebody listens."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


def test_the_socket_is_handed_over_once(opened: Server, table: Recorder, path: str) -> None:
    """As a listening descriptor; nothing is accepted here."""
    [(fd, tcp)] = table.listening

    assert not tcp
    with socket.socket(fileno=os.dup(fd)) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    assert opened.addresses == [path]
    assert connects(path)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_file_has_the_mode_from_the_start(path: str, mode: int) -> None:
    """And the process's umask is as it was."""
    before = os.umask(0o077)
    try:
        with bind_unix(path, mode):
            assert stat.S_IMODE(Path(path).stat().st_mode) == mode
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)


def test_closing_removes_the_file(opened: Server, path: str) -> None:
    """So that clients fail at once, and the next node finds the place clean."""
    opened.close()

    assert not Path(path).exists()
    assert opened.addresses == []
    opened.close()


def test_another_nodes_file_is_left_alone(opened: Server, path: str) -> None:
    """Somebody removed ours and bound the same path."""
    Path(path).unlink()
    with bind_unix(path, 0o600):
        opened.close()

        assert connects(path)


def test_a_file_that_cannot_be_removed_stops_nothing(
    opened: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody took the folder's permissions away; the drain goes on."""

    def unlink(_path: Path, *, missing_ok: bool) -> None:
        raise PermissionError(13, f"Permission denied, {missing_ok}")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", unlink)
        opened.close()

    assert "socket file stays" in caplog.text


def test_a_stale_file_is_replaced(path: str) -> None:
    """A node that was killed leaves one behind."""
    bind_unix(path, 0o600).close()
    assert Path(path).exists()

    with bind_unix(path, 0o600):
        assert connects(path)


def test_a_live_node_is_refused(opened: Server, path: str, table: Recorder) -> None:
    """Its clients would vanish."""
    with pytest.raises(ConfigError, match="another node serves there"):
        door(Member(socket=path), table).open()

    assert connects(path)
    assert opened.addresses == [path]


def test_a_busy_node_is_a_live_one(path: str) -> None:
    """Its queue of connections is full: connecting neither succeeds nor is refused."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(path)
        listener.listen(0)
        waiting.connect(path)
        with pytest.raises(ConfigError, match="another node serves there"):
            bind_unix(path, 0o600)


@pytest.mark.parametrize("kind", ["file", "folder", "link", "pipe"])
def test_what_is_no_socket_is_never_removed(folder: Path, kind: str) -> None:
    """A typing mistake must not cost a file."""
    path = folder / "s"
    (folder / "precious").write_text("data", encoding="utf-8")
    match kind:
        case "file":
            path.write_text("data", encoding="utf-8")
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(folder / "precious")
        case _:
            os.mkfifo(path)

    with pytest.raises(ConfigError, match="not a socket"):
        bind_unix(str(path), 0o600)
    assert os.path.lexists(path)


def test_a_folder_that_is_not_there(folder: Path) -> None:
    """Said in words that help."""
    with pytest.raises(ConfigError, match="No such file or directory: give a path"):
        bind_unix(str(folder / "nowhere" / "s"), 0o600)


def test_the_longest_path_works(folder: Path) -> None:
    """107 bytes, as the configuration allows."""
    path = str(folder / ("s" * (106 - len(str(folder)))))
    assert len(path) == 107

    with bind_unix(path, 0o600):
        assert connects(path)


def test_tcp_beside_unix(path: str, table: Recorder) -> None:
    """Port 0 takes any; the address says which."""
    server = door(Member(socket=path, tcp=Tcp(port=0)), table)
    server.open()
    try:
        _, address = server.addresses
        host, _, port = address.removeprefix("tcp://").rpartition(":")

        assert [tcp for _, tcp in table.listening] == [False, True]
        with socket.create_connection((host, int(port))):
            pass
    finally:
        server.close()


def test_tcp_of_version_6() -> None:
    """Its address is written as URLs write it."""
    with bind_tcp(Tcp(host="::1", port=0)) as listener:
        assert listener.family == socket.AF_INET6


def test_a_taken_port_leaves_nothing_behind(path: str, table: Recorder) -> None:
    """Half a door is no door."""
    with bind_tcp(Tcp(port=0)) as other:
        server = door(Member(socket=path, tcp=Tcp(port=other.getsockname()[1])), table)
        with pytest.raises(ConfigError, match="give a free port"):
            server.open()

    assert not Path(path).exists()
    assert server.addresses == []


@pytest.mark.parametrize("stale", [False, True])
def test_two_nodes_that_start_at_once(path: str, *, stale: bool) -> None:
    """One is served; the other says why. Neither takes the other, not listening yet, for a stale one."""
    if stale:
        bind_unix(path, 0o600).close()
    barrier = threading.Barrier(2)
    outcomes: list[socket.socket | ConfigError] = []

    def start() -> None:
        barrier.wait(10)
        try:
            outcomes.append(bind_unix(path, 0o600))
        except ConfigError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    listeners = [outcome for outcome in outcomes if isinstance(outcome, socket.socket)]
    assert len(listeners) == 1
    assert connects(path)
    listeners[0].close()


async def answered(table: Recorder, command: Command, args: list[bytes] | None = None) -> Any:
    """What a client gets when a command does this."""
    server = door(Member(), table, {"state": command})
    await server.answer(Question(7, "state", args or []))  # type: ignore[arg-type] # a fake
    [(ask, answer)] = table.replies
    assert ask == 7
    return answer


async def test_a_command_is_answered(table: Recorder) -> None:
    """It gets what followed its name."""

    async def command(args: list[bytes]) -> Any:
        return args

    assert await answered(table, command, [b"a", b"b"]) == [b"a", b"b"]


async def test_a_refusal_keeps_its_code(table: Recorder) -> None:
    """A typed error stays one on the wire."""

    async def command(_args: list[bytes]) -> Any:
        raise error_for("bad_param", "no such section")

    answer = await answered(table, command)
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.message) == ("bad_param", "no such section")


async def test_a_defect_is_answered_and_logged(table: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """The client waits for an answer, the node must go on, and somebody must hear of it."""

    async def command(_args: list[bytes]) -> Any:
        raise KeyError("nothing")

    answer = await answered(table, command)
    assert isinstance(answer, Refusal)
    assert answer.code == "internal"
    assert "KeyError" in answer.message
    assert "command failed" in caplog.text


async def test_an_answer_that_no_protocol_can_say(table: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """Is a defect too."""

    async def command(_args: list[bytes]) -> Any:
        return {1, 2}

    answer = await answered(table, command)
    assert isinstance(answer, Refusal)
    assert answer.code == "internal"
    assert "answer failed" in caplog.text


async def test_an_unknown_command_is_refused(table: Recorder) -> None:
    """An engine that is newer may ask what this side cannot say."""
    server = door(Member(), table)
    await server.answer(Question(1, "dance", []))  # type: ignore[arg-type] # a fake

    [(_, answer)] = table.replies
    assert answer.code == "unknown_command"
