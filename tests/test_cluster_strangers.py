"""What knocks at a node's UDP port and is none of its peers: it is not let in, and nobody notices much."""

import json
import random
import socket
import struct
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from conftest import Serve, Served
from foreign import COOKIE, DATA, INIT, INIT_BYTES, RESP, RESP_BYTES, SUITES, Peer
from test_cluster import DEADLINE_SECONDS, NAMES, Trio, directory, eventually, free_ports, status
from turbopump.config import PublicKey
from turbopump.errors import UnavailableError
from turbopump.keys import ClusterSecret, NodeKey

JUNK = 2000
FENCE_EVERY = 50  # datagrams: what a socket holds without losing any
TAG_AT = 156  # in an INIT: behind its tags are zeros
KNOCKS = 4
HELLO = 1
HOUR_NS = 3_600_000_000_000
OLD = 0  # a version that there never was
REFUSED = (1, b"refused")
PATIENCE_SECONDS = 1.0  # with a knock, which a does not hear while it knocks at c's door
# No node must take another for dead, however busy the machine is.
STEADY = {"sync_seconds": 0.2, "peer_timeout": 15, "ack_timeout": DEADLINE_SECONDS}
PEERS = ("peer_up", "peer_down")


def says(node: Served, why: str) -> bool:
    """Whether a node has logged this."""
    return why in node.text()


class Besieged:
    """A cluster whose reads find what was written, also without c, and what a has to say of strangers."""

    def __init__(self, folder: Path, serve: Serve) -> None:
        rules = {"prefix": "", "write_acks": "quorum", "read_acks": "quorum"}
        self.trio = Trio(folder, serve, keyspaces=[rules], cluster=STEADY)
        self.address = self.trio.members[0]["address"]
        self._host, port = self.address.split(":")
        self._port = int(port)

    def heard(self) -> None:
        """Waits until a has read all that was sent to it: what the others answer comes behind that."""
        with self.trio.client("a") as client:
            client.put("fence", "x")

    def send(self, datagrams: Sequence[bytes]) -> None:
        """Sends a something, from one address, and waits until it is read."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.connect((self._host, self._port))
            for number, datagram in enumerate(datagrams):
                stranger.send(datagram)
                if number % FENCE_EVERY == 0:
                    self.heard()
        self.heard()

    def peer(self) -> Peer:
        """One that has c's keys, and shares nothing else with it."""
        keys = self.trio.file.parent
        private = NodeKey.load(keys / "keys" / "c.key").transport
        secret = ClusterSecret.load(keys / "cluster.secret").secret
        return Peer(private, secret, SUITES["ChaCha20-Poly1305"])

    @property
    def public_key(self) -> bytes:
        """That of a."""
        return PublicKey.parse(self.trio.members[0]["public_key"]).transport

    def works(self, names: Sequence[str] = NAMES) -> None:
        """What is written on one node is read on all."""
        for name in names:
            with self.trio.client(name) as client:
                client.put(f"by {name}", name)
        for name in names:
            with self.trio.client(name) as client:
                assert [client.get(f"by {other}") for other in names] == [other.encode() for other in names]

    def works_without_c(self) -> None:
        """That one is there and has no part in it; nothing of it comes to the others."""
        with self.trio.client("c") as c, pytest.raises(UnavailableError, match="written on 1 of 3"):
            c.put("intruded", "by a stranger")
        self.works(["a", "b"])
        with self.trio.client("a") as a:
            assert a.get("intruded") is None
        states = {peer["state"] for peer in status(self.trio.nodes["c"])["peers"]}
        assert states <= {"self", "connecting", "down"}

    def comes_back(self) -> None:
        """Starts c, which is let in as if nothing had been."""
        self.trio.start("c")
        self.trio.whole()
        self.works()

    def hears_of(self, why: str, *names: str) -> None:
        """Waits until each of these has said so."""
        for name in names:
            eventually(partial(says, self.trio.nodes[name], why))

    def told(self, name: str = "a", *, steady: bool = True) -> list[str]:
        """Ends a node; what it logged since it began, less what it said of that, of the end, and of peers.

        Args:
            name: Of the node.
            steady: Its peers came and did not go.
        """
        node = self.trio.nodes[name]
        assert node.stop() == 0
        lines = node.text().splitlines()
        events = [line.split("] ", 1)[1] for line in lines if "] draining " not in line]
        first = next(number for number, event in enumerate(events) if event.startswith("ready "))
        after = [event for event in events[first + 1 :] if not event.startswith("stopped ")]
        if steady:
            peers = [event.split()[0] for event in after if event.startswith(PEERS)]
            assert peers == ["peer_up"] * (len(NAMES) - 1)
        return [event for event in after if not event.startswith(PEERS)]


