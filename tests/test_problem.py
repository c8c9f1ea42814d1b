"""problem.py: what is wrong is said in a line that names the field, the value and the fix."""

# ruff: noqa: S104 - addresses that are to be refused, never bound

import pytest

from turbopump.config import parse
from turbopump.errors import ConfigError
from turbopump.problem import one_of


def problems(document: object) -> tuple[str, ...]:
    """What is wrong with a configuration."""
    with pytest.raises(ConfigError) as raised:
        parse(document)
    return raised.value.problems


def test_every_problem_is_found_at_once() -> None:
    """Nobody wants to correct a file one run at a time."""
    document = {"limits": {"max_key": 0, "max_keyz": 1}, "log": {"level": "loud"}, "drain_seconds": "ten"}

    assert problems(document) == (
        "limits.max_key = 0: write 1 or more",
        "limits.max_keyz: unknown field; did you mean max_key?",
        "log.level = \"loud\": write 'debug', 'info', 'warning' or 'error'",
        'drain_seconds = "ten": write a number',
    )


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], "the file = [...]: write an object: {...}"),
        (None, "the file = null: write an object: {...}"),
        ({"members": {}}, "members = {...}: write a list: [...]"),
        ({"members": [5]}, "members[0] = 5: write an object: {...}"),
        ({"keyspaces": [{"prefix": 5}]}, 'keyspaces[0].prefix = 5: write text in quotes: "..."'),
        ({"drain_seconds": float("inf")}, "drain_seconds = Infinity: write a finite number"),
        ({"drain_seconds": 3601}, "drain_seconds = 3601: write 3600 or less"),
        ({"keyspaces": [{"prefix": "", "ttl": 0}]}, "keyspaces[0].ttl = 0: write a number above 0"),
        ({"limits": {"max_key": 2.5}}, "limits.max_key = 2.5: write a whole number"),
        ({"limits": {"max_key": True}}, "limits.max_key = true: write a whole number"),
        ({"limits": {"max_key": "4096"}}, 'limits.max_key = "4096": write a whole number'),
        ({"log": {"colour": 1}}, "log.colour: unknown field; there is format, level"),
        ({"members": [{"tcp": {"host": ""}}]}, 'members[0].tcp.host = "": must not be empty'),
    ],
)
def test_the_line_says_where_what_and_what_to_do(document: object, problem: str) -> None:
    """The words are those of the file, not of the library that checks it."""
    assert problems(document) == (problem,)


def test_a_missing_field_is_described() -> None:
    """Who left it out learns what it is for."""
    [problem] = problems({"keyspaces": [{}]})

    assert problem.startswith("keyspaces[0].prefix: missing; add it: Beginning of the keys")


def test_a_long_value_is_cut() -> None:
    """The line stays a line."""
    [problem] = problems({"log": {"format": "x" * 1000}})

    assert len(problem) < 120


@pytest.mark.parametrize(
    "document",
    [
        {"members": [{"tcp": {"password": 12345}}]},
        {"members": [{"tcp": {"host": "0.0.0.0", "password": None, "pass": "12345"}}]},
        {"members": [{"tcp": {"password": "12345"}}, {"name": "two", "tcp": {"password": "12345"}}]},
        {"members": [{"tcp": ["12345"]}]},
    ],
)
def test_a_password_is_never_shown(document: object) -> None:
    """Problems end up in logs and in chat rooms."""
    assert "12345" not in "\n".join(problems(document))


def test_what_was_meant_is_guessed_only_if_it_is_close() -> None:
    """A wrong guess costs more than a list."""
    assert one_of("max_valeu", ["max_key", "max_value"]) == "did you mean max_value?"
    assert one_of("zzz", ["a", "b"]) == "there is a, b"
    assert one_of(None, ["a"]) == "there is a"
