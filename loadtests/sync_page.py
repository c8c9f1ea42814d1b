"""What healing costs as a page and a picture. Not how it is measured: sync.py."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from results import row, spread
from turbopump.plot import Curve, decade_plot

HOW = """Written by `make bench-sync`: nodes in clone mode on one machine, in memory, 16 B keys and 100 B
values, answers when one node has a write (`write_acks` one), digests compared every 0.2 s. README.md says
more."""

TRANSFER = """Three nodes hold the keys. One is killed, and comes back with nothing. Start is until it answers
a client; by then it has received some keys already. Digests are all bytes of comparing, of both its peers;
entries are how often each key came, and received is what came in all, packets and all. A client of a node
that was up all the time reads 1,000 keys a second and writes as many; its figures are of before the kill, and
of from when the node answered until it had all."""

HEALING = """Two nodes hold the keys. One is stopped until the other has it for down; keys are written there;
1.5 s later it goes on. There are no hints, so that comparing must find the keys. Seconds count from then
until both have found that they hold the same; before that they find each other again. Medians."""

TRANSFER_HEAD = (
    "keys",
    "fill, s",
    "start, s",
    "keys by then",
    "the rest, s",
    "keys/s",
    "digests, B",
    "rounds",
    "entries a key",
    "received, B a key",
    "GET p50, us: before",
    "during",
    "GET p99: before",
    "during",
    "SET p50: before",
    "during",
    "SET p99: before",
    "during",
)
HEALING_HEAD = (
    "keys",
    "differences",
    "connected, s",
    "equal, s",
    "digests, B",
    "B a difference",
    "rounds",
    "keys found",
)


class Client(NamedTuple):
    """What a client saw, in microseconds."""

    get_p50: float
    get_p99: float
    set_p50: float
    set_p99: float


class Transfer(NamedTuple):
    """How a blank node was filled."""

    keys: int
    early: int
    """Keys that it had by its first answer."""
    fill_seconds: float
    start_seconds: float
    seconds: float
    digest_bytes: int
    rounds: int
    entries: int
    received_bytes: int
    before: Client
    during: Client

    def row(self) -> str:
        """It as a row of the table."""
        counts = (f"{self.keys:,}", f"{self.fill_seconds:.1f}", f"{self.start_seconds:.2f}")
        rate = (self.keys - self.early) / max(self.seconds, 1e-9)
        speed = (f"{self.early:,}", f"{self.seconds:.2f}", f"{rate:,.0f}")
        cost = (f"{self.digest_bytes:,}", f"{self.rounds:,}", f"{self.entries / self.keys:.2f}")
        clients = (f"{us:,.0f}" for pair in zip(self.before, self.during, strict=True) for us in pair)
        return row(*counts, *speed, *cost, f"{self.received_bytes / self.keys:,.0f}", *clients)


class Healing(NamedTuple):
    """How two nodes that differed in some keys came to hold the same."""

    keys: int
    differences: int
    connected_seconds: float
    seconds: float
    digest_bytes: float
    rounds: float
    keys_found: float

    def row(self) -> str:
        """It as a row of the table."""
        cost = (f"{self.digest_bytes:,.0f}", f"{self.digest_bytes / self.differences:,.0f}")
        counts = (f"{self.rounds:,.0f}", f"{self.keys_found:,.0f}")
        seconds = (f"{self.connected_seconds:.2f}", f"{self.seconds:.2f}")
        return row(f"{self.keys:,}", f"{self.differences:,}", *seconds, *cost, *counts)


def merged(runs: Sequence[Mapping[str, Any]], percent: float) -> float:
    """A percentile of several runs together, in microseconds.

    Args:
        runs: What the load generator returned; each counts with its requests.
        percent: 0 to 100.
    """
    weights = [run["requests"] + run["unanswered"] for run in runs]
    wanted = percent * sum(weights)
    latencies: list[float] = sorted({us for run in runs for _, us in run["percentiles"]})
    for us in latencies:
        shares = (_percent_within(run["percentiles"], us) for run in runs)
        if sum(weight * share for weight, share in zip(weights, shares, strict=True)) >= wanted:
            return us
    return latencies[-1]


def _percent_within(points: Sequence[tuple[float, float]], us: float) -> float:
    return max((percent for percent, latency in points if latency <= us), default=0.0)


def page(
    transfers: Sequence[Transfer], healings: Sequence[Healing], machine: Mapping[str, str], picture: str
) -> str:
    """All of it, in Markdown.

    Args:
        transfers: In the order of the table.
        healings: The same.
        machine: What they ran on, as `machine.machine` describes it.
        picture: The file that `plot` went into, from where the page is.
    """
    lines = ["# Healing", "", HOW, "", *(f"- {name}: {value}" for name, value in machine.items())]
    lines += ["", "## A blank node", "", TRANSFER, "", *_table(TRANSFER_HEAD, transfers)]
    lines += ["", "## Differences", "", HEALING, "", *_table(HEALING_HEAD, healings)]
    lines += ["", *_compared(healings), "", f"![Bytes of digests by differences]({picture})"]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], found: Sequence[Transfer | Healing]) -> list[str]:
    return [row(*head), row(*("--:" for _ in head)), *(each.row() for each in found)]


def _compared(healings: Sequence[Healing]) -> Iterator[str]:
    """What more data and more differences cost, in words."""
    sizes = sorted({healing.keys for healing in healings})
    least, most = sizes[0], sizes[-1]
    few, many = ({of.differences: of for of in healings if of.keys == size} for size in (least, most))
    pairs = [(few[count], many[count]) for count in few if count in many]
    if least < most and pairs:
        size = spread([more.digest_bytes / less.digest_bytes for less, more in pairs], 1)
        time = spread([more.seconds / less.seconds for less, more in pairs], 1)
        yield f"{most / least:g} times the data cost {size} times the bytes and {time} times the seconds."


def plot(healings: Sequence[Healing]) -> str:
    """The bytes of digests against the differences, a curve for each size of the data, as SVG."""
    curves = []
    for size in sorted({healing.keys for healing in healings}):
        of = sorted(healing for healing in healings if healing.keys == size)
        points = [(healing.differences, healing.digest_bytes) for healing in of]
        curves.append(Curve(f"{size:,} keys on each node", points))
    return decade_plot(curves, "What it costs to find differences", "keys that differ", "bytes of digests")
