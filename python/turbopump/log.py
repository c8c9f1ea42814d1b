"""What a node says about itself, on stderr: lines for people, or one JSON object a line for programs.

The package logs through stdlib logging, as any library does; only `configure` decides how it looks, and only
a process that is nothing but a node (`serve`) calls it. Inside somebody else's program, logs are theirs.
"""

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TextIO, cast

import structlog
from structlog.stdlib import BoundLogger, ProcessorFormatter

from turbopump._native import Logged
from turbopump.config import Log

REPEAT_SECONDS = 60.0
REPEATS_MAX = 1024  # lines that are remembered: as many as there may be members
_REPEATING = {"peer_refused"}
_LEVELS: Mapping[str, int] = logging.getLevelNamesMapping()


def logger(name: str) -> BoundLogger:
    """A logger whose calls take an event in constant words and fields: `log.info("listening", path=path)`.

    Args:
        name: Of the module that logs.
    """
    wrapped = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=True,
    )
    return cast("BoundLogger", wrapped)


class Relay:
    """Logs what the threads of an engine have to say: a refusal that is repeated, once a minute.

    A peer that is refused tries again for as long as it runs: its lines would hide all others.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """A relay that has said nothing.

        Args:
            clock: Tells the time in seconds.
        """
        self._clock = clock
        self._said: dict[tuple[str, ...], tuple[float, int]] = {}  # when, and how often since

    def say(self, logged: Logged) -> None:
        """Logs it, or counts it: the next line of the kind says how many there were."""
        repeated = self._repeated(logged) if logged.event in _REPEATING else 0
        if repeated is not None:
            level = _LEVELS.get(logged.level.upper(), logging.WARNING)
            fields: dict[str, Any] = logged.fields | ({"repeated": repeated} if repeated else {})
            logger("turbopump.engine").log(level, logged.event, **fields)

    def _repeated(self, logged: Logged) -> int | None:
        """How often it was swallowed since it was said; None if it is now."""
        what = (logged.event, *(part for pair in sorted(logged.fields.items()) for part in pair))
        now = self._clock()
        said, count = self._said.pop(what, (-math.inf, 0))
        if now - said < REPEAT_SECONDS:
            self._said[what] = (said, count + 1)
            return None
        while len(self._said) >= REPEATS_MAX:
            del self._said[next(iter(self._said))]
        self._said[what] = (now, 0)
        return count


def configure(log: Log, stream: TextIO | None = None) -> None:
    """Makes this process log as the configuration says: everything in it, other libraries included.

    Args:
        log: Format and level.
        stream: Where to; stderr by default.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        ProcessorFormatter(
            processors=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                ProcessorFormatter.remove_processors_meta,
                *_renderers(log, colors=stream.isatty()),
            ],
            foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
        )
    )
    logging.basicConfig(handlers=[handler], level=_LEVELS[log.level.upper()], force=True)
    logging.captureWarnings(True)


def _renderers(log: Log, *, colors: bool) -> list[structlog.typing.Processor]:
    if log.format == "json":
        return [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer(ensure_ascii=False)]
    plain = structlog.dev.plain_traceback
    return [_escape, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain, pad_event_to=0)]


def _escape(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A client chooses some of what is logged: it must not write lines or colours of its own."""
    for name, value in fields.items():
        if isinstance(value, str) and not value.isprintable() and name != "exception":
            fields[name] = "".join(c if c.isprintable() else repr(c)[1:-1] for c in value)
    return fields
