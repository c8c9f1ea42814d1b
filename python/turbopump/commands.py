"""The cold commands: what a node says about itself. Not the keys: those never leave the engine's threads.

Each takes what followed its name and answers a value; each protocol puts the value in its own words. What a
node says of the others is in `membership`.
"""

import json
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Protocol, TypeAlias

from turbopump._native import build_info
from turbopump.config import Config, Member
from turbopump.errors import error_for

REDIS_VERSION = "7.2.0"  # Redis clients and monitors choose their commands by it: those we follow are of 7.2

Reply: TypeAlias = "bool | int | str | bytes | list[Reply] | dict[str, Reply] | None"
Section = Mapping[str, object]


class Observed(Protocol):
    """The engine, as far as its state can be seen."""

    def stats(self) -> dict[str, object]:
        """Counters and gauges by name."""

    def clients(self) -> list[dict[str, object]]:
        """The client connections."""

    def kill(self, id: int) -> bool:  # noqa: A002 - as `clients` calls it
        """Ends a connection; tells whether there was one."""


class Commands:
    """The cold commands of one node; `table` has them by name."""

    def __init__(
        self,
        config: Config,
        member: Member,
        engine: Observed,
        *,
        state: Callable[[], str],
        addresses: Callable[[], list[str]],
        uptime: Callable[[], float],
        cluster: Callable[[], Section],
        shut_down: Callable[[], None] | None,
        callbacks: Callable[[], object] = list,
    ) -> None:
        """Commands that answer for a node.

        Args:
            config: What CONFIG GET shows, passwords excepted.
            member: The node's own part of it.
            engine: Where the figures come from.
            state: Tells `starting`, `running` or `stopping`.
            addresses: Tells where clients find the node.
            uptime: Tells for how many seconds the node has been there.
            cluster: Tells what a status says of the other nodes; nothing where there are none.
            shut_down: Begins to stop the node; None where clients may not.
            callbacks: Tells what came of each callback.
        """
        self._config = config
        self._member = member
        self._engine = engine
        self._state = state
        self._addresses = addresses
        self._uptime = uptime
        self._cluster = cluster
        self._shut_down = shut_down
        self._callbacks = callbacks

    def table(self) -> dict[str, Callable[[list[bytes]], Awaitable[Reply]]]:
        """The commands by name, as the engine asks for them."""
        return {
            "client": self.client,
            "config": self.config,
            "info": self.info,
            "shutdown": self.shutdown,
            "state": self.state,
            "status": self.status,
        }

    async def state(self, _args: list[bytes]) -> Reply:
        """One word: starting, running or stopping."""
        return self._state()

    async def status(self, _args: list[bytes]) -> Reply:
        """All there is to know, as JSON: `jq` reads it, and so do people."""
        about = {
            "name": self._member.name,
            "state": self._state(),
            "addresses": self._addresses(),
            "pid": os.getpid(),
            "uptime_seconds": round(self._uptime(), 3),
            "build": build_info(),
        }
        told = self._engine.stats() | {"callbacks": self._callbacks()} | dict(self._cluster())
        return json.dumps(about | told, indent=2)

    async def info(self, args: list[bytes]) -> Reply:
        """Redis's INFO: sections of name:value lines, all of them or those asked for."""
        wanted = {arg.decode(errors="replace").lower() for arg in args} - {"default", "all", "everything"}
        found = self._sections().items()
        return "\r\n".join(
            _section_text(name, fields) for name, fields in found if not wanted or name.lower() in wanted
        )

    async def config(self, args: list[bytes]) -> Reply:
        """Redis's CONFIG GET, for any number of patterns. Nothing can be set: the file is the only truth."""
        words = [arg.decode(errors="replace").lower() for arg in args]
        if not words or words[0] != "get" or len(words) == 1:
            raise error_for(
                "syntax", "CONFIG GET pattern ... is all there is: to change it, edit the file and restart"
            )
        known = self._redis_parameters() | dict(_flatten(self._config.model_dump(mode="json")))
        return {
            name: value for name, value in known.items() if any(fnmatchcase(name, word) for word in words[1:])
        }

    async def client(self, args: list[bytes]) -> Reply:
        """Redis's CLIENT LIST, INFO and KILL. The caller's number comes first, then what followed CLIENT."""
        caller, word, *rest = (arg.decode(errors="replace") for arg in args)
        clients = self._engine.clients()
        match word.upper():
            case "INFO":
                return "".join(_client_line(client) for client in clients if str(client["id"]) == caller)
            case "LIST":
                return "".join(_client_line(client) for client in clients if _listed(client, rest))
        return self._kill(caller, rest, clients)

    def _kill(self, caller: str, words: list[str], clients: list[dict[str, object]]) -> Reply:
        """Ends the connection with an address, or, in the newer form, counts and ends those that match."""
        if len(words) == 1:
            found = [client for client in clients if client["address"] == words[0]]
            if not found:
                raise error_for("syntax", "No such client")
            self._engine.kill(int(str(found[0]["id"])))
            return True
        wanted = _kill_filters(words)
        spared = caller if wanted.pop("SKIPME", "yes") == "yes" else None
        matching = [
            str(client["id"])
            for client in clients
            if wanted.get("ID", str(client["id"])) == str(client["id"])
            and wanted.get("ADDR", client["address"]) == client["address"]
            and wanted.get("TYPE", "normal") == "normal"
        ]
        doomed = [client for client in matching if client != spared]
        # The caller reads its answer first: its connection ends behind it.
        for client in doomed:
            self._engine.kill(int(client))
        return len(doomed)

    async def shutdown(self, _args: list[bytes]) -> Reply:
        """Redis's SHUTDOWN: the node answers what it accepted, and ends."""
        if self._shut_down is None:
            raise error_for("denied", "this node is part of another program: end that")
        self._shut_down()
        return True

    def _sections(self) -> dict[str, Section]:
        stats = self._engine.stats()
        build = build_info()
        return {
            "Server": {
                "redis_version": REDIS_VERSION,
                "redis_mode": "standalone" if self._config.cluster is None else "cluster",
                "turbopump_version": build["version"],
                "turbopump_git": build["git"],
                "process_id": os.getpid(),
                "uptime_in_seconds": int(self._uptime()),
            },
            "Clients": {
                "connected_clients": stats["connections"],
                "maxclients": self._config.limits.max_connections,
            },
            "Memory": {"used_memory": stats["memory"], "maxmemory": stats["max_memory"]},
            "Persistence": {"loading": 0},
            "Stats": {
                "total_connections_received": stats["accepted"],
                "rejected_connections": stats["turned_away"],
                "total_commands_processed": stats["commands"],
                "total_error_replies": stats["refusals"],
                "keyspace_hits": stats["hits"],
                "keyspace_misses": stats["misses"],
                "expired_keys": stats["expired"],
                "evicted_keys": 0,
            },
            "Replication": {"role": "master", "connected_slaves": 0},
            "Cluster": {"cluster_enabled": int(self._config.cluster is not None)},
            "Keyspace": {"db0": f"keys={stats['keys']},expires={stats['expiring']},avg_ttl=0"},
        }

    def _redis_parameters(self) -> dict[str, Reply]:
        """What redis-benchmark and monitors look for, in Redis's names."""
        return {
            "appendonly": "no",
            "databases": "1",
            "maxclients": str(self._config.limits.max_connections),
            "maxmemory": str(self._member.max_memory),
            "maxmemory-policy": "noeviction",
            "port": str(self._member.tcp.port if self._member.tcp else 0),
            "save": "",
            "unixsocket": self._member.socket,
        }


