"""Measures a node beside redis-server and memcached on this machine, and writes results.md: `make bench`.

Every round runs each workload on each server in turn, so that whatever else the machine does hits all alike;
the figures are medians over the rounds. The servers are pinned to one CPU and the load to another. A run that
others disturbed is done again, and the quietest one counts.
"""

import argparse
import asyncio
import fcntl
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from inside import measure
from machine import machine, servers
from results import Results, page, ratios
from servers import HERE, Server, recipes
from turbopump import build_info
from turbopump._native import load
from workloads import KEYS, MEMORY_KEYS, NOISE, READS, WORKLOADS, Figures, Workload

LOCK = Path(tempfile.gettempdir()) / f"turbopump-bench-{os.getuid()}.lock"

PAUSE_SECONDS = 0.5
"""After a spoilt run: others compute in bursts."""


def main() -> int:
    """Reads the command line, measures, writes the page."""
    options = parse()
    if build_info()["profile"] != "release":
        print("bench: a debug build's figures mean nothing: make build makes a release", file=sys.stderr)
        return 2
    with alone(), tempfile.TemporaryDirectory(prefix="turbopump-bench-") as folder:
        bench = Bench(options, Path(folder))
        try:
            bench.workloads([workload for workload in WORKLOADS if workload.name in options.only])
            if "memory" in options.only:
                bench.memory()
            if "inside" in options.only:
                bench.inside()
        except KeyboardInterrupt:
            print("bench: stopped", file=sys.stderr)
            return 130
    options.output.write_text(
        page(bench.results, machine() | servers("redis-server", "memcached"), described(options))
    )
    found = ratios(bench.results)
    missed, noisy = sum(ratio.missed for ratio in found), sum(ratio.noisy for ratio in found)
    print(f"wrote {options.output}: of {len(found)} ratios {missed} missed, {noisy} noisy")
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    names = [*(workload.name for workload in WORKLOADS), "memory", "inside"]
    cpus = [*sorted(os.sched_getaffinity(0))[:2], -1, -1]
    server_cpu, client_cpu = cpus[:2] if cpus[1] >= 0 else (-1, -1)
    parser = argparse.ArgumentParser(description="Measure a node beside redis-server and memcached.")
    parser.add_argument("--rounds", type=int, default=5, help="of all workloads and servers")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run, after a quarter to warm up")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="W", help=", ".join(names))
    parser.add_argument("--server-cpu", type=int, default=server_cpu, help="-1: any")
    parser.add_argument("--client-cpu", type=int, default=client_cpu, help="-1: any")
    parser.add_argument("--retries", type=int, default=5, help="of a spoilt run")
    parser.add_argument("--output", type=Path, default=HERE / "results.md")
    parser.add_argument("--raw", type=Path, help="append every run here, as a line of JSON")
    return parser.parse_args()


def described(options: argparse.Namespace) -> str:
    """How the figures were made, for the page."""
    server, client = (
        "not pinned" if cpu < 0 else f"on CPU {cpu}" for cpu in (options.server_cpu, options.client_cpu)
    )
    runs = f"medians of {options.rounds} alternated runs of {options.seconds:g} s"
    return (
        f"Written by `make bench`: {runs} over unix sockets,\n"
        f"16 B keys, 100 B values, {KEYS:,} keys, the server {server}, the load {client}.\n"
        "README.md says how to read it."
    )


