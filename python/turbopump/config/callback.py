"""What is run when something happens to a key, and how much of it at once."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from turbopump.config.section import Section

Happening = Literal["written", "arrived", "healed", "deleted", "expired", "lost"]

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*|[\w.-]+")


def parse_run(value: object) -> str | tuple[str, ...]:
    """What is to be run: the name of a function, or a command's words."""
    if isinstance(value, str) and _FUNCTION.fullmatch(value):
        return value
    words = value if isinstance(value, list | tuple) else ()
    if words and words[0] and all(isinstance(word, str) and "\0" not in word for word in words):
        return tuple(words)
    raise ValueError('write "module:function", an entry point, or a list such as ["program", "argument"]')


class Terms(Section):
    """When a callback runs, and what it may take."""

    prefix: str = Field(default="", description='Beginning of the keys; "" for all.')
    events: tuple[Happening, ...] = Field(
        default=("written", "arrived", "healed", "deleted", "expired"),
        strict=False,
        min_length=1,
        description="What must have happened: written here, arrived from another node, healed (came later), "
        "deleted, expired, lost (gave way to a write that did not know it).",
    )
    concurrency: int = Field(
        default=4,
        ge=1,
        le=256,
        description="How many run at once. With 1, changes are told in order; each command is a process.",
    )
    timeout: float = Field(
        default=30,
        gt=0,
        le=86_400,
        description="Seconds one may take. Then a command is killed, with what it started, and it counts as "
        "failed: what hangs must not hold up the others for ever.",
    )
    retries: int = Field(
        default=0, ge=0, le=100, description="How often one that failed is run again before it is given up."
    )
    backoff: float = Field(
        default=1,
        gt=0,
        le=3600,
        description="Seconds before the first retry, twice as many before each next one, an hour at most.",
    )
    queue: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="Changes that may wait for their turn. More are dropped, and counted: writes never wait.",
    )


class Callback(Terms):
    """A function or a command that is run when something happens to a key."""

    run: Annotated[str | tuple[str, ...], BeforeValidator(parse_run)] = Field(
        description='A "module:function", the name of an entry point, or a command: ["program", "argument"].'
    )