@pytest.fixture
def besieged(folder: Path, serve: Serve) -> Besieged:
    """A cluster that is whole."""
    return Besieged(folder, serve)


def handshake(trio: Trio, serve: Serve) -> bytes:
    """The first datagram that c sends to a: a second c sends it, which takes us for a and b."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as us:
        us.bind(("127.0.0.1", 0))
        us.settimeout(DEADLINE_SECONDS)
        document = json.loads(trio.file.read_text(encoding="utf-8"))
        a, b, c = document["members"]
        a["address"] = f"127.0.0.1:{us.getsockname()[1]}"
        b["address"], c["bind"] = (f"127.0.0.1:{port}" for port in list(free_ports(socket.SOCK_DGRAM))[:2])
        del c["tcp"]
        file = trio.file.parent / "second.json"
        file.write_text(json.dumps(document), encoding="utf-8")
        second = serve(None, str(file), "--node", "c")
        said = us.recv(2048)
        assert second.stop() == 0
    assert (said[0], len(said)) == (INIT, INIT_BYTES)
    return said


def test_junk_is_dropped(besieged: Besieged) -> None:
    """Of any length, also what begins as our packets do, or is as long."""
    chance = random.Random(11)
    firsts = [b"", *(bytes([kind]) for kind in (INIT, RESP, COOKIE, DATA, 0x00, 0x55, 0x56))]
    lengths = [0, 1, 15, 16, 63, RESP_BYTES - 1, INIT_BYTES - 1, 8000]
    besieged.send(
        [
            chance.choice(firsts) + chance.randbytes(chance.choice([*lengths, chance.randrange(1500)]))
            for _ in range(JUNK)
        ]
    )
    besieged.works()
    [line] = besieged.told()
    assert line.startswith("strangers ")
    assert "no packets of this protocol" in line


def test_a_handshake_that_is_cut_or_damaged_is_dropped(besieged: Besieged, serve: Serve) -> None:
    """After any number of bytes, or with zeros for those that are missing; or if a bit is wrong."""
    said = handshake(besieged.trio, serve)
    cuts = [said[:length] for length in (*range(200), *range(200, INIT_BYTES, 50), INIT_BYTES - 1)]
    cuts += [cut.ljust(INIT_BYTES, b"\0") for cut in cuts if 0 < len(cut) <= TAG_AT]
    flips = [said[:at] + bytes([said[at] ^ 1]) + said[at + 1 :] for at in range(1, TAG_AT)]
    besieged.send(cuts + flips)
    besieged.works()
    before = {peer["name"]: peer["state"] for peer in status(besieged.trio.nodes["a"])["peers"]}
    assert before == {"a": "self", "b": "alive", "c": "alive"}
    short, forged = sorted(besieged.told(), key=lambda line: "public key" in line)
    assert "no packets of this protocol" in short
    assert "public key" in forged


@pytest.mark.parametrize("knows", [False, True], ids=["at a's address", "with a's public key"])
def test_a_node_of_a_foreign_cluster_is_not_let_in(
    besieged: Besieged, folder: Path, serve: Serve, *, knows: bool
) -> None:
    """Its a is at our a's address; it may even take ours for its own."""
    (folder / "other").mkdir()
    file = directory(folder / "other", {})
    document = json.loads(file.read_text(encoding="utf-8"))
    a, b, c = document["members"]
    a["address"] = besieged.address
    if knows:
        a["public_key"] = besieged.trio.members[0]["public_key"]
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as us:  # a's knocks come before c's
        us.bind(("127.0.0.1", 0))
        us.settimeout(DEADLINE_SECONDS)
        c["address"] = f"127.0.0.1:{us.getsockname()[1]}"
        file.write_text(json.dumps(document), encoding="utf-8")
        foreign = serve(None, str(file), "--node", b["name"])
        for _ in range(KNOCKS):
            assert us.recv(2048)[0] == INIT
    besieged.works()
    assert {peer["name"]: peer["state"] for peer in status(foreign)["peers"]}["a"] == "connecting"
    assert status(foreign)["keys"] == 0
    [line] = besieged.told()
    why = "is no member: its public key is not in" if knows else "does not have this node's public key: give"
    assert why in line


