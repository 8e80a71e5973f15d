"""Bodies of OpenAI's text completions (https://platform.openai.com/docs/api-reference/completions)."""

import secrets
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.server.errors import invalid_argument
from serving.server.json_tensors import as_bytes
from serving.server.json_text import show
from serving.tensors import Arrays

MAX_STOPS = 4
"""Stop sequences of a request, as in OpenAI's API."""
READ = (
    "model",
    "prompt",
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "seed",
    "n",
    "stop",
    "echo",
    "stream",
    "stream_options",
    "user",
)
"""Parameters of a request; `top_k` is not OpenAI's, and `user` has no effect."""
WITHOUT_EFFECT: Mapping[str, Any] = {
    "best_of": 1,
    "frequency_penalty": 0,
    "logit_bias": {},
    "logprobs": None,
    "presence_penalty": 0,
    "suffix": "",
}
"""Parameters that are not supported, with the value that changes nothing; null is another."""


@dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """A request, with OpenAI's defaults.

    Attributes:
        model: Name of the model.
        prompts: Each has `n` completions.
        max_tokens, temperature, top_k, top_p: As `max_new_tokens`, ... of the signature `generate`.
        seed: Seed of a prompt's first completion; the others have the next seeds.
        n: Completions of each prompt.
        stop: Sequences that end a completion, without them.
        echo: Whether completions begin with their prompt.
        stream: Whether their parts are sent while they are generated.
        include_usage: Whether the last part of a stream has the numbers of tokens.
    """

    model: str
    prompts: Sequence[str]
    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int
    n: int
    stop: Sequence[str]
    echo: bool
    stream: bool
    include_usage: bool

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "CompletionRequest":
        """Return the request in a body.

        Raises:
            StatusError: INVALID_ARGUMENT for a parameter that is unknown, not supported or of another type.
        """
        for name, value in body.items():
            _check_supported(name, value)
        int32 = _is_integer(-(2**31), 2**31 - 1)
        options = _read(body, "stream_options", {}, lambda value: isinstance(value, dict), "an object")
        return cls(
            model=_read(body, "model", None, _is_string, "a string"),
            prompts=_as_list(_read(body, "prompt", None, _is_text, "a string or a list of strings")),
            max_tokens=_read(body, "max_tokens", 16, int32, "an integer"),
            temperature=_read(body, "temperature", 1.0, _is_number, "a number"),
            top_k=_read(body, "top_k", 0, int32, "an integer"),
            top_p=_read(body, "top_p", 1.0, _is_number, "a number"),
            seed=_read(body, "seed", secrets.randbits(32), _is_integer(-(2**63), 2**63 - 1), "an integer"),
            n=_read(body, "n", 1, _is_integer(1, 2**31 - 1), "an integer of at least 1"),
            stop=_as_list(
                _read(body, "stop", [], _is_stop, f"a string or a list of up to {MAX_STOPS}, none empty")
            ),
            echo=_read(body, "echo", False, _is_boolean, "true or false"),
            stream=_read(body, "stream", False, _is_boolean, "true or false"),
            include_usage=_read(options, "include_usage", False, _is_boolean, "true or false"),
        )

    @property
    def rows(self) -> int:
        """The number of completions."""
        return len(self.prompts) * self.n

    def inputs(self) -> Arrays:
        """Return the inputs of the signature `generate`, with a row for each completion.

        Raises:
            StatusError: INVALID_ARGUMENT for half of a surrogate pair.
        """
        try:
            prompts = [as_bytes(prompt) for prompt in self.prompts for _ in range(self.n)]
        except ValueError as error:
            raise invalid_argument(str(error)) from error
        with np.errstate(over="ignore"):  # the graph refuses an infinite float32
            return {
                "prompt": np.array(prompts, np.object_),
                "max_new_tokens": np.full(self.rows, self.max_tokens, np.int32),
                "temperature": np.full(self.rows, self.temperature, np.float32),
                "top_k": np.full(self.rows, self.top_k, np.int32),
                "top_p": np.full(self.rows, self.top_p, np.float32),
                "seed": np.tile(np.int64(self.seed) + np.arange(self.n), len(self.prompts)),
            }


def _check_supported(name: str, value: Any) -> None:
    if name in WITHOUT_EFFECT:
        if value is not None and (isinstance(value, np.ndarray) or value != WITHOUT_EFFECT[name]):
            raise invalid_argument(f"{name} is not supported. Received: {show(value)}")
    elif name not in READ:
        raise invalid_argument(f"Unrecognized request argument supplied: {name}")


def _read(
    values: Mapping[str, Any], name: str, default: Any, is_valid: Callable[[Any], bool], words: str
) -> Any:
    """Return a value; a default stands for null too."""
    value = values.get(name)
    if value is None and default is not None:
        return default
    if not is_valid(value):
        raise invalid_argument(f"{name} must be {words}. Received: {show(value)}")
    return value


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _is_integer(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _is_number(value: Any) -> bool:
    return type(value) is float or _is_integer(-(2**63), 2**63)(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)
    )


def _is_stop(value: Any) -> bool:
    stops = _as_list(value)
    return (
        isinstance(stops, list)
        and len(stops) <= MAX_STOPS
        and all(isinstance(stop, str) and stop for stop in stops)
    )


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Completion:
    """The response to a request: OpenAI's objects as JSON values.

    Args:
        request: The request.
    """

    def __init__(self, request: CompletionRequest) -> None:
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": request.model,
        }
        self._echo = [prompt if request.echo else "" for prompt in request.prompts for _ in range(request.n)]
        self._texts = [""] * request.rows
        self._reasons = [b""] * request.rows
        self._n = request.n
        self._usage: dict[str, int] = {}

    def add(self, outputs: Arrays) -> list[dict[str, Any]]:
        """Add a part, the outputs of `text_batch.Generation`, and return the events that stream it."""
        prompt_tokens = int(outputs["prompt_tokens"][:: self._n].sum())  # of each prompt once
        tokens = int(outputs["completion_tokens"].sum())
        self._usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": prompt_tokens + tokens,
        }
        new = [echo + text.decode() for echo, text in zip(self._echo, outputs["text"], strict=True)]
        ended = [self._reasons[row] != reason for row, reason in enumerate(outputs["finish_reason"])]
        self._echo = [""] * len(new)
        self._reasons = outputs["finish_reason"].tolist()
        self._texts = [text + more for text, more in zip(self._texts, new, strict=True)]
        return [
            {**self._head, "choices": [self._choice(row, text)]}
            for row, text in enumerate(new)
            if text or ended[row]
        ]

    def whole(self) -> dict[str, Any]:
        """Return the response that is not streamed."""
        choices = [self._choice(row, text) for row, text in enumerate(self._texts)]
        return {**self._head, "choices": choices, "usage": self._usage}

    def usage(self) -> dict[str, Any]:
        """Return the event with the numbers of tokens."""
        return {**self._head, "choices": [], "usage": self._usage}

    def _choice(self, row: int, text: str) -> dict[str, Any]:
        reason = self._reasons[row].decode() or None
        return {"text": text, "index": row, "logprobs": None, "finish_reason": reason}
