"""What knocks at a node's UDP port and is none of its peers: it is not let in, and nobody notices much."""

import json
import random
import socket
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from conftest import Serve
from foreign import COOKIE, DATA, INIT, INIT_BYTES, RESP, RESP_BYTES
from test_cluster import DEADLINE_SECONDS, NAMES, Trio, directory, free_ports, status

JUNK = 2000
FENCE_EVERY = 50  # datagrams: what a socket holds without losing any
TAG_AT = 156  # in an INIT: behind its tags are zeros
KNOCKS = 4
# No node must take another for dead, however busy the machine is.
STEADY = {"sync_seconds": 0.2, "peer_timeout": 15, "ack_timeout": DEADLINE_SECONDS}
PEERS = ("peer_up", "peer_down")


class Besieged:
    """A cluster that confirms writes by all, and what its member a has to say of strangers."""

    def __init__(self, folder: Path, serve: Serve) -> None:
        self.trio = Trio(folder, serve, keyspaces=[{"prefix": "", "write_acks": "all"}], cluster=STEADY)
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

    def works(self) -> None:
        """What is written on one node is read on all."""
        for name in NAMES:
            with self.trio.client(name) as client:
                client.put(f"by {name}", name)
        for name in NAMES:
            with self.trio.client(name) as client:
                assert [client.get(f"by {other}") for other in NAMES] == [other.encode() for other in NAMES]

    def told(self) -> list[str]:
        """Ends a; what it logged since it began, less what it said of that, of the end, and of its peers."""
        node = self.trio.nodes["a"]
        assert node.stop() == 0
        lines = node.text().splitlines()
        events = [line.split("] ", 1)[1] for line in lines if "] draining " not in line]
        first = next(number for number, event in enumerate(events) if event.startswith("ready "))
        after = [event for event in events[first + 1 :] if not event.startswith("stopped ")]
        assert sum(event.startswith("peer_down ") for event in after) == 0
        assert sum(event.startswith("peer_up ") for event in after) == len(NAMES) - 1
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


def test_a_handshake_that_is_cut_is_dropped(besieged: Besieged, serve: Serve) -> None:
    """After any number of bytes, or with zeros for those that are missing."""
    said = handshake(besieged.trio, serve)
    cuts = [said[:length] for length in (*range(200), *range(200, INIT_BYTES, 50), INIT_BYTES - 1)]
    cuts += [cut.ljust(INIT_BYTES, b"\0") for cut in cuts if 0 < len(cut) <= TAG_AT]
    besieged.send(cuts)
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
    assert ("their sender is no member" if knows else "this node's public key") in line
