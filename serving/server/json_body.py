"""JSON bodies → Python values and arrays, in a thread that lets other threads run.

`json.loads` holds Python's lock until it is done, and the garbage collector walks the lists of a large
batch again and again: 13 MB of images stopped all other threads for 1.9 s. Here examples are parsed one
after the other, which releases the lock every 5 ms, and each becomes an array at once, which the
collector does not walk.
"""

import json
import threading
import zlib
from typing import Any

import grpc
import numpy as np

from serving.server.errors import StatusError, invalid_argument, too_large
from serving.server.json_text import byte_offset, parse_error, show

MAX_BODY_BYTES = 16 * 2**20
"""Largest body. A single example of this size holds Python's lock, and with it all calls, for half a second."""

GZIP = 31
"""The gzip format, as `wbits` of zlib."""
SPACES = " \t\r\n"
NO_NUMBERS = ('"', "true", "false")
"""For a string NumPy would allocate its length for every element; booleans it would take for numbers."""

Scanned = tuple[Any, int]
"""A value, and where the text continues."""


def parse(content: bytes, encoding: str, ended: threading.Event) -> dict[str, Any]:
    """Return the object of a request's body; lists of numbers in its examples are arrays.

    Args:
        content: JSON in UTF-8, or gzip of it. Other bytes are kept as `surrogateescape` has them.
        encoding: The Content-Encoding.
        ended: Set when nobody waits for the response any more.

    Raises:
        StatusError: INVALID_ARGUMENT; CANCELLED once `ended` is set.
    """
    if "gzip" in encoding:
        content = decompress(content, GZIP)
    if not content:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        text = content.decode("utf-8-sig", "surrogateescape")
        value, end = _Parser(ended).value(text, len(text) - len(text.lstrip(SPACES)))
    except StopIteration as error:  # raised by the scanner, with its place
        raise _no_value(text, error.value) from error
    except RecursionError as error:
        raise invalid_argument("JSON Parse error: values are nested too deeply") from error
    except json.JSONDecodeError as error:
        raise invalid_argument(f"JSON Parse error: {parse_error(text, error)}") from error
    except ValueError as error:  # Python reads integers of at most 4,300 digits
        raise invalid_argument("JSON Parse error: Number too big to be stored in double.") from error
    more = text[end:].lstrip(SPACES)
    if more:
        what = "The document root must not be followed by other values."
        place = byte_offset(text, len(text) - len(more))
        raise invalid_argument(f"JSON Parse error: {what} at offset: {place}")
    if not isinstance(value, dict):
        raise invalid_argument(f"JSON Value: {show(value)} Is not object")
    return value


def _no_value(text: str, place: int) -> StatusError:
    what = "Invalid value." if text.strip(SPACES) else "The document is empty."
    return invalid_argument(f"JSON Parse error: {what} at offset: {byte_offset(text, place)}")


def signature_of(body: dict[str, Any]) -> str:
    """Return the signature that a body names, or an empty string.

    Raises:
        StatusError: INVALID_ARGUMENT for another type.
    """
    name = body.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {show(body)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def decompress(content: bytes, wbits: int) -> bytes:
    """Return decompressed content; nothing if it is not compressed so, as in TF Serving.

    Args:
        content: The compressed content.
        wbits: The format, as in `zlib`.

    Raises:
        StatusError: INVALID_ARGUMENT (413) for more than MAX_BODY_BYTES.
    """
    decompressor = zlib.decompressobj(wbits=wbits)
    try:
        decompressed = decompressor.decompress(content, MAX_BODY_BYTES + 1)
    except zlib.error:
        return b""
    if len(decompressed) > MAX_BODY_BYTES:
        raise too_large(MAX_BODY_BYTES)
    return decompressed if decompressor.eof else b""


class _Parser:
    """Parses JSON with the functions of `json`: in Python down to the list of examples, in C each example."""

    def __init__(self, ended: threading.Event) -> None:
        self._ended = ended
        self._in_c: Any = json.JSONDecoder().scan_once  # type: ignore[attr-defined]

    def value(self, text: str, start: int) -> Scanned:
        """Parse the body, or a value of an object outside of the examples."""
        if text[start : start + 1] == "{":
            return json.decoder.JSONObject((text, start + 1), True, self.value, None, None)  # type: ignore[attr-defined]
        if text[start : start + 1] == "[":
            return json.decoder.JSONArray((text, start + 1), self._example)  # type: ignore[attr-defined]
        return self._in_c(text, start)

    def _example(self, text: str, start: int) -> Scanned:
        if self._ended.is_set():
            raise StatusError(grpc.StatusCode.CANCELLED, "the caller left")
        if text[start : start + 1] == "{":
            return json.decoder.JSONObject((text, start + 1), True, self._tensor, None, None)  # type: ignore[attr-defined]
        return self._tensor(text, start)

    def _tensor(self, text: str, start: int) -> Scanned:
        value, end = self._in_c(text, start)
        if isinstance(value, list) and not any(text.find(word, start, end) >= 0 for word in NO_NUMBERS):
            return as_array(value), end
        return value, end


def as_array(value: list[Any]) -> Any:
    """Return nested lists of numbers of one shape as an array; any other list unchanged."""
    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        return value
    if array.dtype.kind == "f" and (abs(array) >= 2**63).any():
        return value  # uint64 among smaller integers, which NumPy rounds to float64
    return array if array.dtype.kind in "iuf" and array.size else value