@contextmanager
def alone() -> Iterator[None]:
    """Waits until no other benchmark runs here: two would measure each other.

    From here on SIGTERM is like Ctrl-C: what was started is ended.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("bench: waiting for another one to end", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Bench:
    """A benchmark that is under way.

    Attributes:
        results: What it has found.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.results = Results()
        self._options = options
        self._folder = folder
        self._recipes = recipes()

    def workloads(self, chosen: Sequence[Workload]) -> None:
        """Runs workloads, round after round, and enters the figures."""
        wanted = {name for workload in chosen for name in workload.servers}
        with ExitStack() as stack:
            servers = {name: stack.enter_context(self._server(name)) for name in self._installed(wanted)}
            for server in servers.values():
                self._load(server, {"prefill": True, "keys": KEYS, "connections": 1, "seconds": 0.01})
                server.pause()
            for number in range(1, self._options.rounds + 1):
                for workload, operation, name in self._turns(chosen):
                    if name in servers:
                        figures = self._run(workload, operation, servers[name])
                        self.results.add(workload, operation, name, figures)
                        self._tell(number, workload, operation, name, figures)

    def memory(self) -> None:
        """Fills one server after the other with keys, and enters what a key takes."""
        for name in self._installed({"turbopump", "redis", "memcached"}):
            with self._server(name) as server:
                idle = server.resident_bytes()
                fill = {"prefill": True, "keys": MEMORY_KEYS, "connections": 1, "seconds": 0.01}
                self._load(server, fill)
                found = (server.resident_bytes() - idle) / MEMORY_KEYS
            self.results.bytes_per_key[name] = found
            print(f"  memory {name}: {found:.0f} bytes a key", flush=True)

    def inside(self) -> None:
        """Measures reads in a program of which the node is part: this one."""
        self.results.inside = asyncio.run(measure())
        for name, nanoseconds in self.results.inside.items():
            print(f"  inside: {name}: {nanoseconds:.0f} ns", flush=True)

    def _turns(self, chosen: Sequence[Workload]) -> Iterator[tuple[Workload, str, str]]:
        for workload in chosen:
            for operation in workload.operations:
                for name in workload.servers:
                    yield workload, operation, name

    def _installed(self, names: set[str]) -> list[str]:
        """Those whose programs are here, in the order of the recipes."""
        for name in sorted(names):
            if missing := self._recipes[name].missing:
                print(f"bench: {missing} is not installed: measured without it", file=sys.stderr)
        return [name for name in self._recipes if name in names and not self._recipes[name].missing]

    def _server(self, name: str) -> Server:
        return Server(self._recipes[name], self._folder, cpu_or_none(self._options.server_cpu))

    def _run(self, workload: Workload, operation: str, server: Server) -> Figures:
        """A run that nobody disturbed, or the quietest of several."""
        options = {**workload.options, "keys": KEYS, "reads": READS[operation]}
        options |= {"seconds": self._options.seconds, "warmup_seconds": self._options.seconds / 4}
        best: Figures | None = None
        for _ in range(1 + self._options.retries):
            with server.awake():
                figures = self._load(server, options)
            if best is None or figures["other_cpu"] < best["other_cpu"]:
                best = figures
            if figures["other_cpu"] <= NOISE:
                break
            time.sleep(PAUSE_SECONDS)
        assert best is not None  # noqa: S101 - there is at least one try
        return best

    def _load(self, server: Server, options: Mapping[str, object]) -> dict[str, Any]:
        figures: dict[str, Any] = load(
            {
                "address": server.address,
                "protocol": server.protocol(one_shot=bool(options.get("one_shot"))),
                "pids": server.pids,
                "cpu": cpu_or_none(self._options.client_cpu),
                **options,
            }
        )
        wrong = {name: figures[name] for name in ("misses", "bad", "errors") if figures[name]}
        if wrong:
            said = figures["first_error"] or "nothing"
            raise RuntimeError(f"{server.recipe.name} answers wrongly: {wrong}, it said {said}")
        return figures

    def _tell(self, number: int, workload: Workload, operation: str, server: str, figures: Figures) -> None:
        found = [f"{figure.title} {figure.of(figures):,.{figure.digits}f}" for figure in workload.figures]
        found.append(f"others {figures['other_cpu']:.2f}")
        print(f"{number} {workload.name:<10} {operation} {server:<24}", ", ".join(found), flush=True)
        if self._options.raw:
            line = {"round": number, "workload": workload.name, "operation": operation, "server": server}
            with self._options.raw.open("a") as file:
                file.write(json.dumps(line | dict(figures)) + "\n")


def cpu_or_none(cpu: int) -> int | None:
    """The CPU that was asked for; None for any."""
    return None if cpu < 0 else cpu


if __name__ == "__main__":
    sys.exit(main())
