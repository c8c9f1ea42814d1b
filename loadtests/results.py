"""The figures of a benchmark as a page: medians, ratios, and whether they are what they must be."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from workloads import (
    MEMORY_FIGURE,
    MEMORY_KEYS,
    NOISE,
    OTHERS,
    WORKLOADS,
    Figure,
    Figures,
    Target,
    Workload,
)

RATIOS = (
    "Ratios of medians: ours to theirs. Noisy: in half of the runs or more others kept "
    f"over {NOISE:g} CPUs busy."
)


@dataclass
class Results:
    """All runs of a benchmark."""

    runs: defaultdict[tuple[str, str, str], list[Figures]] = field(default_factory=lambda: defaultdict(list))
    bytes_per_key: dict[str, float] = field(default_factory=dict)
    inside: dict[str, float] = field(default_factory=dict)

    def add(self, workload: Workload, operation: str, server: str, figures: Figures) -> None:
        """Enters a run."""
        self.runs[workload.name, operation, server].append(figures)

    def values(self, workload: Workload, operation: str, server: str, figure: Figure) -> list[float]:
        """A figure in each run; empty when there was none."""
        return [figure.of(run) for run in self.runs.get((workload.name, operation, server), [])]


@dataclass(frozen=True)
class Ratio:
    """Our figure beside another server's."""

    where: str
    operation: str
    figure: Figure
    other: str
    ours: float
    theirs: float
    noisy: bool = False

    @property
    def value(self) -> float:
        """Ours to theirs."""
        return self.ours / self.theirs

    @property
    def target(self) -> Target:
        """What it should be."""
        return self.figure.targets[self.other]

    @property
    def reached(self) -> str:
        """How far it came: the aim, what it must be, or not even that; nothing where neither is."""
        if self.target.must is None:
            return ""
        if self.target.aim is not None and self.figure.reaches(self.value, self.target.aim):
            return "aim"
        return "must" if self.figure.reaches(self.value, self.target.must) else "**missed**"

    @property
    def missed(self) -> bool:
        """Whether it is not what it must be."""
        return self.target.must is not None and not self.figure.reaches(self.value, self.target.must)

    def row(self) -> str:
        """It as a row of the table."""
        ours, theirs = (f"{value:,.{self.figure.digits}f}" for value in (self.ours, self.theirs))
        wanted = ("" if one is None else f"{one:g}" for one in (self.target.must, self.target.aim))
        what = (self.where, self.operation, self.figure.title, self.other)
        reached = ", ".join(word for word in (self.reached, "noisy" if self.noisy else "") if word)
        return row(*what, ours, theirs, f"{self.value:.2f}", *wanted, reached)


def ratios(results: Results, workloads: Sequence[Workload] = WORKLOADS) -> list[Ratio]:
    """Every ratio that is wanted and was measured."""
    wanted = (
        _ratio(results, workload, operation, figure, other)
        for workload in workloads
        for operation in workload.operations
        for figure in workload.figures
        for other in figure.targets
    )
    sizes, where = results.bytes_per_key, f"{MEMORY_KEYS:,} keys"
    memory = (
        Ratio(where, "SET", MEMORY_FIGURE, other, sizes["turbopump"], sizes[other])
        for other in MEMORY_FIGURE.targets
        if "turbopump" in sizes and other in sizes
    )
    return [*(ratio for ratio in wanted if ratio is not None), *memory]


def _ratio(results: Results, workload: Workload, operation: str, figure: Figure, other: str) -> Ratio | None:
    servers = (workload.servers[0], other)
    runs = [results.values(workload, operation, server, figure) for server in servers]
    if not all(runs):
        return None
    noise = max(median(results.values(workload, operation, server, OTHERS)) for server in servers)
    return Ratio(workload.title, operation, figure, other, median(runs[0]), median(runs[1]), noise > NOISE)


def page(
    results: Results,
    machine: Mapping[str, str],
    how: str,
    *,
    title: str = "Results",
    workloads: Sequence[Workload] = WORKLOADS,
) -> str:
    """All of it, in Markdown.

    Args:
        results: The runs.
        machine: What they ran on, as `machine.machine` describes it.
        how: How they were made, in a sentence or two.
        title: Of the page.
        workloads: Those of the runs.
    """
    lines = [f"# {title}", "", how, ""]
    lines += [f"- {name}: {value}" for name, value in machine.items()]
    lines += ["", "## What must hold", "", RATIOS, ""]
    lines += [row("workload", "", "figure", "beside", "ours", "theirs", "ratio", "must", "aim", "reached")]
    lines += ["|---|---|---|---|--:|--:|--:|--:|--:|---|"]
    lines += [ratio.row() for ratio in ratios(results, workloads)]
    lines += ["", "## All figures", "", "Medians, and in brackets the least and the most of the runs.", ""]
    for workload in workloads:
        lines += _figures(results, workload)
    lines += _memory(results) + _inside(results)
    return "\n".join(lines).rstrip() + "\n"


def row(*cells: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def spread(values: Sequence[float], digits: int) -> str:
    """The median with the least and the most."""
    middle, least, most = (f"{value:,.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})"


def _figures(results: Results, workload: Workload) -> list[str]:
    rows = list(_figure_rows(results, workload))
    if not rows:
        return []
    titles = [figure.title for figure in workload.figures]
    head = row("server", "", *titles, "CPU of the load", "CPU of others")
    line = row("---", "---", *("--:" for _ in titles), "--:", "--:")
    return [f"### {workload.title}", "", head, line, *rows, ""]


def _figure_rows(results: Results, workload: Workload) -> Iterator[str]:
    for operation in workload.operations:
        for server in workload.servers:
            runs = results.runs.get((workload.name, operation, server), [])
            if runs:
                cells = [spread([f.of(run) for run in runs], f.digits) for f in workload.figures]
                cpu = (f"{median(run[name] for run in runs):.2f}" for name in ("client_cpu", "other_cpu"))
                yield row(server, operation, *cells, *cpu)


def _memory(results: Results) -> list[str]:
    if not results.bytes_per_key:
        return []
    rows = [row(server, f"{size:.0f}") for server, size in results.bytes_per_key.items()]
    head = [f"### {MEMORY_KEYS:,} keys", "", row("server", MEMORY_FIGURE.title), row("---", "--:")]
    return [*head, *rows, ""]


def _inside(results: Results) -> list[str]:
    if not results.inside:
        return []
    rows = [row(call, f"{nanoseconds:.0f}") for call, nanoseconds in results.inside.items()]
    how = "A call from Python, the loop around it included. Of `Node.get` it must be less than 1,000 ns."
    head = ["### In a program that the node is part of", "", how, "", row("call", "ns"), row("---", "--:")]
    return [*head, *rows, ""]
