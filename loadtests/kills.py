"""Kills nodes of a cluster, one after the other, and looks for writes that are lost: `make kills`.

Three nodes keep everything in memory, and a write is answered when a quorum has it. Writers on random nodes
remember what was answered. A random node is killed with SIGKILL at a random moment, comes back empty, and is
healed before the next one is killed, writes going on all the while. After each healing a sample of the keys,
and at the end every key, must be on every node with the value that was acknowledged last. Ends with 1 if one
is not.

A write that failed may have happened: its value counts as right until the next one is acknowledged.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench import alone
from nodes import Nodes
from turbopump import Client
from turbopump.errors import TurbopumpError

KEYS = 2000
"""Of each writer: so many that most are overwritten only now and then, so few that some are at any moment."""

DELETES = 0.1
SAMPLE = 300
HEAL_SECONDS = 60.0
BATCH = 500
BEFORE_SECONDS = (0.02, 0.3)
"""Of writes before the kill, and in the next line until the node comes back."""
AWAY_SECONDS = (0.0, 0.5)
LONG_AWAY = 0.1
LONG_AWAY_SECONDS = 4.0
"""One of ten is away for longer than its peers wait for a sign of life."""
SHOWN = 20


class Write(NamedTuple):
    """What a key was told to be; nothing, if it was deleted."""

    value: bytes | None
    node: str
    version: str | None = None


@dataclass
class Ledger:
    """What a writer may expect of its keys."""

    acknowledged: dict[str, Write] = field(default_factory=dict)
    unknown: dict[str, list[Write]] = field(default_factory=dict)
    """Writes since then that failed: each may have happened."""
    answers: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """By the code of the error."""
    refusals: int = 0
    """Writes that reached no node: those were certainly not done."""
    blind_deletes: int = 0
    """Deletes that found nothing where there was something: on nodes that were still being healed."""

    def acknowledge(self, key: str, write: Write) -> None:
        """A write was answered: whatever was written before does not count any more."""
        self.answers += 1
        self.acknowledged[key] = write
        self.unknown.pop(key, None)

    def doubt(self, key: str, write: Write, code: str) -> None:
        """A write failed."""
        self.failures[code] += 1
        self.unknown.setdefault(key, []).append(write)

    def found_nothing(self, key: str, write: Write) -> None:
        """A delete was answered that found nothing to delete: it wrote nothing, and promised nothing."""
        before = self.acknowledged.get(key)
        self.blind_deletes += before is not None and before.value is not None
        self.unknown.setdefault(key, []).append(write)

    def lacks(self, key: str, found: bytes | None) -> bool:
        """Whether what was found under a key is neither what was acknowledged last nor what came after."""
        expected = self.acknowledged.get(key)
        if expected is None or found == expected.value:
            return False
        return all(found != write.value for write in self.unknown.get(key, ()))


class Writer:
    """Writes keys that nobody else writes, each time on a random node."""

    def __init__(self, number: int, sockets: dict[str, str], seed: int) -> None:
        self.ledger = Ledger()
        self._number = number
        self._sockets = sockets
        self._random = random.Random(f"{seed}/{number}")
        self._count = 0

    def run(self, over: threading.Event) -> None:
        """Writes until it is over."""
        with ExitStack() as stack:
            clients = {name: Client(path) for name, path in self._sockets.items()}
            for client in clients.values():
                stack.callback(client.close)
            while not over.is_set():
                name = self._random.choice(list(clients))
                self._write(name, clients[name])

    def _write(self, name: str, client: Client) -> None:
        self._count += 1
        key = f"{self._number}/{self._random.randrange(KEYS)}"
        value = None if self._random.random() < DELETES else b"%s = %d" % (key.encode(), self._count)
        try:
            version = client.delete(key) if value is None else client.put(key, value)
        except TurbopumpError as error:
            if isinstance(error.__cause__, ConnectionRefusedError | FileNotFoundError):
                self.ledger.refusals += 1
            else:
                self.ledger.doubt(key, Write(value, name), error.code)
            return
        if version is None:
            self.ledger.found_nothing(key, Write(value, name))
        else:
            self.ledger.acknowledge(key, Write(value, name, version))


class Loss(NamedTuple):
    """A key that is not what it must be."""

    key: str
    node: str
    expected: Write
    found: bytes | None

    def __str__(self) -> str:
        write = self.expected
        return (
            f"lost: {self.key} on {self.node} is {self.found!r}, and {write.value!r} was acknowledged by "
            f"{write.node} as {write.version}"
        )


def main() -> int:
    """Reads the command line, kills, tells."""
    options = parse()
    with alone(), tempfile.TemporaryDirectory(prefix="tp-kills-", dir="/tmp") as folder:
        settings = {"keyspaces": [{"prefix": "", "write_acks": "quorum"}]}
        with Nodes(Path(folder), 3, settings) as nodes:
            writers = [Writer(number, nodes.sockets, options.seed) for number in range(options.writers)]
            lost = rounds(nodes, writers, options.kills, options.seed)
            lost |= missing(nodes, writers, None)
    ledgers = [writer.ledger for writer in writers]
    for loss in sorted(lost, key=str)[:SHOWN]:
        print(loss)
    failures = sum((ledger.failures for ledger in ledgers), Counter[str]())
    counts = {
        "writes acknowledged": sum(ledger.answers for ledger in ledgers),
        "refused by a socket where nobody listened": sum(ledger.refusals for ledger in ledgers),
        **{f"unknown ({code})": count for code, count in sorted(failures.items())},
        "deletes on nodes that did not know the key yet": sum(ledger.blind_deletes for ledger in ledgers),
        "lost": len({loss.key for loss in lost}),
    }
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    print(f"{options.kills} kills, seed {options.seed}: {told}")
    return 1 if lost else 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Kill nodes under quorum writes and look for losses.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1, help="of victims, moments, keys and nodes")
    parser.add_argument("--writers", type=int, default=4)
    return parser.parse_args()


def rounds(nodes: Nodes, writers: Sequence[Writer], kills: int, seed: int) -> set[Loss]:
    """Kills so many nodes; returns what a sample lacked after each healing."""
    chance, lost = random.Random(seed), set[Loss]()
    for number in range(1, kills + 1):
        victim = chance.choice(nodes.names)
        with writing(writers):
            time.sleep(chance.uniform(*BEFORE_SECONDS))
            nodes.kill(victim)
            away = LONG_AWAY_SECONDS if chance.random() < LONG_AWAY else chance.uniform(*AWAY_SECONDS)
            time.sleep(away)
            nodes.start(victim)
            nodes.until(nodes.whole, HEAL_SECONDS, f"{victim} to be back after kill {number}")
            time.sleep(chance.uniform(*BEFORE_SECONDS))
        healed = nodes.until(partial(nodes.equal, time.monotonic()), HEAL_SECONDS, f"{victim} to be healed")
        found = missing(nodes, writers, chance)
        lost |= found
        answers = sum(writer.ledger.answers for writer in writers)
        failures = sum(writer.ledger.failures.total() for writer in writers)
        print(
            f"{number:>4} killed {victim}, away {away:.1f} s, healed {healed:.2f} s after the writes: "
            f"{answers:,} acknowledged, {failures:,} unknown, {len(found)} lost",
            flush=True,
        )
    return lost


@contextmanager
def writing(writers: Sequence[Writer]) -> Iterator[None]:
    """Lets all writers write meanwhile; afterwards none of them waits for an answer any more.

    Raises:
        RuntimeError: A writer failed in a way that no node is to blame for.
    """
    over, failures = threading.Event(), list[Exception]()

    def run(writer: Writer) -> None:
        try:
            writer.run(over)
        except Exception as failure:  # noqa: BLE001 - told below, in the thread that somebody looks at
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
    if failures:
        raise RuntimeError("a writer failed") from failures[0]


def missing(nodes: Nodes, writers: Sequence[Writer], chance: random.Random | None) -> set[Loss]:
    """What the nodes lack of a sample of the acknowledged writes, or of all of them without a chance."""
    owned = [(key, writer.ledger) for writer in writers for key in sorted(writer.ledger.acknowledged)]
    chosen = owned if chance is None else chance.sample(owned, min(SAMPLE, len(owned)))
    lost = set()
    for name in nodes.names:
        found = values(nodes.sockets[name], [key for key, _ in chosen])
        for key, ledger in chosen:
            if ledger.lacks(key, found[key]):
                lost.add(Loss(key, name, ledger.acknowledged[key], found[key]))
    return lost


def values(path: str, keys: Sequence[str]) -> dict[str, bytes | None]:
    """What a node has under these keys."""
    found: dict[str, bytes | None] = {}
    with Client(path) as client:
        for first in range(0, len(keys), BATCH):
            batch = keys[first : first + BATCH]
            with client.pipeline() as pipe:
                pending = {key: pipe.get(key) for key in batch}
            found |= {key: one.result() for key, one in pending.items()}
    return found


if __name__ == "__main__":
    sys.exit(main())
