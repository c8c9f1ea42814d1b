"""A node that is told to stop: every accepted write is answered, then it makes room for the next one."""

import itertools
import select
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import Serve, Served
from turbopump._native import Drained, Engine
from turbopump.config import Config, engine_options
from wire import Wire, command, once, until

WRITERS = 8
WRITES_MAX = 1_000_000


class Writer(threading.Thread):
    """A client that writes until the other side closes, and counts what it was told.

    Attributes:
        sent: Commands that were sent whole.
        received: All replies.
    """

    def __init__(self, path: str, number: int, depth: int, *, resp: bool) -> None:
        super().__init__()
        self.wire = Wire(path)
        self.received = bytearray()
        self.begun = threading.Event()
        first = b"" if resp else b"keep||\n"
        write = command("SET", f"writer-{number}", "x") if resp else b"write|name=writer-%d|x\n" % number
        self._batches = itertools.chain([first + write], itertools.repeat(write * depth, WRITES_MAX))

    def run(self) -> None:
        """Writes a batch, reads what there is, and again."""
        with self.wire, suppress(BrokenPipeError, ConnectionResetError):
            for batch in self._batches:
                self.wire.send(batch)
                piece = self.wire.socket.recv(1 << 16)
                self.received += piece
                self.begun.set()
                if not piece:
                    return
        with suppress(OSError):
            self.received += self.wire.rest()

    def answers(self) -> int:
        """How many writes were answered; each with a whole line."""
        assert self.received.endswith(b"\n")
        lines = [line.strip() for line in bytes(self.received).splitlines() if line != b"ok|"]
        assert all(line == b"+OK" or line.startswith(b"ok|version=") for line in lines), lines[-1]
        return len(lines)


