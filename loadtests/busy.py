"""A node inside a Python program that has work of its own: what an application is to the reactor.

    python loadtests/busy.py --socket /tmp/busy --work loop     # 2 ms of every 10, in the event loop
    python loadtests/busy.py --socket /tmp/busy --work thread   # all the time, in a thread
    python loadtests/busy.py --socket /tmp/busy --work none     # an idle program
    python loadtests/busy.py --work thread                      # the same work without a node

It runs until SIGTERM. bench.py compares what its clients notice.
"""

import argparse
import asyncio
import signal
import threading
import time
from contextlib import nullcontext

from turbopump import Config, Node

STEPS = 200  # between two looks at the clock: about 10 us


def compute(deadline: float) -> int:
    """Keeps Python busy until a time of the monotonic clock."""
    x = 1
    while time.monotonic() < deadline:
        for step in range(STEPS):
            x = (x * 31 + step) & 0xFFFF
    return x


async def compute_by_turns(busy: float, period: float) -> None:
    """Keeps the event loop busy for a part of every period, in seconds. Missed turns are skipped."""
    start = time.monotonic()
    while True:
        compute(start + busy)
        start = max(start + period, time.monotonic())
        await asyncio.sleep(start - time.monotonic())


def compute_all_the_time(stop: threading.Event) -> None:
    """Keeps a thread busy until told to stop."""
    while not stop.is_set():
        compute(time.monotonic() + 0.01)


async def serve(options: argparse.Namespace) -> None:
    """Runs the node and the work until SIGTERM or Ctrl-C."""
    over, stop = asyncio.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    node = Node(Config().with_socket(options.socket), listen=True) if options.socket else nullcontext()
    thread = threading.Thread(target=compute_all_the_time, args=(stop,))
    async with node, asyncio.TaskGroup() as group:
        if options.work == "loop":
            turns = group.create_task(compute_by_turns(options.busy_ms / 1e3, options.period_ms / 1e3))
        elif options.work == "thread":
            thread.start()
        await over.wait()
        if options.work == "loop":
            turns.cancel()
        elif options.work == "thread":
            stop.set()
            thread.join()


def main() -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description="A node inside a Python program that has work of its own.")
    parser.add_argument("--socket", help="where the node listens; without it there is no node")
    parser.add_argument("--work", choices=["none", "loop", "thread"], default="none")
    parser.add_argument("--busy-ms", type=float, default=2.0, help="of each period, for --work loop")
    parser.add_argument("--period-ms", type=float, default=10.0)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
