"""What a node says about itself, on stderr: lines for people, or one JSON object a line for programs.

The package logs through stdlib logging, as any library does; only `configure` decides how it looks, and only
a process that is nothing but a node (`serve`) calls it. Inside somebody else's program, logs are theirs.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO, cast

import structlog
from structlog.stdlib import BoundLogger, ProcessorFormatter

from turbopump._native import Logged
from turbopump.config import Log

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


def relay(logged: Logged) -> None:
    """Logs what a thread of the engine had to say."""
    level = _LEVELS.get(logged.level.upper(), logging.WARNING)
    logger("turbopump.engine").log(level, logged.event, **logged.fields)


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
