"""Measures transports side by side over emulated links, and writes transport.md: `make bench-transport`.

Every run of a scenario takes each transport in turn, so that whatever else the machine does hits all alike;
the figures are medians over the runs. A run that others disturbed is done again, and the quieter one counts.
A run's number is the seed of its losses. All but loopback needs root: it makes network namespaces, and
removes them.
"""

import argparse
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

from bench import alone
from links import LabError, Network, Program, peers
from machine import machine, package_version
from scenarios import RIVAL, SCENARIOS, TRANSPORTS, VANISHED_SECONDS_MAX, Loopback, Scenario
from servers import HERE
from transport_page import Results, page
from workloads import NOISE

LAB = HERE.parent / "target" / "release" / "turbopump-lab"

PATIENCE_SECONDS = 30.0
"""A run may last so much longer than it measures: to connect, to start, to deliver what is late."""

FLOW_SECONDS = 2.0
"""A stream runs so long before its receiver vanishes."""

Figures = dict[str, Any]
Pairs = Sequence[tuple[Program, Program]]


def main() -> int:
    """Reads the command line, measures, writes the page."""
    options = parse()
    signal.signal(signal.SIGTERM, ended)  # the `with` blocks clean up
    try:
        known = json.loads(subprocess.check_output([options.lab, "transports"]))  # noqa: S603 - it is ours
    except FileNotFoundError:
        print(f"bench-transport: {options.lab} is not there: make bench-transport builds it", file=sys.stderr)
        return 2
    chosen = [scenario for scenario in SCENARIOS if scenario.name in options.scenarios]
    if os.geteuid() and not all(isinstance(scenario.path, Loopback) for scenario in chosen):
        print("bench-transport: only root makes namespaces: take --scenarios loopback cpu", file=sys.stderr)
        return 2
    results = Results()
    for name in options.transports:
        if name not in known or known[name]:
            results.missing[name] = known.get(name, "the laboratory does not have it yet")
            print(f"bench-transport: {name} is left out: {results.missing[name]}", file=sys.stderr)
    transports = [name for name in options.transports if name not in results.missing]
    with alone():
        for scenario in chosen:
            run_scenario(scenario, transports, options, results)
    here = machine() | {package: package_version(package) for package in ("libudt0", "libsrt1.5-openssl")}
    options.output.write_text(page(results, here, described(options)))
    print(f"wrote {options.output}: {len(results.failures)} runs failed")
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(description="Measure transports side by side over emulated links.")
    told = ", ".join(names)
    parser.add_argument("--scenarios", nargs="+", choices=names, default=names, metavar="NAME", help=told)
    told = ", ".join(TRANSPORTS)
    parser.add_argument(
        "--transports", nargs="+", choices=TRANSPORTS, default=TRANSPORTS, metavar="NAME", help=told
    )
    parser.add_argument("--runs", type=int, default=3, help="of each scenario and transport")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="of each run, some take several times that"
    )
    parser.add_argument("--retries", type=int, default=1, help="of a run that others disturbed")
    parser.add_argument("--lab", type=Path, default=LAB, help="the laboratory's program")
    parser.add_argument("--output", type=Path, default=HERE / "transport.md")
    parser.add_argument("--raw", type=Path, help="append every run here, as a line of JSON")
    return parser.parse_args()


def described(options: argparse.Namespace) -> str:
    """How the figures were made, for the page."""
    runs = f"medians of {options.runs} alternated runs of {options.seconds:g} s"
    priority = os.nice(0)
    where = f"all on one machine{f', at nice {priority}' if priority else ''}"
    return (
        f"Written by `make bench-transport`: {runs} (some scenarios\n"
        f"take several times that), {where}. Links are emulated: packets of\n"
        "1500 B, a queue of one round trip's bytes, loss in both directions. README.md says how to read it."
    )


def ended(_number: int, _frame: FrameType | None) -> None:
    """Ends the program as an exception does."""
    raise SystemExit(143)


