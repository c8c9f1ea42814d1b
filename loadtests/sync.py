"""Measures how a cluster heals, and writes sync.md and sync.svg: `make bench-sync`.

A node that comes back blank is filled by two others, while a client of one of these is timed. Then two nodes
that hold the same are made to differ in some keys, as if one had not heard of them, and are compared: what
that costs must follow the differences, and not the data.
"""

import argparse
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench import alone
from machine import machine
from nodes import Nodes, alive
from servers import HERE
from sync_page import Client as Timed
from sync_page import Healing, Transfer, merged, page, plot
from turbopump import Client, build_info
from turbopump._native import load

VALUE_BYTES = 100
CLIENT_RATE = 1000
"""Reads a second of the client beside a transfer, and as many writes: nothing that fills a CPU."""

WINDOW_SECONDS = 0.5
"""The client is timed in windows of this length; those that a transfer touches are counted as during it."""

BEFORE_WINDOWS = 6
PATIENCE_SECONDS = 300.0
PEER_TIMEOUT_SECONDS = 1.0
SETTLED_SECONDS = 1.5
"""How old differences are when they are looked for: younger ones are on their way, as far as a node knows."""

BATCH = 500
COUNTS = ("digest_bytes", "rounds", "entries_received", "bytes_received")
"""Of a blank node's peers."""


def main() -> int:
    """Reads the command line, measures, writes the page."""
    options = parse()
    if build_info()["profile"] != "release":
        print("sync: a debug build's figures mean nothing: make build makes a release", file=sys.stderr)
        return 2
    with alone():
        transfers = [transfer(size) for size in options.sizes]
        chance, healings = random.Random(options.seed), list[Healing]()
        for size in options.healed_sizes or options.sizes[-2:]:
            healings += heal(size, [d for d in options.differences if d <= size], options.repeat, chance)
    picture = options.output.with_suffix(".svg")
    picture.write_text(plot(healings), encoding="utf-8")
    about = machine() | {"date": time.strftime("%Y-%m-%d", time.gmtime())}
    options.output.write_text(page(transfers, healings, about, picture.name), encoding="utf-8")
    print(f"wrote {options.output} and {picture}")
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure how nodes heal.")
    sizes, differences = [10_000, 100_000, 1_000_000], [1, 10, 100, 1000, 10_000]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes, help="keys that a blank node receives")
    parser.add_argument("--healed-sizes", type=int, nargs="+", help="keys of two nodes; the last two sizes")
    parser.add_argument("--differences", type=int, nargs="+", default=differences, help="keys that differ")
    parser.add_argument("--repeat", type=int, default=3, help="times that differences are healed: medians")
    parser.add_argument("--seed", type=int, default=1, help="of the keys that differ")
    parser.add_argument("--output", type=Path, default=HERE / "sync.md", help="and the picture beside it")
    return parser.parse_args()


@contextmanager
def cluster(count: int, **settings: Any) -> Iterator[Nodes]:
    """So many nodes in clone mode, which answer a write when one has it."""
    rules = {"keyspaces": [{"prefix": "", "write_acks": "one"}]}
    with (
        tempfile.TemporaryDirectory(prefix="tp-sync-", dir="/tmp") as folder,
        Nodes(Path(folder), count, rules | {"cluster": settings}) as nodes,
    ):
        yield nodes


def fill(nodes: Nodes, keys: int) -> float:
    """Writes keys on the first node and waits until all have them; returns how long that took."""
    begun = time.monotonic()
    checked({"address": nodes.sockets["a"], "prefill": True, "keys": keys, "seconds": 0.01})
    nodes.until(partial(nodes.equal, time.monotonic()), PATIENCE_SECONDS, "all nodes to have all keys")
    return time.monotonic() - begun


def checked(options: Mapping[str, object]) -> dict[str, Any]:
    """What the load generator finds.

    Raises:
        RuntimeError: Some answers are wrong.
    """
    figures = load({"protocol": "resp", "connections": 1, "value_size": VALUE_BYTES, **options})
    wrong = {name: figures[name] for name in ("misses", "bad", "errors") if figures[name]}
    if wrong:
        raise RuntimeError(f"a node answers wrongly: {wrong}, it said {figures['first_error'] or 'nothing'}")
    return figures


