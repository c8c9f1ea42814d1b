"""The configuration as the native engine takes it: milliseconds, bytes, resolved addresses."""

from dataclasses import dataclass, field

from turbopump.config.address import Address, resolve
from turbopump.config.cluster import Cluster
from turbopump.config.document import Config
from turbopump.config.member import Member
from turbopump.config.placement import copies_of, layout_digest, rules
from turbopump.config.public_key import PublicKey
from turbopump.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a node of a cluster must know and nobody else may. Shown, it shows the node's name."""

    member: str
    """The name of the member whose key it is."""
    transport_key: bytes = field(repr=False)
    """The private X25519 key, 32 bytes."""
    shared: tuple[tuple[int, bytes], ...] = field(repr=False)
    """What all members share, by number, 32 bytes each: the one that is used, then those accepted too."""
    digest: bytes = field(repr=False)
    """What digests are keyed with, 32 bytes: the same on all members."""


def engine_options(config: Config, member: Member, secrets: Secrets | None = None) -> dict[str, object]:
    """What the native engine needs to know, in the units it works in. In a cluster it may ask a name server.

    Args:
        config: The whole configuration.
        member: The one that this node is.
        secrets: The node's; None for one node alone.

    Returns:
        The options of `turbopump._native.Engine`.

    Raises:
        ConfigError: A member's name has no address, or a node of a cluster has no secrets.
    """
    password = member.tcp.password if member.tcp else None
    return {
        "name": member.name,
        "reactors": member.reactors,
        "max_memory": member.max_memory,
        "password": password.get_secret_value() if password else None,
        "guests": {
            "uids": None if member.guests.uids is None else list(member.guests.uids),
            "gids": None if member.guests.gids is None else list(member.guests.gids),
        },
        "limits": config.limits.model_dump(
            exclude={"max_wait", "max_stall", "max_sibling_age", "max_once_age"}
        )
        | {
            "max_wait_ms": _ms(config.limits.max_wait),
            "max_stall_ms": _ms(config.limits.max_stall),
            "max_sibling_age_ms": _ms(config.limits.max_sibling_age),
            "max_once_age_ms": _ms(config.limits.max_once_age),
        },
        "keyspaces": [
            {
                "prefix": keyspace.prefix,
                "writes": keyspace.writes,
                "ttl_ms": None if keyspace.ttl is None else _ms(keyspace.ttl),
                "max_memory": keyspace.max_memory,
                "copies": copies_of(config, keyspace),
                "write_acks": keyspace.write_acks,
                "read_acks": keyspace.read_acks,
                "datagram": keyspace.transport == "datagram",
            }
            for keyspace in rules(config)
        ],
        "cluster": None if config.cluster is None else _cluster(config, config.cluster, member, secrets),
    }


def resolved(config: Config) -> dict[str, str]:
    """IP:PORT of each member that has an address, by name. May ask a name server.

    Raises:
        ConfigError: Some have none; names each.
    """
    found, problems = {}, []
    for index, member in enumerate(config.members):
        if member.udp is not None:
            try:
                found[member.name] = resolve(member.udp)
            except ValueError as error:
                problems.append(f'members[{index}].address = "{member.address}": {error}')
    if problems:
        raise ConfigError(problems)
    return found


def _cluster(config: Config, cluster: Cluster, member: Member, secrets: Secrets | None) -> dict[str, object]:
    if secrets is None:
        raise ConfigError(["a node of a cluster needs its keys: start it with the cluster's file"])
    addresses = resolved(config)
    members = sorted(config.members, key=lambda other: other.name)  # the engine counts them in this order
    return {
        "me": members.index(member),
        "transport_key": secrets.transport_key,
        "psks": secrets.shared,
        "digest_key": secrets.digest,
        "bind": _bind(member, addresses[member.name]),
        "members": [_peer(other, addresses[other.name]) for other in members],
        "sync_ms": _ms(cluster.sync_seconds),
        "ack_timeout_ms": _ms(cluster.ack_timeout),
        "peer_timeout_ms": _ms(cluster.peer_timeout),
        "hints_max": cluster.max_hints,
        "message_max": cluster.max_message,
        "redirect": cluster.redirect,
        "congestion": cluster.congestion,
        "awake_us": cluster.stay_awake_us,
        "layout_digest": layout_digest(config),
    }


def _peer(member: Member, address: str) -> dict[str, object]:
    key = PublicKey.parse(member.public_key or "")
    host, port = member.door
    return {
        "name": member.name,
        "address": address,
        "door": f"{host}:{port}" if port else None,  # as MOVED has it: no brackets around IPv6
        "public_key": key.transport,
        "identity": key.identity,
        "weight": member.weight,
        "zone": member.zone,
    }


def _bind(member: Member, address: str) -> str:
    """What to bind: its address, if it is one. A box may know its own name by 127.0.1.1: then all it has."""
    if member.bind is not None:
        return resolve(Address.parse(member.bind))
    written = Address.parse(member.address or "")
    if written.is_ip or written.host == "localhost":
        return address
    every = "::" if address.startswith("[") else "0.0.0.0"  # noqa: S104 - who has no key gets no answer
    return str(Address(every, written.port))


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
