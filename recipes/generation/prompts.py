"""Prompts from a command line, and how the texts are printed."""

import json
import sys
from collections.abc import Sequence

from recipes.config import UserError


def read_prompts(given: Sequence[str]) -> list[str]:
    """Return the prompts: - reads standard input, and without any the prompt is a new line.

    Raises:
        UserError: A prompt that is not UTF-8. Python reads a surrogate for each such byte of an argument.
    """
    try:
        prompts = [sys.stdin.read() if prompt == "-" else prompt for prompt in given or ("\n",)]
        return [prompt.encode(errors="surrogateescape").decode() for prompt in prompts]
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UserError(f"--prompt is not UTF-8. Received: byte {byte:#04x} at {error.start}") from None


def print_texts(prompts: Sequence[str], texts: Sequence[str], *, as_json: bool) -> None:
    """Print whole texts: a line of JSON each, or plain, several of them under their prompts."""
    for prompt, text in zip(prompts, texts, strict=True):
        if as_json:
            print(json.dumps({"prompt": prompt, "text": text}))
        else:
            print(text if len(texts) == 1 else f"--- {prompt!r}\n{text}")