def test_a_handshake_of_another_version_is_not_answered(besieged: Besieged) -> None:
    """Whoever wrote it knows a's public key, so it is told from nonsense."""
    with besieged.peer() as peer:
        besieged.send([peer.init(besieged.public_key, None, OLD)[1] for _ in range(KNOCKS)])
    besieged.works()
    [line] = besieged.told()
    assert line.startswith("strangers ")
    assert "speaks another version: update the older of the two" in line


def refusal(besieged: Besieged, *, set_back_ns: int = 0) -> tuple[int | None, bytes | None]:
    """What a says to a c whose messages are of an old version, when it sends it away."""
    host, port = besieged.address.split(":")
    for _ in range(int(DEADLINE_SECONDS / PATIENCE_SECONDS)):
        with besieged.peer() as peer:
            peer.socket.settimeout(PATIENCE_SECONDS)
            peer.set_back_ns = set_back_ns
            try:
                peer.connect((host, int(port)), besieged.public_key)
            except TimeoutError:
                continue
            peer.socket.settimeout(DEADLINE_SECONDS)
            peer.send_message(struct.pack("<BH16sQQ", HELLO, OLD, bytes(16), 1, 1))
            peer.send_message(b"nonsense", number=1)
            while peer.reason is None:
                peer.receive()
            return peer.code, peer.reason
    pytest.fail("a did not answer")


def test_messages_of_another_version_are_refused(besieged: Besieged) -> None:
    """In one line, however often their sender comes again, and whatever else it sends."""
    besieged.trio.kill("c")
    for _ in range(KNOCKS):
        assert refusal(besieged) == REFUSED
    besieged.works(["a", "b"])
    besieged.comes_back()
    [line] = besieged.told(steady=False)
    assert line.startswith("peer_refused ")
    assert "peer=c" in line
    assert "speaks another version: update the older of the two" in line


def test_a_member_whose_clock_was_set_back_is_heard(besieged: Besieged) -> None:
    """As soon as it has proved who it is; a line says what is to be done, and another refuses this one."""
    besieged.trio.kill("c")
    for _ in range(KNOCKS):
        assert refusal(besieged, set_back_ns=HOUR_NS) == REFUSED
    besieged.comes_back()
    clock, refused = sorted(besieged.told(steady=False))
    assert clock.startswith("clock_set_back ")
    assert "was let in: set its clock" in clock
    assert refused.startswith("peer_refused ")


@pytest.mark.parametrize("epoch", [0, 1], ids=["of the same number", "of another number"])
def test_a_member_with_another_secret_is_not_let_in(besieged: Besieged, epoch: int) -> None:
    """Each side says so, and what to do."""
    file = besieged.trio.file.parent / "cluster.secret"
    kept = file.rename(file.with_suffix(".kept"))
    ClusterSecret(ClusterSecret.generate().secret, epoch).save(file)
    assert besieged.trio.nodes["c"].stop() == 0
    besieged.trio.start("c")
    why = "another secret, or does not hear this node: give both the same cluster.secret"
    besieged.hears_of(why, *NAMES)
    besieged.works_without_c()
    [line] = besieged.told("c", steady=False)
    assert why in line
    kept.replace(file)
    besieged.comes_back()
    [line] = besieged.told(steady=False)
    assert line.startswith("strangers ")
    assert why in line


def test_a_member_with_another_file_is_not_let_in(besieged: Besieged) -> None:
    """Each side says so of each other one, and what to do."""
    text = besieged.trio.file.read_text(encoding="utf-8")
    document = json.loads(text)
    document["keyspaces"].append({"prefix": "other/", "writes": "immutable"})
    besieged.trio.file.write_text(json.dumps(document), encoding="utf-8")
    besieged.trio.kill("c")
    besieged.trio.start("c")
    why = "its cluster.json differs from this node's: give both the same file and restart them"
    besieged.hears_of(why, "a", "b")
    for peer in ("a", "b"):
        besieged.hears_of(f'peer={peer} why="{why}"', "c")
    besieged.works_without_c()
    lines = besieged.told("c", steady=False)
    besieged.trio.file.write_text(text, encoding="utf-8")
    besieged.comes_back()
    [line] = besieged.told(steady=False)
    for said, peer in zip([line, *sorted(lines)], ["c", "a", "b"], strict=True):
        assert said.startswith("peer_refused ")
        assert why in said
        assert f"peer={peer}" in said
