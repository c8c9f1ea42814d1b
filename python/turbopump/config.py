"""The configuration: one file, the same on every box, checked whole before anything starts.

Every limit has its default and its reason here. Not how the file is put into words when it is wrong: that is
`problem.py`.
"""

import json
import re
from collections.abc import Hashable
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from turbopump.errors import ConfigError
from turbopump.problem import one_of, problems_of

SOCKET_PATH = "/tmp/turbopump"  # noqa: S108 - sticky: nobody else can replace a socket there
TCP_PORT = 1592  # the first turbopump's

SOCKET_PATH_BYTES_MAX = 107  # sun_path has 108 with the zero; Linux refuses longer ones with no useful word

_UNITS = {"": 1, "B": 1} | {
    prefix + suffix: base**power
    for suffix, base in (("B", 1000), ("IB", 1024))
    for power, prefix in enumerate("KMGT", start=1)
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)")

T = TypeVar("T", bound=Hashable)


def parse_size(value: object) -> object:
    """Bytes from a size such as "4GiB" (1024 based) or "4GB" (1000 based); what is no text passes through."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ValueError('write a number of bytes or a size such as "512MiB" or "4GiB"')
    return int(float(match[1]) * unit)


def parse_mode(value: object) -> object:
    """A file mode from its octal digits: "0600" is 384. Numbers are refused: 600 is not 0600."""
    if isinstance(value, str) and re.fullmatch(r"0?[0-7]{3}", value):
        return int(value, 8)
    raise ValueError('write three octal digits in quotes, such as "0600" (owner only) or "0660" (and group)')


def check_socket_path(path: str) -> str:
    """The path, if the system can bind it."""
    length = len(path.encode())
    if not path or "\0" in path:
        raise ValueError('write the path of a socket, such as "/tmp/turbopump"')
    if length > SOCKET_PATH_BYTES_MAX:
        raise ValueError(f"the path has {length} bytes, Linux allows {SOCKET_PATH_BYTES_MAX}: shorten it")
    return path


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host. Names other than localhost count as reachable."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _distinct(values: tuple[T, ...], what: str) -> None:
    twice = sorted({repr(value) for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{what} {', '.join(twice)} stands here twice: keep one")


Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(ge=0, le=1 << 60),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^\d+(\.\d+)? ?([kKmMgGtT][iI]?)?[bB]?$"},
            ]
        }
    ),
]
Mode = Annotated[
    int, BeforeValidator(parse_mode), WithJsonSchema({"type": "string", "pattern": "^0?[0-7]{3}$"})
]
Id = Annotated[int, Field(ge=0, le=2**32 - 2)]  # the last one means "no change" to the kernel


class Section(BaseModel):
    """A part of the file: what it does not know it refuses, and nothing changes after the check."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Tcp(Section):
    """A TCP listener, for clients on other machines. Off unless it stands in the file."""

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to bind. Beyond loopback anybody may knock, so a password is needed.",
    )
    port: int = Field(default=TCP_PORT, ge=0, le=65535, description="TCP port; 0 takes any free one.")
    password: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="What TCP clients must give first. Travels unencrypted: for networks you trust.",
    )

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.password is None and not is_loopback(self.host):
            raise ValueError(f'{self.host} is reachable from outside: add a "password" or bind "127.0.0.1"')
        return self


class Guests(Section):
    """Who may use the unix socket, by what the kernel says of the peer (SO_PEERCRED)."""

    uids: tuple[Id, ...] | None = Field(
        default=None,
        strict=False,
        description="User ids that may connect; null: whoever can open the socket.",
    )
    gids: tuple[Id, ...] | None = Field(
        default=None, strict=False, description="Group ids that may connect, beside the user ids."
    )


