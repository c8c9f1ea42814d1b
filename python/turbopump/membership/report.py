"""The ring in figures: who keeps how much of it, how even that is, and what each zone has."""

from collections.abc import Mapping, Sequence
from typing import Any

from turbopump.config import Keyspace
from turbopump.membership.circle import ring_picture
from turbopump.membership.topology import SLOTS, Topology, slot_of


def ring_report(topology: Topology, key: str | None = None) -> dict[str, Any]:
    """The ring of the main keyspace, for programs.

    Args:
        topology: Who keeps what.
        key: Where it belongs is told too, and the ring is then that of its keyspace.
    """
    keyspace = topology.main if key is None else topology.keyspace(key.encode())
    ring = topology.ring(keyspace)
    loads = ring.loads()
    total = sum(slots for slots, _ in loads.values())
    weights = sum(member.weight for member in topology.members)
    members = [
        {
            "name": member.name,
            "zone": member.zone,
            "weight": member.weight,
            "slots": loads[member.name][0],
            "primaries": loads[member.name][1],
            "share": loads[member.name][0] / total,
        }
        for member in topology.members
    ]
    # A member of twice the weight is due twice as much; but none more than one copy of each slot.
    due = {m.name: min(total * m.weight / weights, SLOTS) for m in topology.members if m.weight}
    report: dict[str, Any] = {
        "slots": SLOTS,
        "prefix": keyspace.prefix,
        "placement": "clone" if topology.is_clone(keyspace) else "partition",
        "copies": ring.copies,
        "members": members,
        "max_over_mean": max(loads[name][0] / part for name, part in due.items()),
        "zones": _zones(topology, keyspace),
    }
    if key is not None:
        report["key"] = {"slot": slot_of(key.encode()), "owners": ring.owners(key)}
    return report


def _zones(topology: Topology, keyspace: Keyspace) -> dict[str, Any]:
    """How many slots each zone keeps a copy of, and the most copies of one slot that are lost with a zone."""
    zone = {member.name: member.zone for member in topology.members}
    ring = topology.ring(keyspace)
    kept: dict[str, int] = dict.fromkeys(sorted(zone.values()), 0)
    worst: dict[str, int] = dict(kept)
    for slot in range(SLOTS):
        zones = [zone[name] for name in ring.owners_of_slot(slot)]
        for name in set(zones):
            kept[name] += 1
            worst[name] = max(worst[name], zones.count(name))
    return {name: {"slots": kept[name], "copies_at_most": worst[name]} for name in kept}


def drawn_ring(topology: Topology, report: Mapping[str, Any], key: str | None = None) -> str:
    """The ring of a report as an SVG document.

    Args:
        topology: What the report is of.
        report: What the legend says.
        key: As it was for the report; its slot is pointed at.
    """
    about = [
        (member["name"], f"{member['share']:.1%}" + (f", {member['zone']}" if member["zone"] else ""))
        for member in report["members"]
    ]
    ring = topology.ring(topology.main if key is None else topology.keyspace(key.encode()))
    title = f"{report['placement']}, {len(about)} members, {report['copies']} of each key"
    mark = None if key is None else report["key"]["slot"]
    return ring_picture([ring.owners_of_slot(slot) for slot in range(SLOTS)], about, title, mark)


def ring_table(report: Mapping[str, Any]) -> str:
    """A report for people."""
    rows = [("member", "zone", "weight", "slots", "primary", "share")]
    rows += [
        (
            member["name"],
            member["zone"] or "-",
            str(member["weight"]),
            f"{member['slots']:,}",
            f"{member['primaries']:,}",
            f"{member['share']:.1%}",
        )
        for member in report["members"]
    ]
    what = "every member keeps every key" if report["placement"] == "clone" else _copies(report["copies"])
    prefix = f" (keys that begin with {report['prefix']})" if report["prefix"] else ""
    lines = [f"{report['placement']}{prefix}: {what}; {report['slots']:,} slots", "", *_aligned(rows), ""]
    lines.append(f"most loaded beside its due: {report['max_over_mean']:.4f}")
    if len(report["zones"]) > 1:
        lines += [
            f"zone {name or '-'}: a copy of {zone['slots']:,} slots, at most {zone['copies_at_most']} of one"
            for name, zone in report["zones"].items()
        ]
    if "key" in report:
        lines.append(
            f"the key is in slot {report['key']['slot']}, kept by {', '.join(report['key']['owners'])}"
        )
    return "\n".join(lines)


def _copies(copies: int) -> str:
    return "one member keeps each key" if copies == 1 else f"{copies} members keep each key"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Text to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
