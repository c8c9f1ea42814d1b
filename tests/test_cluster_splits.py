"""Three boxes whose network is cut: who goes on, who is told what is known, and that all are equal after.

Each node is a `serve` process in a network namespace of its own.
"""

import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from conftest import Serve, Served
from network import Network, obstacle
from test_cluster import NAMES, Trio, eventually, status
from turbopump import Client
from turbopump.errors import UnavailableError
from wire import Wire, command

pytestmark = [pytest.mark.namespaces, pytest.mark.timeout(180)]  # the sum of a test's own deadlines

QUICK = {"sync_seconds": 0.1, "peer_timeout": 1, "ack_timeout": 1}
ALONE = "written on 1 of 3 replicas, 2 were asked for"
DRAIN_SECONDS = 4
GRACE_SECONDS = 5  # for a process to end on a machine that is busy with other tests
ROUNDS = 5  # comparisons after which what could come back would have


class Boxes(Trio):
    """A cluster of three, each on a box of its own."""

    def __init__(self, folder: Path, serve: Serve, network: Network, **cluster: float) -> None:
        self.network = network
        self._nodes = serve
        hosts = [network.address(name) for name in NAMES]
        super().__init__(folder, self._inside, hosts, cluster=QUICK | cluster, drain_seconds=DRAIN_SECONDS)

    def _inside(self, config: None, *arguments: str) -> Served:
        """A node within its own box; its name is the last argument."""
        return self._nodes(config, *arguments, within=self.network.within(arguments[-1]))

    def states(self, name: str) -> dict[str, str]:
        """How a node finds each other one: alive or not."""
        peers = status(self.nodes[name])["peers"]
        return {peer["name"]: peer["state"] for peer in peers if peer["state"] != "self"}

    def misses(self, name: str, others: Iterable[str]) -> None:
        """Waits until a node knows that it hears these no more."""
        eventually(lambda: all(self.states(name).get(other, "alive") != "alive" for other in others))

    def mended(self) -> None:
        """Mends the network, and waits until all nodes know each other."""
        self.network.mend()
        self.whole()

    def values(self, keys: Iterable[str]) -> list[dict[str, bytes | None]]:
        """What each node holds under the keys."""
        held = []
        for name in self.nodes:
            with self.client(name) as client:
                held.append({key: client.get(key) for key in keys})
        return held

    def equal(self, expected: dict[str, bytes | None]) -> None:
        """Waits until all hold just this, and on until they have compared and it is still so."""
        eventually(lambda: all(held == expected for held in self.values(expected)))
        before = {name: compared(self.nodes[name]) for name in NAMES}
        eventually(lambda: all(was_compared(self.nodes[name], before[name]) for name in NAMES))
        assert self.values(expected) == [expected] * len(NAMES)
        alive = sum(value is not None for value in expected.values())
        assert [status(node)["keys"] for node in self.nodes.values()] == [alive] * len(NAMES)


def compared(node: Served) -> dict[str, int]:
    """How many comparisons that found nothing a node has had with each other one."""
    return {peer["name"]: peer["rounds_equal"] for peer in status(node)["peers"] if peer["state"] != "self"}


def was_compared(node: Served, before: dict[str, int]) -> bool:
    """Whether there have been enough since."""
    now = compared(node)
    return all(now.get(name, 0) >= count + ROUNDS for name, count in before.items())


@pytest.fixture
def network() -> Iterator[Network]:
    """Three boxes on one bridge, removed whatever happens."""
    if reason := obstacle():
        pytest.skip(reason)
    with Network(NAMES) as network:
        yield network


def test_a_majority_goes_on_and_a_minority_says_how_many(
    folder: Path, network: Network, serve: Serve
) -> None:
    """The link of one box is pulled. After that all hold the same: of each key what was written last."""
    boxes = Boxes(folder, serve, network)
    with boxes.client("a") as a, boxes.client("b") as b, boxes.client("c") as c:
        a.put("before", "all")
        network.unplug("a")
        with pytest.raises(UnavailableError, match=ALONE):
            a.put("minority", "a")  # nobody knows of the split yet: it waits for as long as it may
        boxes.misses("a", "bc")
        with pytest.raises(UnavailableError, match=ALONE):
            a.put("both", "a")
        for number in range(100):
            (b if number % 2 else c).put(f"majority{number}", str(number))
        b.put("both", "b")
        b.put("other", "b")
        with pytest.raises(UnavailableError, match=ALONE):
            a.put("other", "a")
        assert a.get("majority1") is None
        assert a.get("before") == b"all"
        expected: dict[str, bytes | None] = {key: later(key, a, b) for key in ("both", "other")}
    boxes.mended()
    expected |= {f"majority{number}": str(number).encode() for number in range(100)}
    boxes.equal(expected | {"before": b"all", "minority": b"a"})
    for node in boxes.nodes.values():
        assert node.stop() == 0