class Member(Section):
    """One node of the cluster: what is its own."""

    name: str = Field(
        default="node",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="Name in the cluster: letters, digits, dots, dashes; `serve --node NAME` picks a member.",
    )
    socket: Annotated[str, AfterValidator(check_socket_path)] = Field(
        default=SOCKET_PATH, description="Path of the unix socket for clients on this machine."
    )
    socket_mode: Mode = Field(
        default=0o600,
        description="Mode of the socket file, in octal. Whoever may write to it may use the node.",
        json_schema_extra={"default": "0600"},
    )
    tcp: Tcp | None = Field(default=None, description="TCP listener beside the unix socket; null: none.")
    guests: Guests = Field(default=Guests(), description="Who of those who can open the socket is served.")
    reactors: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Threads that serve clients. One serves 300,000 requests a second and fills a core; "
        "more pay off only with cores to spare.",
    )
    max_memory: Size = Field(
        default=0,
        description="Bytes that entries may take, and values on their way in, and replaced ones while "
        "somebody reads them. Then writes are refused; nothing is evicted. 0: no limit.",
    )


class Limits(Section):
    """What clients may take. At a limit they get a typed error, and nothing acknowledged is lost."""

    max_key: int = Field(
        default=4096,
        ge=1,
        le=65535,
        description="Bytes of a key. Keys live in memory on every replica and travel in every exchange.",
    )
    max_value: Size = Field(
        default=1 << 30,
        ge=1,
        le=1 << 40,
        description="Bytes of a value. Each is held in memory whole, and once more while it is replaced.",
    )
    max_line: Size = Field(
        default=1 << 20,
        ge=1024,
        le=1 << 30,
        description="Bytes of a command line, and of a value sent without its length: both are kept whole.",
    )
    max_request: Size = Field(
        default=1 << 24,
        ge=1024,
        le=1 << 32,
        description="Bytes of one command, large values aside: it is kept until it is whole.",
    )
    max_args: int = Field(
        default=1 << 20,
        ge=16,
        le=1 << 24,
        description="Arguments of one Redis command; Redis's own limit, which large MSETs rely on.",
    )
    max_connections: int = Field(
        default=16_384,
        ge=1,
        le=1 << 20,
        description="Client connections. Each takes a descriptor: the hard `ulimit -n` must be higher.",
    )
    max_keys: int = Field(
        default=1_000_000,
        ge=1,
        le=1 << 32,
        description="Keys that one Redis KEYS may answer. Its reply is made whole; SCAN has no such limit.",
    )
    max_output: Size = Field(
        default=1 << 20,
        ge=4096,
        le=1 << 30,
        description="Bytes of replies a client may leave unread before its next command waits.",
    )
    max_events: int = Field(
        default=10_000,
        ge=16,
        le=1 << 20,
        description="Events that may wait for Python. Then logs are dropped, and cold commands refused.",
    )
    max_waits: int = Field(
        default=10_000,
        ge=0,
        le=1 << 20,
        description="Clients that may wait for a key to appear; each is looked at when its key is written.",
    )
    max_wait: float = Field(
        default=3600,
        gt=0,
        le=10**7,
        description="Seconds that a client may wait for a key: one that vanished is not kept for ever.",
    )
    read_buffer: Size = Field(
        default=1 << 16,
        ge=4096,
        le=1 << 24,
        description="Bytes each reactor reads at once. 64 KiB holds a deep pipeline and stays in the cache.",
    )


class Keyspace(Section):
    """Rules for the keys that begin with a prefix; the longest prefix that fits decides."""

    prefix: str = Field(description='Beginning of the keys; "" for all that no other keyspace takes.')
    writes: Literal["versioned", "immutable"] = Field(
        default="versioned",
        description="What a second write does: the later one wins, or other content is refused.",
    )
    ttl: float | None = Field(
        default=None,
        gt=0,
        le=10**10,
        description="Lifetime in seconds of a write that states none; null: for ever.",
    )
    max_memory: Size = Field(
        default=0, description="Most bytes its entries may take. 0: only the node's limit."
    )


class Log(Section):
    """What the node says about itself, on stderr."""

    format: Literal["console", "json"] = Field(
        default="console", description="Lines for people, or one JSON object a line for programs."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe lines to show."
    )


