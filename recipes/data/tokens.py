"""Text → token ids in a memory-mapped file, made once for a text and a tokenizer.

A corpus may be larger than memory: it is read in chunks, and training maps the file that comes of
it. The file is kept in `$XDG_CACHE_HOME/keras-recipes` (`~/.cache/keras-recipes`) under a name made
of the text's hash and the tokenizer's settings; removing it costs making it again.
"""

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from recipes.config import TextData, UserError
from recipes.data.corpus import PARTS, Corpus, open_corpus
from recipes.data.tokenizers import (
    BytePairTokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    Tokenizer,
    read_vocabulary,
    write_vocabulary,
)
from recipes.runs.files import write_file, write_json

MAKING = ".making-"
"""Beginning of the name of a folder of tokens that is being made."""


@dataclass(frozen=True)
class Part:
    """A run of tokens that is trained or scored on.

    Attributes:
        start, stop: Where it begins and ends in the tokens of the whole text.
        characters: Characters that these tokens stand for.
    """

    start: int
    stop: int
    characters: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __add__(self, following: "Part") -> "Part":
        return Part(self.start, following.stop, self.characters + following.characters)


@dataclass(frozen=True)
class TokenizedText:
    """A corpus as token ids.

    Attributes:
        corpus: Where the text comes from.
        fingerprint: Short hash of the text.
        tokenizer: What made the tokens.
        tokens: All ids in order, (tokens,), mapped from the file.
        train, validation, test: The parts, one after the other.
    """

    corpus: Corpus
    fingerprint: str
    tokenizer: Tokenizer
    tokens: npt.NDArray[Any] = field(repr=False)
    train: Part
    validation: Part
    test: Part


def load_text(settings: TextData, tokenizer: Tokenizer | None = None) -> TokenizedText:
    """Open a source, and tokenize it unless that was done before.

    Args:
        settings: Source, tokenizer and window.
        tokenizer: Use this one instead of making one of the text.

    Raises:
        UserError: A source that can't be read, or a part with fewer tokens than a window; with a
            tokenizer given, characters that it lacks.
    """
    corpus = open_corpus(settings)
    fingerprint = corpus.fingerprint()
    size = settings.vocabulary_size if settings.tokenizer == "bpe" else None
    made_by = tokenizer.to_json() if tokenizer else [settings.tokenizer, size]
    key = hashlib.blake2b(json.dumps([fingerprint, made_by]).encode(), digest_size=16).hexdigest()
    folder = cache_folder() / key
    if not _is_whole(folder):
        with _only_maker(cache_folder()):
            if not _is_whole(folder):  # another process may have made it meanwhile
                _tokenize(corpus, tokenizer or make_tokenizer(corpus, settings), folder)
    text = _open_tokens(corpus, fingerprint, folder)
    for name in PARTS:
        part: Part = getattr(text, name)
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


def make_tokenizer(corpus: Corpus, settings: TextData) -> Tokenizer:
    """Make a tokenizer of the kind that the settings name: of all characters, or of the training part."""
    if settings.tokenizer == "bytes":
        return ByteTokenizer()
    if settings.tokenizer == "bpe":
        return BytePairTokenizer.train(corpus.text(0), settings.vocabulary_size)
    return CharacterTokenizer(_characters(corpus.text()))


def _characters(texts: Iterable[str]) -> str:
    seen = np.zeros(0x110000, bool)
    for text in texts:
        seen[np.frombuffer(text.encode("utf-32-le"), np.uint32)] = True
    return "".join(map(chr, np.flatnonzero(seen)))


@contextlib.contextmanager
def _only_maker(cache: Path) -> Iterator[None]:
    """Wait until no other process makes tokens, and remove what one that was killed has left."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a kill releases it
        for left in cache.glob(f"{MAKING}*"):
            shutil.rmtree(left)
        yield


def _is_whole(folder: Path) -> bool:
    """Tell whether a folder of tokens is there, as long as it says, with a vocabulary."""
    try:
        about = json.loads((folder / "parts.json").read_text())
        size = sum(about["tokens"]) * np.dtype(about["dtype"]).itemsize
        read_vocabulary(folder / "vocabulary.json")
        return bool((folder / "tokens").stat().st_size == size)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _tokenize(corpus: Corpus, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a folder of tokens, beside its place first; what is in its place is damaged and goes."""
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=MAKING))
    kind = np.min_scalar_type(len(tokenizer.tokens) - 1)
    tokens, characters = [], []

    def write(file: IO[bytes]) -> None:
        for number in range(len(PARTS)):
            counts = [0, 0]
            for text in corpus.text(number):
                ids = tokenizer.encode(text)
                file.write(ids.astype(kind).tobytes())
                counts[0] += len(ids)
                counts[1] += len(text)
            tokens.append(counts[0])
            characters.append(counts[1])

    try:
        write_file(beside / "tokens", write)
        write_json(beside / "parts.json", {"dtype": kind.name, "tokens": tokens, "characters": characters})
        write_vocabulary(tokenizer, beside / "vocabulary.json")
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _open_tokens(corpus: Corpus, fingerprint: str, folder: Path) -> TokenizedText:
    about = json.loads((folder / "parts.json").read_text())
    ends = np.cumsum(about["tokens"]).tolist()
    parts = [
        Part(end - count, end, characters)
        for end, count, characters in zip(ends, about["tokens"], about["characters"], strict=True)
    ]
    tokens = _map(folder / "tokens", about["dtype"]) if ends[-1] else np.zeros(0, about["dtype"])
    return TokenizedText(corpus, fingerprint, read_vocabulary(folder / "vocabulary.json"), tokens, *parts)


def _map(path: Path, kind: str) -> npt.NDArray[Any]:
    """Map a file of token ids into memory, read only."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):  # else Linux may map two megabytes around each window
        mapped.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(mapped, kind)
