"""What is wrong with a configuration, a line each: the field, its value, and what to do about it.

Not the checks: those are the types in `config.py`. Here pydantic's findings are put into words.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Location = Sequence[int | str]
SHOWN_MAX = 60  # characters of a value that are shown; enough to find it again

_FIXES: Mapping[str, str] = {
    "bool_type": "write true or false",
    "dict_type": "write an object: {{...}}",
    "finite_number": "write a finite number",
    "float_type": "write a number",
    "greater_than": "write a number above {gt}",
    "greater_than_equal": "write {ge} or more",
    "int_type": "write a whole number",
    "less_than_equal": "write {le} or less",
    "literal_error": "write {expected}",
    "model_type": "write an object: {{...}}",
    "string_too_short": "must not be empty",
    "string_type": 'write text in quotes: "..."',
    "too_long": "write at most {max_length} of them",
    "tuple_type": "write a list: [...]",
}


class DisagreementError(ValueError):
    """Several things that are wrong between the fields of a model, each a line already.

    Attributes:
        lines: They name their fields by themselves.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line for each thing that is wrong.

    Args:
        error: What pydantic found.
        model: What it checked.
    """
    return [line for details in error.errors(include_url=False) for line in _lines(details, model)]


def one_of(wrong: str | None, right: Iterable[str]) -> str:
    """A hint at what was probably meant."""
    known = list(right)
    close = get_close_matches(wrong or "", known, n=1)
    return f"did you mean {close[0]}?" if close else f"there is {', '.join(known)}"


def _lines(details: ErrorDetails, model: type[BaseModel]) -> Sequence[str]:
    found = details.get("ctx", {}).get("error")
    return found.lines if isinstance(found, DisagreementError) else [_line(details, model)]


def _line(details: ErrorDetails, model: type[BaseModel]) -> str:
    location, kind = details["loc"], details["type"]
    path = _path(location) or "the file"
    if kind == "extra_forbidden":
        *above, name = location
        fields = _model_at(above, model).model_fields
        return f"{path}: unknown field; {one_of(str(name), fields)}"
    if kind == "missing":
        return f"{path}: missing; add it: {_description(location, model)}"
    return f"{path} = {_shown(location, details['input'])}: {_fix(details, model)}"


def _fix(details: ErrorDetails, model: type[BaseModel]) -> str:
    context = {name: _plain(value) for name, value in details.get("ctx", {}).items()}
    if details["type"] == "value_error":
        return str(context["error"])
    if details["type"] == "string_pattern_mismatch":
        return _description(details["loc"], model)
    template = _FIXES.get(details["type"])
    return template.format(**context) if template else details["msg"]


def _path(location: Location) -> str:
    """A location in words: `members[0].tcp.port`."""
    return re.sub(
        r"^\.", "", "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    )


def _plain(value: object) -> object:
    """3600.0 as 3600."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shown(location: Location, value: object) -> str:
    """The value as it stands in the file, cut where it gets long. Never a password, nor what holds one."""
    if "password" in location:
        return "(not shown)"
    if isinstance(value, dict | list | tuple):
        return "{...}" if isinstance(value, dict) else "[...]"
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "..."


def _model_at(location: Location, model: type[BaseModel]) -> type[BaseModel]:
    """The section that a location leads to."""
    for part in location:
        if isinstance(part, str):
            model = _section(model.model_fields[part].annotation) or model
    return model


def _description(location: Location, model: type[BaseModel]) -> str:
    *above, name = location
    return _model_at(above, model).model_fields[str(name)].description or ""


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model inside `Model`, `Model | None` or `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inside: Callable[[Any], type[BaseModel] | None] = _section
    return next(filter(None, map(inside, get_args(annotation))), None)
