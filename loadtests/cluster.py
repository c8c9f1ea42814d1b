"""Measures replicated writes beside Redis with replicas and etcd; writes cluster.md: `make bench-cluster`.

Every side is up from the start; in each round each workload runs on each side in turn, and the figures are
medians over the rounds. Nothing is pinned: the processes of a cluster shall run beside each other.
"""

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import writes
from bench import alone
from machine import machine, servers
from results import Results, page, ratios
from servers import HERE
from sides import Side, missing, starters
from turbopump import build_info
from turbopump._native import load
from workloads import CLUSTER_WORKLOADS, CLUSTERS, KEYS, NOISE, Figures, Workload

PAUSE_SECONDS = 0.5
"""After a spoilt run: others compute in bursts."""

HOW = """Unix sockets, 16 B keys, 100 B values; all processes share the CPUs of one machine. A write is
answered when two of three have it: ours with `write_acks` quorum, Redis's SET and WAIT 1 in one packet,
etcd's Put on the leader. Ours and Redis keep entries in memory; etcd also logs them, here to files in memory.
README.md says how to read it."""


def main() -> int:
    """Reads the command line, measures, writes the page."""
    options = parse()
    if build_info()["profile"] != "release":
        print("cluster: a debug build's figures mean nothing: make build makes a release", file=sys.stderr)
        return 2
    for name in options.only:
        if program := missing(name):
            print(f"cluster: {program} is not installed: measured without it", file=sys.stderr)
    with alone(), ExitStack() as stack:
        sides = {}
        for name in options.only:
            if missing(name) is None:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tp-side-", dir="/tmp"))
                sides[name] = stack.enter_context(starters()[name](Path(folder)))
        results = measured(sides, options)
    about = machine() | servers("redis-server", "etcd")
    about["date"] = time.strftime("%Y-%m-%d", time.gmtime())
    told = page(results, about, described(options), title="Replicated writes", workloads=CLUSTER_WORKLOADS)
    options.output.write_text(told, encoding="utf-8")
    found = ratios(results, CLUSTER_WORKLOADS)
    print(
        f"wrote {options.output}: of {sum(ratio.target.must is not None for ratio in found)} ratios that "
        f"must hold {sum(ratio.missed for ratio in found)} missed"
    )
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure replicated writes beside Redis and etcd.")
    parser.add_argument("--rounds", type=int, default=5, help="of all workloads and sides")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run, after a quarter to warm up")
    parser.add_argument("--retries", type=int, default=2, help="of a spoilt run")
    parser.add_argument("--only", nargs="+", choices=CLUSTERS, default=CLUSTERS, metavar="SIDE", help="which")
    parser.add_argument("--output", type=Path, default=HERE / "cluster.md")
    return parser.parse_args()


def described(options: argparse.Namespace) -> str:
    """How the figures were made, for the page."""
    runs = f"medians of {options.rounds} alternated runs of {options.seconds:g} s"
    return f"Written by `make bench-cluster`: {runs}, {KEYS:,} keys.\n{HOW}"


def measured(sides: dict[str, Side], options: argparse.Namespace) -> Results:
    """All runs, round after round."""
    results = Results()
    for number in range(1, options.rounds + 1):
        for workload in CLUSTER_WORKLOADS:
            for name in workload.servers:
                if name in sides:
                    figures = quietest(workload, sides[name], options)
                    results.add(workload, "SET", name, figures)
                    found = [f"{one.title} {one.of(figures):,.{one.digits}f}" for one in workload.figures]
                    found.append(f"others {figures['other_cpu']:.2f}")
                    print(number, workload.title, name, *found, sep=", ", flush=True)
    return results


def quietest(workload: Workload, side: Side, options: argparse.Namespace) -> Figures:
    """A run that nobody disturbed, or the quietest of several."""
    best: Figures | None = None
    for _ in range(1 + options.retries):
        figures = once(workload, side, options.seconds)
        if best is None or figures["other_cpu"] < best["other_cpu"]:
            best = figures
        if figures["other_cpu"] <= NOISE:
            break
        time.sleep(PAUSE_SECONDS)
    assert best is not None  # noqa: S101 - there is at least one try
    return best


def once(workload: Workload, side: Side, seconds: float) -> dict[str, Any]:
    """A run with the generator that the workload wants.

    Raises:
        RuntimeError: The side refuses writes.
        OSError: It went away.
    """
    connections = int(str(workload.options["connections"]))
    if not workload.options["native"]:
        figures = writes.run(
            side.address,
            side.wire,
            side.pids,
            connections=connections,
            keys=KEYS,
            seconds=seconds,
            warmup_seconds=seconds / 4,
        )
    else:
        figures = load(
            {
                "address": side.address,
                "connections": connections,
                "keys": KEYS,
                "reads": 0,
                "pids": side.pids,
                "seconds": seconds,
                "warmup_seconds": seconds / 4,
            }
        )
        if figures["errors"]:
            raise RuntimeError(f"{figures['errors']} writes were refused: {figures['first_error']}")
    # A microsecond a write is a tenth of a second for 100,000.
    return figures | {"server_s_per_100k": figures["server_us_per_request"] / 10}


if __name__ == "__main__":
    sys.exit(main())
