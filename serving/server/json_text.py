"""JSON as TF Serving's library RapidJSON writes it, and that library's words for what is not JSON.

TF Serving shows the value that it refuses, so its texts depend on how values are written.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from serving.tensors import Array

LONGEST_VALUE = 256
"""Characters of a value that an error shows."""
_TYPES = {list: "Array", dict: "Object", str: "String", int: "Number", float: "Number", type(None): "Null"}
_ERRORS = {
    "Expecting property name": "Missing a name for object member.",
    "Expecting ':'": "Missing a colon after a name of object member.",
    "Expecting value": "Invalid value.",
    "Unterminated string": "Missing a closing quotation mark in string.",
    "Invalid \\uXXXX": "Incorrect hex digit after \\u escape in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid control character": "Invalid encoding in string.",
}
"""RapidJSON's messages by the start of those of Python's json."""


def parse_error(text: str, error: json.JSONDecodeError) -> str:
    """Return RapidJSON's message for a syntax error, with its offset in bytes."""
    message = next((ours for start, ours in _ERRORS.items() if error.msg.startswith(start)), error.msg)
    if error.msg.startswith("Expecting ','"):
        inside = _innermost(text[: error.pos])
        message = (
            "Missing a comma or } after an object member."
            if inside == "{"
            else "Missing a comma or ] after an array element."
        )
    return f"{message} at offset: {byte_offset(text, error.pos)}"


def byte_offset(text: str, place: int) -> int:
    """Return how many bytes of UTF-8 are before a character."""
    return len(text[:place].encode("utf-8", "surrogateescape"))


def _innermost(text: str) -> str:
    """Return the bracket that is still open at the end of a text."""
    open_brackets = [""]
    for token in re.findall(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text):
        if token in "[{":
            open_brackets.append(token)
        elif token in "]}":
            open_brackets.pop()
    return open_brackets[-1]


def type_name(value: Any) -> str:
    """Return RapidJSON's name of the type of a value; that of a boolean is its value."""
    return str(value) if isinstance(value, bool) else _TYPES[type(value)]


def show(value: Any) -> str:
    """Return the start of a value as an error shows it: objects in lines, arrays in one line."""
    if isinstance(value, float):
        value = decimals(np.array(value, np.float32)) if abs(value) <= np.finfo(np.float32).max else value
    shown, size = [], 0
    for piece in _pieces(value, ""):
        shown.append(piece)
        size += len(piece)
        if size >= LONGEST_VALUE:
            break
    return "".join(shown)[:LONGEST_VALUE]


def _pieces(value: Any, indent: str) -> Iterator[str]:
    inner = indent + "    "
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict) and value:
        for number, (name, member) in enumerate(value.items()):
            yield f"{',' if number else '{'}\n{inner}{_scalar(name)}: "
            yield from _pieces(member, inner)
        yield f"\n{indent}}}"
    elif isinstance(value, list) and value:
        yield "["
        for number, item in enumerate(value):
            yield ", " if number else ""
            yield from _pieces(item, inner)
        yield "]"
    else:
        yield _scalar(value)


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def decimals(array: Array) -> Any:
    """Return an array as nested lists; float32 with 6 digits, or 9 where 6 are another number.

    Converted to float64, 2.55 would be 2.549999952316284.
    """
    if array.dtype != np.float32:
        return array.tolist()
    shortest = [_shortest(number) for number in array.reshape(-1)]
    return np.array(shortest, np.float64).reshape(array.shape).tolist()


def _shortest(number: np.float32) -> float:
    six = float(f"{number:.6g}")
    return six if np.float32(six) == number else float(f"{number:.9g}")
