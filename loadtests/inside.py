"""What a read costs in the program that a node is part of, without a socket: for the page of `make bench`."""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from statistics import median
from time import perf_counter_ns

from turbopump import Node

KEYS = 1_000_000
BATCH = 1000
BATCHES = 2000


async def nothing(_key: str) -> bytes | None:
    """What a coroutine costs that does not wait."""
    return None


async def measure(keys: int = KEYS) -> dict[str, float]:
    """Reads keys in an order that no cache foresees.

    Args:
        keys: How many there are, of 16 bytes, with values of 100.

    Returns:
        Nanoseconds that a call takes, the loop around it included, medians over batches: of `Node.get`, of
        the same for a thousand of the keys, which caches keep, and of a coroutine that does nothing.
    """
    async with Node() as node:
        names = [f"key:{number:012}" for number in range(keys)]
        for name in names:
            await node.put(name, b"v" * 100)
        chance = random.Random(1)
        any_of_them, some = chance.choices(names, k=BATCH * BATCHES), chance.sample(names, BATCH)
        return {
            f"Node.get, any of {keys:,} keys": await calls(node.get, any_of_them),
            f"Node.get, {BATCH:,} of them": await calls(node.get, some * BATCHES),
            "a coroutine that does nothing": await calls(nothing, any_of_them),
        }


async def calls(function: Callable[[str], Awaitable[object]], names: Sequence[str]) -> float:
    """Nanoseconds of a call, the median over batches."""
    found = []
    for start in range(0, len(names), BATCH):
        batch = names[start : start + BATCH]
        begun = perf_counter_ns()
        for name in batch:
            await function(name)
        found.append((perf_counter_ns() - begun) / BATCH)
    return median(found)


def main() -> int:
    """Prints the figures."""
    for name, nanoseconds in asyncio.run(measure()).items():
        print(f"{name}: {nanoseconds:.0f} ns")
    return 0


if __name__ == "__main__":
    sys.exit(main())
