"""Text → token ids in a memory-mapped file, which is written once for each text and tokenizer.

A corpus may be larger than memory: it is tokenized in chunks, and training maps the file of token ids. The files are in
`$XDG_CACHE_HOME/keras-recipes` (`~/.cache/keras-recipes`), in a folder named after a hash of the text and the
tokenizer's settings; a deleted folder is written again when it is needed.
"""

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from recipes.config import TextData, UserError
from recipes.data.corpus import PARTS, Corpus, open_corpus
from recipes.data.tokenizers import Tokenizer, read_vocabulary, train_tokenizer, write_vocabulary
from recipes.runs.files import write_file, write_json

UNFINISHED = ".making-"
"""Prefix of the name of a folder that is being written."""


@dataclass(frozen=True)
class TextPart:
    """A range of tokens to train on or to score.

    Attributes:
        start, stop: The first token, and the one after the last, in the tokens of the whole text.
        characters: Number of characters of these tokens.
    """

    start: int
    stop: int
    characters: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __add__(self, following: "TextPart") -> "TextPart":
        return TextPart(self.start, following.stop, self.characters + following.characters)


@dataclass(frozen=True)
class TokenizedText:
    """A corpus as token ids.

    Attributes:
        corpus: The text.
        fingerprint: Short hash of the text and its parts.
        tokenizer: The tokenizer.
        tokens: All ids in order, (tokens,), mapped from the file.
        train, validation, test: The parts, one after the other.
    """

    corpus: Corpus
    fingerprint: str
    tokenizer: Tokenizer
    tokens: npt.NDArray[Any] = field(repr=False)
    train: TextPart
    validation: TextPart
    test: TextPart


def load_text(settings: TextData, tokenizer: Tokenizer | None = None) -> TokenizedText:
    """Open a source, and tokenize it if its tokens are not in the cache.

    Args:
        settings: Source, tokenizer and window.
        tokenizer: Use this tokenizer instead of training one on the text.

    Raises:
        UserError: A source that can't be read, a part that has no more tokens than a window, or characters that the
            given tokenizer lacks.
    """
    corpus = open_corpus(settings)
    fingerprint = corpus.fingerprint()
    size = settings.vocabulary_size if settings.tokenizer == "bpe" else None
    vocabulary = tokenizer.to_json() if tokenizer else [settings.tokenizer, size]
    key = hashlib.blake2b(json.dumps([fingerprint, vocabulary]).encode(), digest_size=16).hexdigest()
    folder = cache_folder() / key
    if not _is_complete(folder):
        with _lock(cache_folder()):
            if not _is_complete(folder):  # another process may have written it meanwhile
                _write(folder, corpus, tokenizer or train_tokenizer(corpus, settings))
    text = TokenizedText(corpus, fingerprint, *_open(folder))
    for name in PARTS:
        part: TextPart = getattr(text, name)
        if len(part) <= settings.block_size:
            raise UserError(
                f"data.source: the {name} part of {corpus.name} has {len(part):,} tokens: a window of "
                f"data.block_size and one more are needed. Received: block_size={settings.block_size}"
            )
    return text


def cache_folder() -> Path:
    """Return the folder of tokenized texts."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "keras-recipes"


@contextlib.contextmanager
def _lock(cache: Path) -> Iterator[None]:
    """Wait until no other process writes tokens, and delete what a killed process left."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a kill releases it
        for folder in cache.glob(f"{UNFINISHED}*"):
            shutil.rmtree(folder)
        yield


def _write(folder: Path, corpus: Corpus, tokenizer: Tokenizer) -> None:
    """Tokenize a corpus into a folder; a damaged one is replaced."""
    parts: list[tuple[int, int, int]] = []

    def write(file: IO[bytes]) -> None:
        stop = 0
        for number in range(len(PARTS)):
            start, characters = stop, 0
            for text in corpus.text(number):
                ids = tokenizer.encode(text)
                file.write(ids.astype(_dtype(tokenizer)).tobytes())
                stop += len(ids)
                characters += len(text)
            parts.append((start, stop, characters))

    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=UNFINISHED) as name:
        unfinished = Path(name)
        write_file(unfinished / "tokens", write)
        write_json(unfinished / "parts.json", parts)
        write_vocabulary(tokenizer, unfinished / "vocabulary.json")
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)


def _dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    """Return the smallest integer type that holds the ids."""
    return np.min_scalar_type(len(tokenizer.tokens) - 1)


def _is_complete(folder: Path) -> bool:
    try:
        _open(folder)
    except (OSError, ValueError, TypeError):
        return False
    return True


def _open(folder: Path) -> tuple[Tokenizer, npt.NDArray[Any], TextPart, TextPart, TextPart]:
    """Return tokenizer, tokens and parts.

    Raises:
        OSError, ValueError, TypeError: The folder is missing or damaged.
    """
    tokenizer = read_vocabulary(folder / "vocabulary.json")
    train, validation, test = (TextPart(*part) for part in json.loads((folder / "parts.json").read_text()))
    with (folder / "tokens").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):  # else Linux may map two megabytes around each window
        mapped.madvise(mmap.MADV_NOHUGEPAGE)
    tokens = np.frombuffer(mapped, _dtype(tokenizer))
    if len(tokens) != test.stop:
        raise ValueError(f"{folder} must have {test.stop} tokens. Received: {len(tokens)}")
    return tokenizer, tokens, train, validation, test
