"""What every part of the file is made of: sections that refuse what they do not know, sizes, modes, paths."""

import re
from collections.abc import Hashable
from ipaddress import ip_address
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

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


def distinct(values: tuple[T, ...], what: str) -> None:
    """Returns if no value stands there twice.

    Raises:
        ValueError: One does; names it.
    """
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