def transfer(keys: int) -> Transfer:
    """Fills a cluster of three, kills the second node, and measures how it is filled again."""
    with cluster(3) as nodes:
        filled = fill(nodes, keys)
        with timed(nodes.sockets["a"], keys) as before:
            time.sleep(WINDOW_SECONDS * BEFORE_WINDOWS)
        nodes.kill("b")
        # What is timed is the transfer, and not how a Python program starts.
        nodes.start("b")
        started = nodes.until(partial(has, nodes, "b", 0), PATIENCE_SECONDS, "b to answer")
        with timed(nodes.sockets["a"], keys) as during:
            early = int(nodes.status("b")["keys"])
            seconds = nodes.until(partial(has, nodes, "b", keys), PATIENCE_SECONDS, "b to have all keys")
        nodes.until(partial(nodes.equal, time.monotonic()), PATIENCE_SECONDS, "b to hold the same")
        peers = alive(nodes.status("b"))
        checked({"address": nodes.sockets["b"], "keys": keys, "seconds": 0.5})
    digests, rounds, entries, received = (sum(peer[name] for peer in peers) for name in COUNTS)
    clients = (before.figures(), during.figures())
    found = Transfer(keys, early, filled, started, seconds, digests, rounds, entries, received, *clients)
    print(found, flush=True)
    return found


def has(nodes: Nodes, name: str, keys: int) -> bool:
    """Whether a node answers, and has so many keys."""
    return bool(nodes.status(name)["keys"] >= keys)


class Windows:
    """What a client that reads and one that writes have found, window by window."""

    def __init__(self) -> None:
        self.runs: dict[int, list[dict[str, Any]]] = {100: [], 0: []}
        self.failures: list[Exception] = []

    def run(self, address: str, keys: int, reads: int, over: threading.Event) -> None:
        """Times requests until it is over, for a window at least."""
        options = {"address": address, "keys": keys, "reads": reads, "rate": CLIENT_RATE}
        try:
            while not (over.is_set() and self.runs[reads]):
                window = {"seconds": WINDOW_SECONDS, "warmup_seconds": 0.0}
                self.runs[reads].append(checked(options | window))
        except (OSError, RuntimeError) as failure:
            self.failures.append(failure)

    def figures(self) -> Timed:
        """The percentiles over all windows, in microseconds."""
        return Timed(*(merged(self.runs[reads], percent) for reads in (100, 0) for percent in (50.0, 99.0)))


@contextmanager
def timed(address: str, keys: int) -> Iterator[Windows]:
    """Has clients read and write some keys meanwhile.

    Raises:
        OSError: The node went away.
        RuntimeError: It answered wrongly.
    """
    windows, over = Windows(), threading.Event()
    threads = [threading.Thread(target=windows.run, args=(address, keys, reads, over)) for reads in (100, 0)]
    for thread in threads:
        thread.start()
    try:
        yield windows
    finally:
        over.set()
        for thread in threads:
            thread.join()
    if windows.failures:
        raise windows.failures[0]


def heal(keys: int, differences: Sequence[int], repeat: int, chance: random.Random) -> list[Healing]:
    """Fills two nodes, makes them differ again and again, and measures how they find out."""
    settings = {
        "max_hints": 0,
        "peer_timeout": PEER_TIMEOUT_SECONDS,
    }  # without hints, comparing has to find it
    healings = []
    with cluster(2, **settings) as nodes:
        fill(nodes, keys)
        for count in differences:
            runs = [differ(nodes, keys, count, chance) for _ in range(repeat)]
            found = Healing(keys, count, *(median(figures) for figures in zip(*runs, strict=True)))
            print(found, flush=True)
            healings.append(found)
        for socket in nodes.sockets.values():
            checked({"address": socket, "keys": keys, "seconds": 0.5})
    return healings


def differ(nodes: Nodes, keys: int, count: int, chance: random.Random) -> tuple[float, ...]:
    """Writes some keys while the second node hears nothing, and lets it hear again.

    Returns:
        Seconds until the two have found each other, and until they hold the same; bytes of digests; rounds;
        keys that were found to differ.
    """
    nodes.signal("b", signal.SIGSTOP)
    nodes.until(lambda: nodes.peer("a", "b")["state"] != "alive", PATIENCE_SECONDS, "a to miss b")
    with Client(nodes.sockets["a"]) as client:
        chosen = chance.sample(range(keys), count)
        for first in range(0, count, BATCH):
            with client.pipeline() as pipe:
                for number in chosen[first : first + BATCH]:
                    key = f"key:{number:012}"
                    pipe.put(key, key + f"{chance.getrandbits(64):084}")
    time.sleep(SETTLED_SECONDS)
    before, since = nodes.peer("a", "b"), time.monotonic()
    nodes.signal("b", signal.SIGCONT)
    connected = nodes.until(nodes.whole, PATIENCE_SECONDS, "a and b to find each other")
    nodes.until(partial(nodes.equal, since), PATIENCE_SECONDS, "a and b to hold the same")
    seconds, after = time.monotonic() - since, nodes.peer("a", "b")
    with Client(nodes.sockets["b"]) as client:
        last = client.get(key)
    if last is None or int(last[16:]) >= 1 << 64 or not last.startswith(key.encode()):
        raise RuntimeError(f"b holds the same as a, and {key} is {last!r}")
    names = ("digest_bytes", "rounds", "keys_found")
    return (connected, seconds, *(float(after[name] - before[name]) for name in names))


if __name__ == "__main__":
    sys.exit(main())
