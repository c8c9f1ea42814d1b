"""The figures of transports as a page: what must hold, then each scenario with its medians and its noise."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from results import row, spread
from scenarios import OURS, SCENARIOS, TRANSPORTS, VANISHED_SECONDS_MAX, Figure, Link, Scenario
from workloads import NOISE

Runs = list[Mapping[str, Any]]


@dataclass
class Results:
    """All runs of a benchmark.

    Attributes:
        runs: What each found, by scenario and transport.
        failures: Those that found nothing: scenario, transport and why.
        missing: Transports that were left out, and why.
    """

    runs: defaultdict[tuple[str, str], Runs] = field(default_factory=lambda: defaultdict(list))
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, scenario: Scenario, transport: str, figures: Mapping[str, Any]) -> None:
        """Enters a run."""
        self.runs[scenario.name, transport].append(figures)

    def fail(self, scenario: Scenario, transport: str, why: str) -> None:
        """Enters a run that found nothing."""
        self.failures.append((scenario.name, transport, why))

    def values(self, scenario: Scenario, transport: str, figure: Figure) -> list[float]:
        """A figure in each run; empty when there was none."""
        found = (figure.of(run) for run in self.runs.get((scenario.name, transport), []))
        return [value for value in found if not math.isnan(value)]

    def transports(self) -> list[str]:
        """Those of which there are runs."""
        return [name for name in TRANSPORTS if any(name == transport for _, transport in self.runs)]


def page(results: Results, machine: Mapping[str, str], how: str) -> str:
    """All of it, in Markdown.

    Args:
        results: The runs.
        machine: What they ran on, as `machine.machine` describes it.
        how: How they were made, in a sentence or two.
    """
    lines = ["# Transports", "", how, ""]
    lines += [f"- {name}: {value}" for name, value in machine.items()]
    lines += [f"- not in it: {name}: {why}" for name, why in results.missing.items()]
    lines += ["", "## What must hold", "", *_goals(results)]
    lines += ["", "## All figures", ""]
    lines += ["Medians, and in brackets the least and the most of the runs. A ratio is of the first figure's"]
    lines += [f"medians. Noisy: in half of the runs or more others kept over {NOISE:g} CPUs busy.", ""]
    for scenario in SCENARIOS:
        lines += _scenario(results, scenario)
    if results.failures:
        lines += ["### Runs that found nothing", ""]
        lines += [f"- {scenario}, {transport}, {why}" for scenario, transport, why in results.failures]
    return "\n".join(lines).rstrip() + "\n"


def _goals(results: Results) -> list[str]:
    transports = results.transports()
    theirs = [name for name in transports if name != OURS]
    head = row("scenario", "figure", "must", "aim", OURS, *theirs, "reached")
    lines = [head, row("---", "---", "--:", "--:", "--:", *("--:" for _ in theirs), "---")]
    for scenario in SCENARIOS:
        for figure in scenario.figures:
            cells = [_middle(results.values(scenario, name, figure), figure) for name in (OURS, *theirs)]
            if figure.must and any(cells):
                ours = results.values(scenario, OURS, figure)
                wanted = (_range(figure.must), _range(figure.aim))
                lines.append(row(scenario.title, figure.title, *wanted, *cells, _reached(figure, ours)))
    return lines


def _reached(figure: Figure, ours: Sequence[float]) -> str:
    """How far ours came: the aim, what it must be, or not even that."""
    if not ours:
        return "not measured"
    value = median(ours)
    for name, wanted in (("aim", figure.aim), ("must", figure.must)):
        if wanted and wanted[0] <= value <= wanted[1]:
            return name
    return "**missed**"


def _range(wanted: tuple[float, float] | None) -> str:
    if wanted is None:
        return ""
    least, most = wanted
    if math.isinf(most):
        return f"{least:g} or more"
    return f"{most:g} or less" if math.isinf(least) else f"{least:g} to {most:g}"


def _middle(values: Sequence[float], figure: Figure) -> str:
    return _number(median(values), figure) if values else ""


def _number(value: float, figure: Figure) -> str:
    return f"over {VANISHED_SECONDS_MAX:g}" if math.isinf(value) else f"{value:,.{figure.digits}f}"


def _scenario(results: Results, scenario: Scenario) -> list[str]:
    rows = list(_rows(results, scenario))
    if not rows:
        return []
    titles = [figure.title for figure in scenario.figures]
    titles += [f"to {_measure(results)}"]
    titles += ["link late, p99, us"] * isinstance(scenario.path, Link) + ["CPU of others"]
    line = row("---", *("--:" for _ in titles))
    return [f"### {scenario.title}", "", row("transport", *titles), line, *rows, ""]


def _measure(results: Results) -> str:
    """Whom the others are compared with: ours, or the first there is."""
    return next(iter(results.transports()))


def _rows(results: Results, scenario: Scenario) -> Iterator[str]:
    for transport in TRANSPORTS:
        if runs := results.runs.get((scenario.name, transport)):
            cells = [_cell(results.values(scenario, transport, f), f) for f in scenario.figures]
            late = [run["link"]["late_us"]["p99"] for run in runs if run["link"]]
            lateness = [f"{median(late):,.0f}"] if late else []
            others = median(run["other_cpu"] for run in runs)
            noise = f"{others:.2f}, noisy" if others > NOISE else f"{others:.2f}"
            ratio = _ratio(results, scenario, transport)
            yield row(transport, *cells, ratio, *lateness, noise)


def _cell(values: Sequence[float], figure: Figure) -> str:
    if not values:
        return ""
    return _number(values[0], figure) if len(set(values)) == 1 else spread(values, figure.digits)


def _ratio(results: Results, scenario: Scenario, transport: str) -> str:
    both = [results.values(scenario, name, scenario.figures[0]) for name in (transport, _measure(results))]
    if not all(both) or math.isinf(median(both[0])) or math.isinf(median(both[1])):
        return ""
    return f"{median(both[0]) / median(both[1]):.2f}"
