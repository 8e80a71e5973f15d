"""JSON bodies → Python values and arrays, in a thread that lets others run.

`json.loads` holds Python's lock until it is done, and the lists of a large batch make the garbage
collector walk all objects again and again: 13 MB of images stopped every other thread for 1.9 s. Here
examples are read one after the other, which gives the lock away every 5 ms, and each becomes an array
at once, which the collector does not walk.
"""

import json
import threading
import zlib
from typing import Any

import grpc
import numpy as np

from serving.server.errors import StatusError, TooLargeError, invalid_argument

Scanned = tuple[Any, int]


def parse(body: bytes, encoding: str, largest: int, left: threading.Event) -> dict[str, Any]:
    """Return the object that a request's body holds; lists of numbers inside its examples are arrays.

    Args:
        body: JSON in UTF-8, or that in gzip.
        encoding: Content-Encoding, gzip or none.
        largest: Most bytes that gzip may unpack to.
        left: Set when nobody waits for the answer.

    Raises:
        StatusError: INVALID_ARGUMENT; CANCELLED once `left` is set.
    """
    if encoding == "gzip":
        body = _unpack(body, largest)
    try:
        text = body.decode("utf-8-sig").strip(" \t\r\n")
        value, end = _Walk(left).value(text, 0)
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


def _unpack(body: bytes, largest: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(body, largest + 1)
    except zlib.error as error:
        raise invalid_argument(f"the body is not gzip: {error}") from error
    if len(unpacked) > largest:
        raise TooLargeError(largest)
    if not unpacker.eof:
        raise invalid_argument("the body's gzip is cut short")
    return unpacked


class _Walk:
    """Reads JSON by json's own parts: in Python down to the list of examples, in C each example."""

    def __init__(self, left: threading.Event) -> None:
        self._left = left
        self._in_c: Any = json.JSONDecoder().scan_once  # type: ignore[attr-defined]

    def value(self, text: str, start: int) -> Scanned:
        """Read the body, or a value in an object outside of the examples."""
        if text[start : start + 1] == "{":
            return json.decoder.JSONObject((text, start + 1), True, self.value, None, None)  # type: ignore[attr-defined]
        if text[start : start + 1] == "[":
            return json.decoder.JSONArray((text, start + 1), self._example)  # type: ignore[attr-defined]
        return self._in_c(text, start)

    def _example(self, text: str, start: int) -> Scanned:
        if self._left.is_set():
            raise StatusError(grpc.StatusCode.CANCELLED, "the caller left")
        if text[start : start + 1] == "{":
            return json.decoder.JSONObject((text, start + 1), True, self._tensor, None, None)  # type: ignore[attr-defined]
        return self._tensor(text, start)

    def _tensor(self, text: str, start: int) -> Scanned:
        value, end = self._in_c(text, start)
        # NumPy would make room for the longest string in the place of every number.
        if isinstance(value, list) and text.find('"', start, end) < 0:
            return _as_array(value), end
        return value, end


def _as_array(value: list[Any]) -> Any:
    """Return nested lists of numbers of one shape as an array; anything else as it is."""
    try:
        array = np.array(value)
    except (ValueError, OverflowError):  # no tensor: whoever takes it for one says so
        return value
    return array if array.dtype.kind in "biuf" else value
