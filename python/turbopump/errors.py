"""What can go wrong: one tree, told apart by whose fault it is and by whether anything changed.

    TurbopumpError
    ├── RequestError         you: the request is wrong                        nothing changed
    ├── ConflictError        nobody: a write's condition does not hold        nothing changed
    ├── NotFoundError        nobody: there is nothing under the key           nothing changed
    ├── NoSpaceError         the configuration: memory is used up             nothing changed
    ├── DeniedError          you: no guest here, or no password               nothing changed
    ├── UnavailableError     the node: it could not answer                    the message says what is known
    ├── ProtocolError        the peer: it broke the protocol                  unknown; the connection is gone
    ├── ConnectionLostError  the network, or the node is not there            unknown for calls in flight
    ├── NodeFailedError      the engine: a thread of it panicked              the node and its data are gone
    └── ConfigError          you: the configuration is wrong                  nothing was started

Every instance has `code`, the word a program matches on: the same words that clients of any language get.
"""

from collections.abc import Sequence

from turbopump._native import (
    ConflictError,
    DeniedError,
    NodeFailedError,
    NoSpaceError,
    NotFoundError,
    ProtocolError,
    RequestError,
    TurbopumpError,
    UnavailableError,
)

__all__ = [
    "ConfigError",
    "ConflictError",
    "ConnectionLostError",
    "DeniedError",
    "NoSpaceError",
    "NodeFailedError",
    "NotFoundError",
    "ProtocolError",
    "RequestError",
    "TurbopumpError",
    "UnavailableError",
    "error_for",
]


class ConnectionLostError(TurbopumpError):
    """The node cannot be reached, or the connection broke.

    State: a call that was in flight may have happened or not. Nothing is ever sent twice, so the caller
    decides: reads, deletes and writes with `if_version` are safe to repeat.
    """

    code = "connection_lost"


class ConfigError(TurbopumpError):
    """The configuration is wrong.

    State: nothing was started.

    Attributes:
        problems: One line each: the field, its value and what to do.
    """

    code = "config"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


# One class for all the codes with which a node refuses in the same way. A node newer than this client may
# know more codes: those arrive as TurbopumpError itself.
_CLASSES: dict[type[TurbopumpError], tuple[str, ...]] = {
    RequestError: (
        "syntax",
        "unknown_command",
        "bad_param",
        "missing_param",
        "bad_key",
        "key_too_long",
        "value_too_long",
        "line_too_long",
        "multiline",
        "bad_length",
        "not_integer",
    ),
    ConflictError: ("exists", "missing", "version_mismatch", "immutable"),
    NotFoundError: ("not_found",),
    NoSpaceError: ("no_space",),
    UnavailableError: (
        "timeout",
        "busy",
        "shutting_down",
        "gone",
        "limit",
        "internal",
        "no_reply",
        "unavailable",
    ),
    DeniedError: ("denied", "auth_required"),
    ProtocolError: ("protocol",),
    ConnectionLostError: ("connection_lost",),
    NodeFailedError: ("node_failed",),
}
_CLASS_OF = {code: kind for kind, codes in _CLASSES.items() for code in codes}


def error_for(code: str, message: str) -> TurbopumpError:
    """The exception for an error that a node answered.

    Args:
        code: The error's word, such as `not_found`.
        message: What happened and what to do.

    Returns:
        An instance of the class for the code, with `code` set; not raised yet.
    """
    error = _CLASS_OF.get(code, TurbopumpError)(message)
    error.code = code
    return error
