"""The cold commands about the cluster: membership, ring, cluster and sync."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from turbopump.config import Config, Member, layout_digest
from turbopump.errors import error_for
from turbopump.membership.peers import Peer, peers
from turbopump.membership.redis import RedisCluster, Reply
from turbopump.membership.topology import SLOTS, Topology, ranges


class Observed(Protocol):
    """The engine, as far as membership looks at it."""

    def stats(self) -> dict[str, object]:
        """Counters and gauges by name; how the peers are is under `peers`."""

    def scan(self, cursor: int, limit: int, prefix: bytes = ...) -> tuple[int, list[tuple[bytes, int]]]:
        """Some keys and sizes from a cursor on, and the next cursor."""


class Membership:
    """What a node says of its cluster; `table` has the cold commands by name.

    Attributes:
        topology: Who is a member and keeps what.
    """

    def __init__(
        self,
        config: Config,
        member: Member,
        engine: Observed,
        *,
        addresses: Callable[[], Sequence[str]],
        sync: Callable[[], object] | None,
    ) -> None:
        """Membership as a node sees it.

        Args:
            config: Who is a member.
            member: Who this node is.
            engine: Where the figures of peers come from.
            addresses: Tells where clients find this node.
            sync: Starts a round of comparison with every peer now; None where the engine has none.
        """
        self.topology = Topology(config)
        self._config = config
        self._me = member
        self._engine = engine
        self._addresses = addresses
        self._sync = sync
        self._redis = RedisCluster(self.topology, member, self.peers, engine)

    def table(self) -> dict[str, Callable[[list[bytes]], Awaitable[Reply]]]:
        """The commands by name, as the engine asks for them."""
        return {
            "cluster": self.cluster,
            "membership": self.membership,
            "ring": self.ring,
            "sync": self.sync,
        }

    def peers(self) -> list[Peer]:
        """All members and how they are, in the order of their names."""
        return peers(self.topology, self._me.name, self._engine.stats())

    def status(self) -> Mapping[str, Any]:
        """What a status says of the cluster; nothing for a node alone."""
        if self._config.cluster is None:
            return {}
        about = {"name": self._config.cluster.name, "layout": layout_digest(self._config).hex()}
        return {"cluster": about, "peers": [peer.as_dict() for peer in self.peers()]}

    async def membership(self, _args: list[bytes]) -> Reply:
        """The nodes, a line each: name, state, and where clients find it; another's, as the file says."""
        return "\n".join(
            " ".join([peer.member.name, _shown(peer), *self._places(peer)]) for peer in self.peers()
        )

    async def ring(self, _args: list[bytes]) -> Reply:
        """Who keeps which slots, a line for each range, the primary first."""
        if self.topology.is_clone(self.topology.main):
            names = [member.name for member in self.topology.members if member.weight]
            return f"0-{SLOTS - 1} {' '.join(names)}"
        table = self.topology.table
        return "\n".join(f"{first}-{last} {' '.join(table[first])}" for first, last in ranges(table))

    async def cluster(self, args: list[bytes]) -> Reply:
        """Redis's CLUSTER; the subcommand comes first."""
        return self._redis.answer(args)

    async def sync(self, _args: list[bytes]) -> Reply:
        """Compares with every peer now, and not when it is time. Tells with how many."""
        if self._config.cluster is None:
            raise error_for("denied", "a node alone has nobody to compare with")
        if self._sync is None:
            raise error_for("unknown_command", "this engine compares by itself only")
        self._sync()
        asked = [peer for peer in self.peers() if peer.state not in {"self", "down"}]
        return f"comparing with {len(asked)} of {len(self.topology.members) - 1} peers"

    def _places(self, peer: Peer) -> Sequence[str]:
        if peer.state == "self":
            return self._addresses()
        host, port = peer.member.door
        tcp = [f"tcp://{f'[{host}]' if ':' in host else host}:{port}"] if port else []
        return [f"udp://{peer.member.udp}", *tcp]


def _shown(peer: Peer) -> str:
    """This node lives, for it answers."""
    return "alive" if peer.state == "self" else peer.state
