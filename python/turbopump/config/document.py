"""The whole file: what stands at its top, and how it is read."""

import json
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from turbopump.config.agreement import disagreements
from turbopump.config.callback import Callback
from turbopump.config.cluster import Cluster
from turbopump.config.keyspace import COPIES_MAX, Keyspace, Placement
from turbopump.config.limits import Limits
from turbopump.config.member import Member
from turbopump.config.section import Section, check_socket_path, distinct
from turbopump.errors import ConfigError
from turbopump.problem import DisagreementError, one_of, problems_of

SectionT = TypeVar("SectionT", bound=Section)


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
        default=(Member(),), strict=False, max_length=1024, description="The nodes of the cluster."
    )
    cluster: Cluster | None = Field(
        default=None, description="What members have in common; null: one node alone."
    )
    placement: Placement = Field(
        default="clone",
        description="Every key on every member (clone), or each on some (partition); keyspaces may differ.",
    )
    copies: int | None = Field(
        default=None,
        ge=1,
        le=COPIES_MAX,
        description="Members that keep each key of a partition; null: 3, or as many as there are.",
    )
    keyspaces: tuple[Keyspace, ...] = Field(
        default=(), strict=False, max_length=1000, description="Key prefixes with rules of their own."
    )
    callbacks: tuple[Callback, ...] = Field(
        default=(),
        strict=False,
        max_length=100,
        description="What is run when something happens to a key; each change is held against all of them.",
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
    def _named(cls, members: tuple[Member, ...]) -> tuple[Member, ...]:
        distinct(tuple(member.name for member in members), "the name")
        if not members:
            raise ValueError("write one member, {} at least, or leave the section out")
        return members

    @field_validator("keyspaces")
    @classmethod
    def _one_rule(cls, keyspaces: tuple[Keyspace, ...]) -> tuple[Keyspace, ...]:
        distinct(tuple(keyspace.prefix for keyspace in keyspaces), "the prefix")
        return keyspaces

    @model_validator(mode="after")
    def _agreed(self) -> Self:
        found = list(disagreements(self))
        if found:
            raise DisagreementError(found)
        return self

    def member(self, name: str | None = None) -> Member:
        """The member with a name.

        Args:
            name: None where there is only one.

        Raises:
            ConfigError: No member is called so, or none is named and there are several.
        """
        names = [member.name for member in self.members]
        if name is None and len(names) > 1:
            raise ConfigError(
                [f"the file has {len(names)} members: say which with --node: {', '.join(names)}"]
            )
        for member in self.members:
            if name in {None, member.name}:
                return member
        raise ConfigError([f"no member is called {name!r}: {one_of(name, names)}"])

    def with_socket(self, path: str, name: str | None = None) -> Self:
        """The same configuration, with a member's socket elsewhere.

        Args:
            path: Of the socket.
            name: The member's; None where there is only one.

        Raises:
            ConfigError: The path cannot be bound, or there is no such member.
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
    return _at_home(parse(document), path.parent)


def _at_home(config: Config, folder: Path) -> Config:
    """The same, with the paths of its secrets as seen from here: the file gives them from its folder."""
    if config.cluster is None:
        return config
    paths = {"key": str(folder / config.cluster.key), "secret": str(folder / config.cluster.secret)}
    return config.model_copy(update={"cluster": config.cluster.model_copy(update=paths)})


def parse(document: object) -> Config:
    """Checks a configuration that is already in memory.

    Args:
        document: What the JSON file would hold: dicts, lists, text, numbers.

    Raises:
        ConfigError: It is not valid; with every problem in it.
    """
    return checked_section(Config, document)


def checked_section(section: type[SectionT], document: object) -> SectionT:
    """A section made of what a file would hold.

    Raises:
        ConfigError: It is not valid; with every problem in it.
    """
    try:
        return section.model_validate(document)
    except ValidationError as error:
        raise ConfigError(problems_of(error, section)) from error


def _no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise ConfigError([f"{name}: stands twice in one section: keep one" for name in twins])
    return dict(pairs)


def schema() -> dict[str, object]:
    """The JSON schema of the file, for editors and other checkers."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Config.model_json_schema()
