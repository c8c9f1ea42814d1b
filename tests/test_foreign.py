"""The datagram engine and a peer that shares nothing with it understand each other, in both roles.

The peer is foreign.py, over a real socket; ours are `turbopump transfer serve` and `send`.
"""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from nacl.public import PrivateKey

from foreign import INIT, SUITES, Peer, Suite
from turbopump._native import transfer_serve
from turbopump.transfer import Ticket, send

SECRET = bytes(range(32))
DATA = hashlib.shake_256(b"what is sent").digest(40_000)
FILE = (4).to_bytes(2, "big") + b"data" + DATA


@pytest.fixture(params=sorted(SUITES))
def suite(request: pytest.FixtureRequest) -> Suite:
    """Each of the cipher suites."""
    return SUITES[request.param]


def received(peer: Peer, folder: Path, remote: PrivateKey, *, copies: int = 0) -> None:
    """Has ours serve, and the foreign peer connect and send it a file."""
    options = {
        "private": bytes(remote),
        "peer": bytes(peer.key.public_key),
        "shared": SECRET,
        "address": "127.0.0.1:0",
        "path": folder,
        "congestion": "bbr",
    }

    def with_address(address: str) -> None:
        host, port = address.split(":")
        said.append(pool.submit(converse, (host, int(port))))

    def converse(address: tuple[str, int]) -> bytes:
        peer.connect(address, bytes(remote.public_key), copies=copies)
        peer.send_message(FILE)
        return peer.receive_message()

    said: list[Future[bytes]] = []
    with ThreadPoolExecutor(1) as pool:
        transfer_serve(options, with_address, lambda _: not said[0].done())
        assert said[0].result() == b"\0"
    assert (folder / "data").read_bytes() == DATA


def test_a_foreign_peer_connects_and_sends(suite: Suite, tmp_path: Path) -> None:
    """Its handshake is understood, its packets are opened, its pieces are put in order."""
    with Peer(bytes(PrivateKey.generate()), SECRET, suite) as peer:
        received(peer, tmp_path, PrivateKey.generate())
        assert peer.cookies == 0


def test_a_foreign_peer_shows_the_cookie_that_it_is_asked_for(tmp_path: Path) -> None:
    """After so many handshakes in a second that its address must be proved."""
    with Peer(bytes(PrivateKey.generate()), SECRET, SUITES["ChaCha20-Poly1305"]) as peer:
        received(peer, tmp_path, PrivateKey.generate(), copies=20)
        assert peer.cookies == 1


@contextmanager
def sending(file: Path, to: str) -> Iterator[Future[Mapping[str, Any]]]:
    """Has ours send a file, and give up when the test is over."""
    over = Event()

    def watch(_: object) -> None:
        if over.is_set():
            raise InterruptedError

    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(send, file, to, watch)
        finally:
            over.set()


def test_a_foreign_peer_is_connected_to(suite: Suite, tmp_path: Path) -> None:
    """Our handshake is what it should be, and so are our packets."""
    file = tmp_path / "data"
    file.write_bytes(DATA)
    key = PrivateKey.generate()
    ticket = Ticket(bytes(key.public_key), SECRET)
    with Peer(bytes(key), ticket.shared, suite) as peer:
        with sending(file, f"{ticket}@127.0.0.1:{peer.port}") as sent:
            peer.accept(bytes(ticket.sender.public_key))
            assert peer.receive_message() == FILE
            peer.send_message(b"\0")
            figures = sent.result()
        while peer.reason is None:
            peer.receive()
    assert figures["suite"] == next(name for name, known in SUITES.items() if known is peer.suite)
    assert (peer.code, peer.reason) == (0, b"done")


def test_a_foreign_peer_of_another_cluster_is_not_listened_to(tmp_path: Path) -> None:
    """It knows both public keys, and not the one that is shared: its answer might as well be none."""
    file = tmp_path / "data"
    file.write_bytes(DATA)
    key = PrivateKey.generate()
    ticket = Ticket(bytes(key.public_key), SECRET)
    with (
        Peer(bytes(key), bytes(32), SUITES["ChaCha20-Poly1305"]) as peer,
        sending(file, f"{ticket}@127.0.0.1:{peer.port}") as sent,
    ):
        peer.accept(bytes(ticket.sender.public_key))
        assert peer.socket.recv(65_536)[0] == INIT, "it asks again, and sends no data"
        assert not sent.done()
