"""client/: where a node is, and what both clients do when one misbehaves."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from turbopump import (
    AsyncClient,
    Client,
    ConnectionLostError,
    DeniedError,
    NotFoundError,
    ProtocolError,
    TurbopumpError,
    UnavailableError,
)
from turbopump.client import address
from turbopump.client.call import Call

GREETED = b"ok|id=0 length=0|\nok|id=1 length=4|pong\n"  # the answer to what both clients say first


class Peer:
    """A node that plays its answers from a list, one for each request it reads.

    Then it closes, or with `hold` leaves that to the client.
    """

    def __init__(self, path: str, answers: list[bytes], *, hold: bool) -> None:
        self.path = path
        self._hold = hold
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._listener.settimeout(20)
        self._answers = answers
        self._thread = threading.Thread(target=self._play)
        self._thread.start()

    def close(self) -> None:
        """Waits for the end of the play."""
        self._thread.join(20)
        self._listener.close()

    def _play(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(20)
        with connection:
            for answer in self._answers:
                if not connection.recv(1 << 20):
                    return
                connection.sendall(answer)
            while self._hold and connection.recv(1 << 20):
                pass


PeerMaker = Callable[..., str]


@pytest.fixture
def peer(folder: Path) -> Iterator[PeerMaker]:
    """Makes peers: `peer(b"...", b"...")` returns the path of one that greets and then plays these."""
    made: list[Peer] = []

    def make(*answers: bytes, greeting: bytes = GREETED, hold: bool = False) -> str:
        made.append(Peer(str(folder / str(len(made))), [greeting, *answers], hold=hold))
        return made[-1].path

    yield make
    for each in made:
        each.close()


BROKEN = [
    (b"", ConnectionLostError),
    (b"ok|id=2 length=10|cut", ConnectionLostError),
    (b"nonsense\n|||", ProtocolError),
    (b"ok|id=2 length=1|xx\n", ProtocolError),
    (b"ok|id=2 length=99999999999999|", ProtocolError),
    (b"error|id=2 code=of_the_future length=4|what\n", TurbopumpError),
    (b"error|id=2 code=not_found length=2|no\n", None),
]


@pytest.mark.parametrize(("answer", "expected"), BROKEN)
def test_a_peer_that_misbehaves(peer: PeerMaker, answer: bytes, expected: type[Exception] | None) -> None:
    """Every outcome is typed; nothing hangs."""
    with Client(peer(answer), timeout=20) as client:
        if expected is None:
            assert client.get("a") is None
        else:
            with pytest.raises(expected) as raised:
                client.get("a")
            assert type(raised.value) is expected


@pytest.mark.parametrize(("answer", "expected"), BROKEN)
async def test_a_peer_that_misbehaves_to_asyncio(
    peer: PeerMaker, answer: bytes, expected: type[Exception] | None
) -> None:
    """In the same way."""
    async with AsyncClient(peer(answer), timeout=20) as client:
        if expected is None:
            assert await client.get("a") is None
        else:
            with pytest.raises(expected) as raised:
                await client.get("a")
            assert type(raised.value) is expected


def test_an_answer_to_something_else(peer: PeerMaker) -> None:
    """Is never taken for one's own."""
    with Client(peer(b"ok|id=7 length=1|x\n"), timeout=20) as client, pytest.raises(ProtocolError):
        client.get("a")


def test_a_late_answer_is_not_taken_for_another_calls(peer: PeerMaker) -> None:
    """After a time-out the connection is closed: the next call would read it."""
    client = Client(peer(b"", hold=True), timeout=0.05)
    with pytest.raises(UnavailableError) as raised:
        client.get("a")

    assert raised.value.code == "no_reply"
    assert client._connection is None


async def test_a_late_answer_is_dropped_by_its_id(peer: PeerMaker) -> None:
    """The call it belonged to was cancelled; the connection lives on."""
    both = b"ok|id=2 length=3|one\nok|id=3 length=3|two\n"
    async with AsyncClient(peer(b"ok|id=", both[6:], hold=True), timeout=20) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.get("first"), 0.05)

        assert await client.get("second") == b"two"


async def test_silence_is_an_error(peer: PeerMaker) -> None:
    """After the time given, connecting included."""
    with pytest.raises(UnavailableError) as raised:
        await AsyncClient(peer(greeting=b"ok|", hold=True), timeout=0.05).ping()

    assert raised.value.code == "no_reply"


@pytest.mark.parametrize(
    "greeting", [b"error|id=0 code=denied length=2|no\n", b"error|code=denied length=2|no\n"]
)
async def test_a_node_that_turns_away(peer: PeerMaker, greeting: bytes) -> None:
    """Says why, and both clients tell it."""
    with pytest.raises(DeniedError, match="no"):
        Client(peer(greeting=greeting), timeout=20).ping()
    with pytest.raises(DeniedError, match="no"):
        await AsyncClient(peer(greeting=greeting), timeout=20).ping()


async def test_nobody_is_there(folder: Path) -> None:
    """Said with the address, and what to do."""
    path = str(folder / "nobody")
    for node in (path, "tcp://127.0.0.1:1"):
        with pytest.raises(ConnectionLostError, match="start one or give its address"):
            Client(node).ping()
        with pytest.raises(ConnectionLostError, match="start one or give its address"):
            await AsyncClient(node).ping()


@pytest.mark.parametrize(
    "text",
    [
        "tcp://",
        "tcp://host",
        "tcp://:1592",
        "tcp://host:x",
        "tcp://host:99999",
        "tcp://a@host:1",
        "tcp://host:1/x",
    ],
)
def test_a_wrong_address(text: str) -> None:
    """Known before anything is sent."""
    with pytest.raises(ValueError, match="write tcp://host:port"):
        Client(text)


def test_where_a_node_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given, else what the environment says, else the default."""
    assert address.parse("tcp://[::1]:5")[1:] == ("::1", 5)
    assert address.parse("/a").text == "/a"
    monkeypatch.setenv("TURBOPUMP_SOCKET", "/b")
    assert address.parse(None).text == "/b"
    monkeypatch.delenv("TURBOPUMP_SOCKET")
    assert address.parse(None).text == "/tmp/turbopump"


def test_an_error_without_a_default_is_raised() -> None:
    """Only the codes that a command names are answers."""
    call = Call("exists", {}, lambda _answer: True)

    class Answered:
        code, body = "not_found", b"nothing"

    with pytest.raises(NotFoundError):
        call.result(Answered())  # type: ignore[arg-type] # a fake
