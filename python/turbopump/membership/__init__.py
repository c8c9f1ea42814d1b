"""Membership: who is in the cluster, who keeps what, and how the others are as far as this node knows.

The members are those of the configuration, and stay so while a node runs. What the engine has measured of
them is shown beside; nothing here decides who is alive.
"""

from turbopump.membership.answers import Membership
from turbopump.membership.peers import Peer, peers_table, rounds, were_compared
from turbopump.membership.report import drawn_ring, ring_report, ring_table
from turbopump.membership.topology import Topology

__all__ = [
    "Membership",
    "Peer",
    "Topology",
    "drawn_ring",
    "peers_table",
    "ring_report",
    "ring_table",
    "rounds",
    "were_compared",
]
