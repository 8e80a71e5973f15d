"""Errors of the server: refused requests and invalid configuration."""

import re

import grpc
import tensorflow as tf

HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
"""HTTP statuses by gRPC status code; 500 for all others."""


class StatusError(Exception):
    """A request that is answered with a status other than OK.

    Attributes:
        code: gRPC status code.
        text: Message for the caller, in TF Serving's words where it has them.
        http_status: The status of a REST response.
    """

    def __init__(self, code: grpc.StatusCode, text: str, http_status: int | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.http_status = http_status or HTTP_STATUS.get(code, 500)


def invalid_argument(text: str) -> StatusError:
    """Return an INVALID_ARGUMENT error."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, text)


def not_found(text: str) -> StatusError:
    """Return a NOT_FOUND error."""
    return StatusError(grpc.StatusCode.NOT_FOUND, text)


def failed_precondition(text: str) -> StatusError:
    """Return a FAILED_PRECONDITION error."""
    return StatusError(grpc.StatusCode.FAILED_PRECONDITION, text)


def unavailable(text: str) -> StatusError:
    """Return an UNAVAILABLE error."""
    return StatusError(grpc.StatusCode.UNAVAILABLE, text)


def too_large(max_bytes: int) -> StatusError:
    """Return the error for a body of more bytes than the server reads."""
    text = f"the body must have at most {max_bytes} bytes"
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, text, http_status=413)


def from_tensorflow(error: tf.errors.OpError) -> StatusError:
    """Return TensorFlow's error with the same code, and its message without Python's stack traces."""
    text = (error.message or "").split("\n\nOriginal stack trace")[0]
    # The name of the function that Python calls. TF Serving runs the graph without it.
    text = re.sub(r"^{{function_node \w+}} | \[Op:\w+\]\s*$", "", text)
    code = next(
        (code for code in grpc.StatusCode if code.value[0] == error.error_code), grpc.StatusCode.UNKNOWN
    )
    return StatusError(code, text.strip())
