"""errors.py: every code has its class, and the tree that is drawn is the tree that is there."""

import inspect
import re

import pytest

from turbopump import errors
from turbopump.errors import ConfigError, TurbopumpError, error_for

CODES = [
    ("syntax", "RequestError"),
    ("unknown_command", "RequestError"),
    ("bad_param", "RequestError"),
    ("missing_param", "RequestError"),
    ("bad_key", "RequestError"),
    ("value_too_long", "RequestError"),
    ("line_too_long", "RequestError"),
    ("multiline", "RequestError"),
    ("bad_length", "RequestError"),
    ("not_integer", "RequestError"),
    ("exists", "ConflictError"),
    ("missing", "ConflictError"),
    ("version_mismatch", "ConflictError"),
    ("immutable", "ConflictError"),
    ("not_found", "NotFoundError"),
    ("no_space", "NoSpaceError"),
    ("timeout", "UnavailableError"),
    ("busy", "UnavailableError"),
    ("shutting_down", "UnavailableError"),
    ("internal", "UnavailableError"),
    ("no_reply", "UnavailableError"),
    ("denied", "DeniedError"),
    ("auth_required", "DeniedError"),
    ("protocol", "ProtocolError"),
    ("connection_lost", "ConnectionLostError"),
    ("of_a_newer_node", "TurbopumpError"),
]


@pytest.mark.parametrize(("code", "name"), CODES)
def test_a_code_becomes_an_exception_of_its_class(code: str, name: str) -> None:
    """The class says whose fault it is, the code what exactly."""
    error = error_for(code, "what happened")

    assert type(error).__name__ == name
    assert error.code == code
    assert str(error) == "what happened"


def test_the_drawn_tree_is_the_tree() -> None:
    """Whoever adds an exception draws it."""
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    classes = {name for name, value in vars(errors).items() if inspect.isclass(value)} - {"Sequence"}

    assert drawn | {"TurbopumpError"} == classes
    assert classes | {"error_for"} == set(errors.__all__)


@pytest.mark.parametrize("name", sorted(set(errors.__all__) - {"error_for"}))
def test_everything_has_one_root(name: str) -> None:
    """`except TurbopumpError` catches all, and nothing else of Python's."""
    kind = getattr(errors, name)

    assert issubclass(kind, TurbopumpError)
    assert kind.__bases__ in {(TurbopumpError,), (Exception,)}
    assert kind.__doc__


def test_a_config_error_keeps_its_problems_apart() -> None:
    """A program may show them in a list, a person reads lines."""
    error = ConfigError(["a: wrong", "b: wrong"])

    assert error.problems == ("a: wrong", "b: wrong")
    assert str(error) == "a: wrong\nb: wrong"
    assert error.code == "config"
