"""Prompts from a command line, and how the texts are printed."""

import json
import sys
from collections.abc import Sequence

from recipes.config import UserError
from recipes.runs.directory import Run


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


def check_language_model(run: Run) -> None:
    """Refuse a finished run that is not one of a language model.

    Raises:
        UserError: An unfinished run, or one of another kind.
    """
    if "tokenizer" not in run.metrics:
        raise UserError(f"{run.path} is not a language model: it is a run of {run.config['recipe']}")


def print_texts(prompts: Sequence[str], texts: Sequence[str], *, as_json: bool) -> None:
    """Print whole texts: a line of JSON each, or plain, several of them under their prompts."""
    for prompt, text in zip(prompts, texts, strict=True):
        if as_json:
            print(json.dumps({"prompt": prompt, "text": text}))
        else:
            print(text if len(texts) == 1 else f"--- {prompt!r}\n{text}")
