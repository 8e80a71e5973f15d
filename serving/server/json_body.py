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

MAX_BODY_BYTES = 16 * 2**20
"""Largest body. A single example of this size holds Python's lock, and with it all calls, for half a second."""

Scanned = tuple[Any, int]
"""A value, and where the text continues."""


def parse(content: bytes, encoding: str, ended: threading.Event) -> dict[str, Any]:
    """Return the object of a request's body; lists of numbers in its examples are arrays.

    Args:
        content: JSON in UTF-8, or gzip of it.
        encoding: The Content-Encoding: empty, identity or gzip.
        ended: Set when nobody waits for the response any more.

    Raises:
        StatusError: INVALID_ARGUMENT; CANCELLED once `ended` is set.
    """
    if encoding == "gzip":
        content = _decompress(content)
    elif encoding not in ("", "identity"):
        raise invalid_argument("Content-Encoding must be gzip, or none")
    try:
        text = content.decode("utf-8-sig").strip(" \t\r\n")
        value, end = _Parser(ended).value(text, 0)
    except StopIteration as error:
        raise invalid_argument("JSON Parse error: The document is empty or not JSON") from error
    except RecursionError as error:
        raise invalid_argument("JSON Parse error: values are nested too deeply") from error
    except ValueError as error:
        raise invalid_argument(f"JSON Parse error: {error}") from error
    if end != len(text):
        raise invalid_argument(f"JSON Parse error: more text after the document. at offset: {end}")
    if not isinstance(value, dict):
        raise invalid_argument("JSON Value: the request is not object")
    return value


def text_of(body: dict[str, Any], name: str) -> str:
    """Return a string of the body, or an empty one if it is missing.

    Raises:
        StatusError: INVALID_ARGUMENT for another type, or for half of a surrogate pair, which UTF-8 lacks.
    """
    value = body.get(name, "")
    if not isinstance(value, str) or value.encode(errors="ignore").decode() != value:
        raise invalid_argument(f"JSON Value: {name} must be a string")
    return value


def _decompress(content: bytes) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)
    try:
        decompressed = decompressor.decompress(content, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise invalid_argument(f"the body is not gzip: {error}") from error
    if len(decompressed) > MAX_BODY_BYTES:
        raise too_large(MAX_BODY_BYTES)
    if not decompressor.eof:
        raise invalid_argument("the body's gzip is cut short")
    return decompressed


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
        # For a list with a string NumPy would allocate the longest string for every element.
        if isinstance(value, list) and text.find('"', start, end) < 0:
            return _as_array(value), end
        return value, end


def _as_array(value: list[Any]) -> Any:
    """Return nested lists of numbers of one shape as an array; any other value unchanged."""
    try:
        array = np.array(value)
    except (ValueError, OverflowError):  # not a tensor: an error where one is expected
        return value
    return array if array.dtype.kind in "biuf" else value