def _section_text(name: str, fields: Section) -> str:
    return "".join([f"# {name}\r\n", *(f"{field}:{value}\r\n" for field, value in fields.items())])


CLIENT_TYPES = {"normal", "master", "replica", "slave", "pubsub"}


def _client_type(word: str) -> str:
    if word.lower() not in CLIENT_TYPES:
        raise error_for("syntax", f"Unknown client type '{word}'")
    return word.lower()


def _listed(client: Mapping[str, object], words: list[str]) -> bool:
    """Whether CLIENT LIST shows a client: all of them, those of a type, or those with a number."""
    match [word.upper() for word in words]:
        case []:
            return True
        case ["TYPE", _]:
            return _client_type(words[1]) == "normal"
        case ["ID", _, *_]:
            if not all(word.isdigit() for word in words[1:]):
                raise error_for("syntax", "Invalid client ID")
            return str(client["id"]) in words[1:]
    raise error_for("syntax", "syntax error")


def _kill_filters(words: list[str]) -> dict[str, str]:
    filters = dict(zip((word.upper() for word in words[::2]), words[1::2], strict=False))
    if len(words) % 2 or filters.keys() - {"ID", "ADDR", "TYPE", "SKIPME"}:
        raise error_for("syntax", "syntax error")
    if not filters.get("ID", "1").isdigit() or filters.get("ID") == "0":
        raise error_for("syntax", "client-id should be greater than 0")
    if "TYPE" in filters:
        filters["TYPE"] = _client_type(filters["TYPE"])
    if filters.get("SKIPME", "yes").lower() not in {"yes", "no"}:
        raise error_for("syntax", "syntax error")
    return filters | ({"SKIPME": filters["SKIPME"].lower()} if "SKIPME" in filters else {})


def _client_line(client: Mapping[str, object]) -> str:
    """The fields in Redis's names and units."""
    fields = {
        "id": client["id"],
        "addr": client["address"],
        "fd": client["fd"],
        "name": client["name"],
        "age": int(str(client["age_ms"])) // 1000,
        "idle": int(str(client["idle_ms"])) // 1000,
        "db": 0,
        "omem": client["unsent"],
        "lib-name": client["library"],
        "lib-ver": client["library_version"],
        "protocol": client["protocol"],
        "tcp": int(bool(client["tcp"])),
    }
    return " ".join(f"{name}={value}" for name, value in fields.items()) + "\n"


def _flatten(value: object, name: str = "") -> Iterator[tuple[str, Reply]]:
    """`limits.max_key` and its kin, as text."""
    if isinstance(value, dict):
        for inner, below in value.items():
            yield from _flatten(below, f"{name}.{inner}" if name else inner)
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _flatten(below, f"{name}[{index}]")
    else:
        yield name, "" if value is None else str(value)