def later(key: str, first: Client, second: Client) -> bytes:
    """The value of the higher version, of those that two nodes hold."""
    return max((found.version, found.value) for client in (first, second) if (found := client.read(key)))[1]


def test_what_one_way_loses_comes_by_another(folder: Path, network: Network, serve: Serve) -> None:
    """One box does not hear another, which hears it; a third one hears both, and heals them meanwhile."""
    boxes = Boxes(folder, serve, network)
    network.cut("a", "b")
    boxes.misses("a", "b")
    boxes.misses("b", "a")
    with boxes.client("a") as a, boxes.client("b") as b:
        for number in range(20):
            a.put(f"a{number}", "a")
            b.put(f"b{number}", "b")
        eventually(lambda: all(b.get(f"a{number}") == b"a" for number in range(20)))
        eventually(lambda: all(a.get(f"b{number}") == b"b" for number in range(20)))
        assert boxes.states("a")["b"] != "alive"
        assert boxes.states("b")["a"] != "alive"
    boxes.mended()
    boxes.equal({f"{who}{number}": who.encode() for who in "ab" for number in range(20)})


@pytest.mark.parametrize("deleter", ["a", "b"])
def test_what_is_deleted_on_one_side_stays_deleted(
    folder: Path, network: Network, serve: Serve, deleter: str
) -> None:
    """The other side holds the old value, and shows it until it hears; whichever side has the majority."""
    boxes = Boxes(folder, serve, network)
    with boxes.client(deleter) as client, boxes.client("b" if deleter == "a" else "a") as other:
        client.put("kept", "v")
        client.put("gone", "v")
        eventually(lambda: other.get("gone") == b"v" == other.get("kept"))
        network.split("a", "bc")
        boxes.misses("a", "bc")
        boxes.misses("b", "a")
        if deleter == "a":
            with pytest.raises(UnavailableError, match=ALONE):
                client.delete("gone")
        else:
            assert client.delete("gone") is not None
        assert client.get("gone") is None
        assert other.get("gone") == b"v"
    boxes.mended()
    boxes.equal({"gone": None, "kept": b"v"})


def test_a_node_that_comes_back_blank_while_it_is_split(folder: Path, network: Network, serve: Serve) -> None:
    """It hears one of two others: from that one it has all, deletes too, and none of them comes back."""
    boxes = Boxes(folder, serve, network)
    expected: dict[str, bytes | None] = {f"key{number}": b"old" for number in range(200)}
    with boxes.client("a") as a, boxes.client("b") as b:
        for key in expected:
            a.put(key, "old")
        network.split("b", "c")
        boxes.kill("c")
        boxes.misses("a", "c")
        for number in range(0, 200, 2):
            b.delete(f"key{number}")
            expected[f"key{number}"] = None
        boxes.start("c")
        eventually(lambda: boxes.states("c").get("a") == "alive")
        b.put("while it heals", "b")
        expected["while it heals"] = b"b"
        eventually(lambda: boxes.values(expected) == [expected] * len(NAMES))
        assert boxes.states("c")["b"] != "alive"
        with boxes.client("c") as c:
            c.put("from the blank one", "c")
        expected["from the blank one"] = b"c"
        b.delete("key1")
        expected["key1"] = None
    boxes.mended()
    boxes.equal(expected)


def test_a_drain_during_a_split_answers_what_waits(folder: Path, network: Network, serve: Serve) -> None:
    """With what is known when the wait is over, which is sooner than the deadline of the drain."""
    boxes = Boxes(folder, serve, network, ack_timeout=2, peer_timeout=20)
    with waiting_write(boxes) as wire:
        begun = time.monotonic()
        boxes.nodes["a"].signal(signal.SIGTERM)
        assert ALONE.encode() in wire.reply()
        assert boxes.nodes["a"].ended() == 0
        assert time.monotonic() - begun < DRAIN_SECONDS


def test_a_drain_during_a_split_ends(folder: Path, network: Network, serve: Serve) -> None:
    """At its own deadline, if what a client waits for takes longer; the exit code says that it was cut."""
    boxes = Boxes(folder, serve, network, ack_timeout=60, peer_timeout=60)
    with waiting_write(boxes) as wire:
        begun = time.monotonic()
        boxes.nodes["a"].signal(signal.SIGTERM)
        assert boxes.nodes["a"].ended() == 1
        assert DRAIN_SECONDS <= time.monotonic() - begun < DRAIN_SECONDS + GRACE_SECONDS
        assert wire.rest() == b""


def waiting_write(boxes: Boxes) -> Wire:
    """A client of a node that is cut off, whose write waits for a quorum."""
    boxes.network.split("a", "bc")
    wire = Wire(boxes.nodes["a"].socket)
    wire.send(command("SET", "key", "value"))
    with boxes.client("a") as other:
        eventually(lambda: other.get("key") == b"value")
    return wire
