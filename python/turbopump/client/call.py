"""What each command asks of a node, and what its answer means. No I/O: clients and pipelines build on it."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from turbopump._native import Answer
from turbopump.errors import TurbopumpError, error_for

PAGE_KEYS = 1000  # fetched at once while listing: a few milliseconds of the node's time

Bytes = bytes | bytearray | memoryview | str  # text stands for its UTF-8

T = TypeVar("T")


class StoredEntry(NamedTuple):
    """A value in time."""

    value: bytes
    version: str
    expires_ms: int | None  # Unix milliseconds of its end, None for never


class KeyVersion(NamedTuple):
    """A version of a key that the node remembers."""

    version: str
    size: int  # bytes of the value
    deleted: bool
    expires_ms: int | None  # Unix milliseconds of its end, None for never
    sibling: bool = False  # it lost to a write that did not know it


class KeyChange(NamedTuple):
    """What happened to a key."""

    revision: int  # its place among all changes on the node
    kind: str  # written, arrived, healed, deleted, expired or lost
    key: bytes
    version: str
    size: int  # bytes of the value


class Page(NamedTuple):
    """Some of the keys, and where the next ones begin; None after the last."""

    keys: list[bytes]
    cursor: int | None


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A command and how to read its answer."""

    command: str
    params: dict[str, str | bytes | int]
    read: Callable[[Answer], T]
    value: bytes | None = None
    default: tuple[str, T] | None = None  # an error code that is an answer, and which one

    def result(self, answer: Answer) -> T:
        """What the caller gets.

        Raises:
            TurbopumpError: What the node refused with, as its own class.
        """
        if answer.code is None:
            return self.read(answer)
        if self.default is not None and self.default[0] == answer.code:
            return self.default[1]
        raise refusal(answer)


def refusal(answer: Answer) -> TurbopumpError:
    """The exception for an answer that is an error."""
    return error_for(answer.code or "internal", answer.body.decode(errors="replace"))


def as_bytes(value: Bytes) -> bytes:
    """Text as its UTF-8, any other bytes as they are."""
    return value.encode() if isinstance(value, str) else bytes(value)


def get(key: Bytes) -> Call[bytes | None]:
    """The value under a key."""
    return Call("read", {"name": as_bytes(key)}, lambda answer: answer.body, default=("not_found", None))


def read(key: Bytes, version: str | None = None) -> Call[StoredEntry | None]:
    """The value under a key, or that of one of its versions, with its version and expiry."""
    params: dict[str, str | bytes | int] = {"name": as_bytes(key)}
    if version is not None:
        params["version"] = version
    return Call("read", params, _entry, default=("not_found", None))


def put(
    key: Bytes,
    value: Bytes | None,
    *,
    ttl: float | None,
    if_absent: bool,
    if_present: bool,
    if_version: str | None,
    once: str | None = None,
) -> Call[str]:
    """Writes a value, None for one that is sent apart; its version comes back."""
    params: dict[str, str | bytes | int] = {"name": as_bytes(key)}
    if ttl is not None:
        params["ttl"] = repr(ttl)
    if if_absent or if_present:
        params["if"] = "absent" if if_absent else "present"
    if if_version is not None:
        params["if_version"] = if_version
    if once is not None:
        params["once"] = once
    return Call(
        "write",
        params,
        lambda answer: answer.params["version"],
        value=None if value is None else as_bytes(value),
    )


def delete(key: Bytes, *, if_version: str | None, once: str | None = None) -> Call[str | None]:
    """Deletes a key; the version of the deletion comes back, None if there was nothing."""
    params: dict[str, str | bytes | int] = {"name": as_bytes(key)}
    if if_version is not None:
        params["if_version"] = if_version
    if once is not None:
        params["once"] = once
    return Call("delete", params, lambda answer: answer.params.get("version"))


def exists(key: Bytes) -> Call[bool]:
    """Whether there is a value under a key."""
    return Call("exists", {"name": as_bytes(key)}, lambda answer: answer.params["exists"] == "1")


def page(prefix: Bytes, cursor: int, limit: int) -> Call[Page]:
    """Some of the keys that begin with a prefix."""
    return Call("list", {"prefix": as_bytes(prefix), "cursor": cursor, "limit": limit}, _page)


def versions(key: Bytes) -> Call[list[KeyVersion]]:
    """What the node remembers of a key, deletions too."""
    return Call("versions", {"name": as_bytes(key)}, _versions, default=("not_found", []))


def wait(key: Bytes, timeout: float) -> Call[str]:
    """The version of a key's value, as soon as there is one."""
    return Call(
        "wait", {"name": as_bytes(key), "timeout": repr(timeout)}, lambda answer: answer.params["version"]
    )


def watch(prefix: Bytes, since: int | None, kinds: Iterable[str]) -> Call[int]:
    """What changes from now on, or since a revision; the revision it begins behind comes back first."""
    params: dict[str, str | bytes | int] = {"prefix": as_bytes(prefix)}
    if since is not None:
        params["since"] = since
    if words := ",".join(kinds):
        params["kinds"] = words
    return Call("watch", params, lambda answer: int(answer.params["revision"]))


def change(answer: Answer) -> KeyChange | None:
    """The change that a watching client is told, None if it is only told where the node is."""
    told = answer.params
    if "kind" not in told:
        return None
    return KeyChange(int(told["revision"]), told["kind"], answer.body, told["version"], int(told["size"]))


def status() -> Call[dict[str, Any]]:
    """How the node does."""
    return Call("status", {}, lambda answer: json.loads(answer.body))


def sync() -> Call[str]:
    """Has the node compare with its peers now."""
    return Call("sync", {}, lambda answer: answer.body.decode())


def ping() -> Call[None]:
    """Whether the node answers."""
    return Call("ping", {}, lambda _answer: None)


def _expires(params: dict[str, str]) -> int | None:
    return int(params["expires"]) if "expires" in params else None


def _entry(answer: Answer) -> StoredEntry:
    return StoredEntry(answer.body, answer.params["version"], _expires(answer.params))


def _page(answer: Answer) -> Page:
    """A key a line, percent-encoded; a limit that cuts the list leaves a cursor."""
    cursor = answer.params.get("cursor")
    return Page(
        [unquote_to_bytes(line) for line in answer.body.splitlines()],
        None if cursor is None else int(cursor),
    )


def _versions(answer: Answer) -> list[KeyVersion]:
    """`version=V size=N state=value|tombstone|sibling expires=MS`, a line each."""
    found = []
    for line in answer.body.decode().splitlines():
        fields = dict(field.split("=", 1) for field in line.split())
        deleted, sibling = fields["state"] == "tombstone", fields["state"] == "sibling"
        size, expires = int(fields["size"]), _expires(fields)
        found.append(KeyVersion(fields["version"], size, deleted, expires, sibling))
    return found