def run_scenario(
    scenario: Scenario, transports: Sequence[str], options: argparse.Namespace, results: Results
) -> None:
    """All runs of a scenario."""
    if scenario.needs_messages:
        transports = [name for name in transports if not name.startswith("tcp")]
    turns = [(number, name) for number in range(1, options.runs + 1) for name in transports]
    # Those who wait for a sender to notice something need not wait for each other.
    together = scenario.options["mode"] == "vanish"

    def one(turn: tuple[int, str]) -> Figures | LabError:
        number, transport = turn
        seconds = options.seconds * scenario.length
        try:
            tries = [measure(scenario, transport, seconds, seed=number, lab=options.lab)]
            while tries[-1]["other_cpu"] > NOISE and len(tries) <= options.retries and not together:
                tries.append(measure(scenario, transport, seconds, seed=number, lab=options.lab))
        except LabError as error:
            return error
        return min(tries, key=lambda figures: float(figures["other_cpu"]))

    with ThreadPoolExecutor(max(len(turns) * together, 1)) as pool:
        found: Iterator[Figures | LabError] = pool.map(one, turns) if together else map(one, turns)
        for (number, transport), figures in zip(turns, found, strict=True):
            if isinstance(figures, LabError):
                results.fail(scenario, transport, f"run {number}: {figures}")
                print(f"{number} {scenario.name:<12} {transport:<10} failed: {figures}", flush=True)
                continue
            results.add(scenario, transport, figures)
            tell(number, scenario, transport, figures, options.raw)


def measure(scenario: Scenario, transport: str, seconds: float, *, seed: int, lab: Path) -> Figures:
    """One run.

    Raises:
        LabError: It came to nothing.
    """
    run: dict[str, Any] = {**scenario.options, "transport": transport, "seconds": seconds}
    run["limit_seconds"] = VANISHED_SECONDS_MAX if run["mode"] == "vanish" else seconds + PATIENCE_SECONDS
    runs = [run, {**run, "transport": RIVAL}] if scenario.rival else [run]
    started, computed = time.monotonic(), machine_seconds() - children_seconds()
    limit = run["limit_seconds"] + PATIENCE_SECONDS
    with Network(scenario.path, seed=seed, limit_seconds=limit, lab=lab) as network:
        with peers(network, runs) as pairs:
            figures = READERS[run["mode"]](network, pairs)
        figures["link"] = network.end_link()
    others = machine_seconds() - children_seconds() - computed
    # The clocks of the two differ by a tick or so.
    return figures | {"other_cpu": max(others / (time.monotonic() - started), 0.0)}


def received(_network: Network, pairs: Pairs) -> Figures:
    """What the receiver found; with a rival, its share too."""
    figures, *rivals = [receiver.say() for receiver, _ in pairs]
    for rival in rivals:
        # Too short a run has no part after the start.
        name = "goodput_mbit" if figures["started_mbit"] is None else "started_mbit"
        both = figures[name] + rival[name]
        figures |= {"rival_mbit": rival[name], "share_percent": 100 * figures[name] / both}
    return figures


def sent(_network: Network, pairs: Pairs) -> Figures:
    """What the sender found."""
    return pairs[0][1].say()


def computed(_network: Network, pairs: Pairs) -> Figures:
    """What an amount cost both."""
    receiver, sender = (program.say() for program in pairs[0])
    both = receiver["cpu_seconds"] + sender["cpu_seconds"]
    return receiver | {"cpu_seconds": both, "sender_cpu_seconds": sender["cpu_seconds"]}


def noticed(network: Network, pairs: Pairs) -> Figures:
    """When a sender noticed that the other machine was gone: its link first, so that no kernel says so."""
    receiver, sender = pairs[0]
    time.sleep(FLOW_SECONDS)
    if network.link:
        network.link.signal(signal.SIGSTOP)
    vanished = time.monotonic_ns()
    receiver.signal(signal.SIGKILL)
    try:
        said = sender.say()
    except LabError:
        return {"noticed_seconds": math.inf}
    finally:
        if network.link:
            network.link.signal(signal.SIGCONT)
    return said | {"noticed_seconds": (said["noticed_ns"] - vanished) / 1e9}


READERS: Mapping[str, Callable[[Network, Pairs], Figures]] = {
    "bulk": received,
    "bytes": computed,
    "messages": received,
    "request-reply": sent,
    "beside": received,
    "vanish": noticed,
}


def machine_seconds() -> float:
    """What all CPUs together have computed."""
    # The first line is: cpu user nice system idle iowait irq softirq steal.
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return float(sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def children_seconds() -> float:
    """What those programs have computed that this one started and has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tell(number: int, scenario: Scenario, transport: str, figures: Figures, raw: Path | None) -> None:
    """Prints a run, and keeps it if that was asked for."""
    found = [f"{figure.title} {figure.of(figures):,.{figure.digits}f}" for figure in scenario.figures]
    found.append(f"others {figures['other_cpu']:.2f}")
    print(f"{number} {scenario.name:<12} {transport:<10}", ", ".join(found), flush=True)
    if raw:
        line = {"run": number, "scenario": scenario.name, "transport": transport}
        with raw.open("a") as file:
            file.write(json.dumps(line | figures) + "\n")


if __name__ == "__main__":
    sys.exit(main())
