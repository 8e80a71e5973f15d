"""What can go wrong in a server: refused requests, and wrong configuration."""

import re

import grpc
import tensorflow as tf


class StatusError(Exception):
    """A request that is answered with a status other than OK.

    Attributes:
        code: gRPC status code.
        text: What the caller is told, in TF Serving's words where it has them.
    """

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class TooLargeError(StatusError):
    """A body of more bytes than are read."""

    def __init__(self, largest: int) -> None:
        super().__init__(grpc.StatusCode.INVALID_ARGUMENT, f"the body must have at most {largest} bytes")


class ConfigError(ValueError):
    """A flag or a config file that the server can't start with."""


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


def from_tensorflow(error: tf.errors.OpError) -> StatusError:
    """Return TensorFlow's error with the same code, and its message without Python's stack traces."""
    text = (error.message or "").split("\n\nOriginal stack trace")[0]
    text = re.sub(r" \[Op:\w+\]\s*$", "", text)  # the name of the function: TF Serving's texts end before it
    code = next(
        (code for code in grpc.StatusCode if code.value[0] == error.error_code), grpc.StatusCode.UNKNOWN
    )
    return StatusError(code, text.strip())