class Config(Section):
    """The whole file. Every section may be left out."""

    members: tuple[Member, ...] = Field(
        default=(Member(),), strict=False, description="The nodes of the cluster."
    )
    keyspaces: tuple[Keyspace, ...] = Field(
        default=(), strict=False, max_length=1000, description="Key prefixes with rules of their own."
    )
    limits: Limits = Field(default=Limits(), description="What clients may take.")
    log: Log = Field(default=Log(), description="What is logged, and how.")
    drain_seconds: float = Field(
        default=10,
        ge=0,
        le=3600,
        description="How long a stopping node goes on answering what it accepted. systemd kills after 90.",
    )

    @field_validator("members")
    @classmethod
    def _one_member(cls, members: tuple[Member, ...]) -> tuple[Member, ...]:
        _distinct(tuple(member.name for member in members), "the name")
        if not members:
            raise ValueError("write one member, {} at least, or leave the section out")
        if len(members) > 1:
            raise ValueError("this version serves one member and does not replicate: keep one of them")
        return members

    @field_validator("keyspaces")
    @classmethod
    def _one_rule(cls, keyspaces: tuple[Keyspace, ...]) -> tuple[Keyspace, ...]:
        _distinct(tuple(keyspace.prefix for keyspace in keyspaces), "the prefix")
        return keyspaces

    def member(self, name: str | None = None) -> Member:
        """The member with a name.

        Args:
            name: None where there is only one.

        Raises:
            ConfigError: No member is called so.
        """
        for member in self.members:
            if name in {None, member.name}:
                return member
        raise ConfigError([f"no member is called {name!r}: {one_of(name, [m.name for m in self.members])}"])

    def with_socket(self, path: str, name: str | None = None) -> Self:
        """The same configuration, with a member's socket elsewhere.

        Args:
            path: Of the socket.
            name: The member's; None where there is only one.

        Raises:
            ConfigError: The path cannot be bound, or no member is called so.
        """
        try:
            moved = self.member(name).model_copy(update={"socket": check_socket_path(path)})
        except ValueError as error:
            raise ConfigError([f"--socket {path}: {error}"]) from error
        members = tuple(moved if member.name == moved.name else member for member in self.members)
        return self.model_copy(update={"members": members})


def load(path: Path) -> Config:
    """Reads and checks a configuration file.

    Args:
        path: A JSON file.

    Raises:
        ConfigError: It cannot be read, is not JSON or not a valid configuration; with every problem in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text, object_pairs_hook=_no_twins)
        json.dumps(document, ensure_ascii=False).encode()  # JSON may hold halves of characters, UTF-8 may not
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}: give the path of a configuration file"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 (byte {error.start}): save it as UTF-8"]) from error
    except UnicodeEncodeError as error:
        half = error.object[error.start : error.end]
        raise ConfigError([f"{path}: {half!a} is half a character: write the whole one"]) from error
    except json.JSONDecodeError as error:
        problem = f"{path}: not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        raise ConfigError([problem]) from error
    except RecursionError as error:
        raise ConfigError([f"{path}: nested too deeply: no section here lies deeper than four"]) from error
    return parse(document)


def parse(document: object) -> Config:
    """Checks a configuration that is already in memory.

    Args:
        document: What the JSON file would hold: dicts, lists, text, numbers.

    Raises:
        ConfigError: It is not valid; with every problem in it.
    """
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        raise ConfigError(problems_of(error, Config)) from error


def _no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise ConfigError([f"{name}: stands twice in one section: keep one" for name in twins])
    return dict(pairs)


def schema() -> dict[str, object]:
    """The JSON schema of the file, for editors and other checkers."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Config.model_json_schema()


def engine_options(config: Config, member: Member) -> dict[str, object]:
    """What the native engine needs to know, in the units it works in.

    Args:
        config: The whole configuration.
        member: The one that this node is.

    Returns:
        The options of `turbopump._native.Engine`.
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
        "limits": config.limits.model_dump(exclude={"max_wait"})
        | {"max_wait_ms": _ms(config.limits.max_wait)},
        "keyspaces": [
            {
                "prefix": keyspace.prefix,
                "writes": keyspace.writes,
                "ttl_ms": None if keyspace.ttl is None else _ms(keyspace.ttl),
                "max_memory": keyspace.max_memory,
            }
            for keyspace in config.keyspaces
        ],
    }


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