def writers(path: str, depth: int) -> list[Writer]:
    """Clients of both protocols that have begun to write."""
    threads = [Writer(path, number, depth, resp=bool(number % 2)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        assert thread.begun.wait(20)
    return threads


@pytest.mark.parametrize("depth", [1, 50])
def test_sigterm_under_load_answers_every_write_that_was_read(serve: Serve, depth: int) -> None:
    """Clients see whole replies up to the end, and the exit code is 0."""
    node = serve().ready()
    threads = writers(node.socket, depth)
    node.signal(signal.SIGTERM)
    assert node.ended() == 0
    for thread in threads:
        thread.join()

    assert sum(thread.answers() for thread in threads) >= WRITERS
    assert "clean=True" in node.text()


@pytest.mark.parametrize("depth", [1, 50])
def test_as_many_writes_are_answered_as_were_done(folder: Path, depth: int) -> None:
    """Counted on both sides: by the store when it has been drained, and by the clients."""
    path = str(folder / "s")
    config = Config()
    engine = Engine(engine_options(config, config.member()))
    engine.start()
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(100)
            engine.listen(listener.fileno(), tcp=False)
        threads = writers(path, depth)
        engine.drain(10_000)
        end = drained(engine)
        for thread in threads:
            thread.join()

        assert end.aborted == 0
        assert sum(thread.answers() for thread in threads) == engine.stats()["writes"]
    finally:
        engine.stop()


def drained(engine: Engine) -> Drained:
    """Waits for the end of a drain."""
    for _ in range(1_000):
        assert select.select([engine], [], [], 20)[0], "nothing happened"
        for event in engine.poll_events():
            if isinstance(event, Drained):
                return event
    raise AssertionError("a thousand other events")


def test_who_sends_without_a_pause_does_not_keep_the_node(serve: Serve) -> None:
    """It is cut off between two commands, long before the deadline."""
    node = serve({"drain_seconds": 20}).ready()
    with Wire(node.socket) as wire:
        wire.socket.settimeout(5)
        over = threading.Event()
        block = b"PING\r\n" * 20_000

        def send() -> None:
            with suppress(BrokenPipeError, ConnectionResetError):
                for _ in range(WRITES_MAX):
                    wire.socket.sendall(block)
                    if over.is_set():
                        return

        sender = threading.Thread(target=send)
        sender.start()
        wire.exactly(1_000_000)
        node.signal(signal.SIGTERM)
        begun = time.monotonic()
        with suppress(ConnectionResetError):
            while wire.socket.recv(1 << 20):
                assert time.monotonic() - begun < 15
        over.set()
        sender.join()

    assert node.ended() == 0
    assert time.monotonic() - begun < 10


def test_who_connected_before_the_signal_is_served(serve: Serve) -> None:
    """Even those that the node had not looked at: the kernel has said yes to them."""
    node = serve().ready()
    node.signal(signal.SIGSTOP)
    wires = [Wire(node.socket).send(b"write|name=backlog-%d|x\n" % number) for number in range(1_000)]
    node.signal(signal.SIGTERM)
    node.signal(signal.SIGCONT)
    answers = []
    for wire in wires:
        with wire, suppress(ConnectionResetError):
            answers.append(wire.rest())

    assert [answer[:11] for answer in answers] == [b"ok|version="] * 1_000
    assert node.ended() == 0


def test_idle_clients_are_sent_home(serve: Serve) -> None:
    """A thousand kept connections between two commands: each sees the end, none a reset."""
    node = serve().ready()
    wires = [Wire(node.socket).keep() for _ in range(1_000)]
    silent = [Wire(node.socket) for _ in range(100)]
    begun = time.monotonic()
    node.signal(signal.SIGTERM)
    for wire in [*wires, *silent]:
        with wire:
            assert wire.rest() == b""

    assert node.ended() == 0
    assert time.monotonic() - begun < 5


def test_a_value_that_is_on_its_way_is_taken(serve: Serve) -> None:
    """The client may finish what it has begun; nobody new is let in meanwhile."""
    node = serve().ready()
    value = b"v" * 5_000_000
    with Wire(node.socket) as pipe, Wire(node.socket) as resp, Wire(node.socket) as reader:
        reader.ask("SET", "large", b"v" * 30_000_000)
        reader.send(command("GET", "large")).exactly(100)
        pipe.send(b"write|name=a length=%d|" % len(value) + value[:1_000_000])
        resp.send(b"*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$%d\r\n" % len(value) + value[:1_000_000])
        once(node.socket, b"ping||\n")
        node.signal(signal.SIGTERM)
        assert node.notified().startswith("STOPPING=1")
        until(lambda: not accepts(node.socket), "the door to close")

        assert pipe.send(value[1_000_000:]).rest().startswith(b"ok|version=")
        assert resp.send(value[1_000_000:] + b"\r\n").rest() == b"+OK\r\n"
        assert len(reader.rest()) == len(b"$30000000\r\n\r\n") + 30_000_000 - 100
    assert node.ended() == 0


def test_cold_commands_are_answered_too(serve: Serve) -> None:
    """The side that decides stops last."""
    node = serve().ready()
    node.signal(signal.SIGSTOP)
    wires = [Wire(node.socket).send(b"keep||\nstatus|frame=1|\nping||\n") for _ in range(50)]
    node.signal(signal.SIGTERM)
    node.signal(signal.SIGCONT)
    for wire in wires:
        with wire:
            assert wire.line() == b"ok|"
            assert wire.framed().status == "ok"
            assert wire.line() == b"pong"
            assert wire.rest() == b""

    assert node.ended() == 0


def test_who_waits_is_told_that_the_node_stops(serve: Serve) -> None:
    """A wait was read, so it is answered: it does not hold the node until its deadline."""
    node = serve().ready()
    with Wire(node.socket) as wire, Wire(node.socket).keep(frame=True) as framed:
        wire.send(b"wait|name=never timeout=3000|\n")
        framed.send(b"wait|name=never timeout=3000 id=4|\n")
        once(node.socket, b"ping||\n")
        begun = time.monotonic()
        node.signal(signal.SIGTERM)

        assert wire.rest().startswith(b"error|code=shutting_down|")
        told = framed.framed()
        assert (told.code, told.params["id"]) == ("shutting_down", "4")
    assert node.ended() == 0
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("second", [True, False])
def test_a_stuck_client_is_cut_off(serve: Serve, *, second: bool) -> None:
    """By a second signal or by the deadline; the exit code tells, and the others were answered."""
    node = serve({"drain_seconds": 3600 if second else 0.3}).ready()
    with Wire(node.socket) as stuck, Wire(node.socket).keep() as other:
        stuck.send(b"write|name=a length=100|half")
        other.send(b"write|name=b|whole\n")
        once(node.socket, b"ping||\n")
        node.signal(signal.SIGTERM)
        assert node.notified().startswith("STOPPING=1")
        assert other.rest().startswith(b"ok|version=")
        if second:
            assert node.process.poll() is None
            node.signal(signal.SIGTERM)

        assert node.ended() == 1
        with suppress(ConnectionResetError):
            assert stuck.rest() == b""
    assert "clean=False" in node.text()
    assert not Path(node.socket).exists()


def test_after_a_kill_the_next_one_starts_on_the_same_path(serve: Serve, folder: Path) -> None:
    """Killed under load: clients see the end, the file stays behind, and nobody has to remove it."""
    path = str(folder / "s")
    for round_number in range(2):
        node = serve(None, "--socket", path).ready()
        assert once(path, b"list||\n") == b""
        threads = writers(path, 10)
        node.signal(signal.SIGKILL)
        assert node.ended() == -signal.SIGKILL
        for thread in threads:
            thread.join()
        assert Path(path).exists(), round_number

    assert serve(None, "--socket", path).ready().stop() == 0
    assert not Path(path).exists()


def test_a_live_node_keeps_its_path(serve: Serve) -> None:
    """The second one is refused, in words; the first one does not notice."""
    first = serve().ready()
    with Wire(first.socket).keep() as wire:
        second = serve(None, "--socket", first.socket)
        assert second.ended() == 2
        assert first.socket in second.text()
        assert "another node" in second.text()

        assert wire.send(b"ping||\n").line() == b"pong"
    assert once(first.socket, b"ping||\n") == b"pong\n"


def test_a_file_that_is_no_socket_is_left_alone(serve: Serve, folder: Path) -> None:
    """A wrong path must not cost anybody a file."""
    precious = folder / "precious"
    precious.write_text("mine", encoding="utf-8")
    node = serve(None, "--socket", str(precious))

    assert node.ended() == 2
    assert "not a socket" in node.text()
    assert precious.read_text(encoding="utf-8") == "mine"


def test_a_path_in_a_folder_that_is_not_there(serve: Serve, folder: Path) -> None:
    """Is told in one line."""
    node = serve(None, "--socket", str(folder / "no" / "such"))

    assert node.ended() == 2
    assert "Traceback" not in node.text()
    assert str(folder / "no") in node.text()


def test_systemd_is_told_when_and_what(serve: Serve) -> None:
    """READY=1 when the first connection would be served, STOPPING=1 when no more are, each with a status."""
    node = serve()
    ready = node.notified()
    assert once(node.socket, b"ping||\n") == b"pong\n"
    node.signal(signal.SIGTERM)
    stopping = node.notified()
    assert node.ended() == 0

    for message, first in ((ready, "READY=1"), (stopping, "STOPPING=1")):
        fields = dict(line.split("=", 1) for line in message.splitlines())
        assert message.startswith(first)
        assert fields["STATUS"]
    assert node.socket in ready


def test_a_signal_during_the_start_is_no_crash(serve: Serve) -> None:
    """At any moment between the first instruction and readiness: it ends, and leaves no socket behind."""
    for wanted in itertools.islice((b"pydantic", b"_native", b"eventpoll"), 3):
        node = serve()
        wait_for_mapping(node, wanted)
        node.signal(signal.SIGTERM)

        assert node.ended() in {0, -signal.SIGTERM}
        assert "Traceback" not in node.text()
        assert not accepts(node.socket)


def wait_for_mapping(node: Served, name: bytes) -> None:
    """Returns when the process has come so far that it has loaded or opened something, or has ended."""
    deadline = time.monotonic() + 20
    poller = select.poll()
    while node.process.poll() is None and time.monotonic() < deadline:
        with suppress(FileNotFoundError, ProcessLookupError):
            process = Path(f"/proc/{node.process.pid}")
            links = b"".join(bytes(entry.readlink()) for entry in (process / "fd").iterdir())
            if name in (process / "maps").read_bytes() + links:
                return
        poller.poll(1)


def accepts(path: str) -> bool:
    """Whether somebody listens."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0
