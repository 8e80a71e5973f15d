"""Text → token ids and back: characters, bytes, byte-pair encoding.

Every tokenizer is a list of byte strings, its tokens, and a way to divide text into them. The tokens' bytes joined are
the text, so decoding is the same for all tokenizers, here and inside a SavedModel.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recipes.config import TextData, UserError
from recipes.data.corpus import Corpus
from recipes.runs.files import write_json

Ids = npt.NDArray[np.int32]

WORD_PATTERN = r" ?(?:[A-Za-z]|[^\x00-\x7f])+| ?[0-9]+| ?[!-/:-@\[-`{-~]+|[\x00-\x20\x7f]+"
"""Byte-pair encoding never merges across words: runs of letters (all characters beyond ASCII count as letters), of
digits, of punctuation, each with the space before it, or of white space. GPT-2's pattern uses look-ahead and Unicode
classes, which the regular expressions of a TensorFlow graph do not have."""


class CharacterTokenizer:
    """A token is a character.

    Args:
        characters: The vocabulary: each character once, in the order of the code points.
    """

    kind = "characters"

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self.tokens = [character.encode() for character in characters]
        self._id_of = np.full(max(map(ord, characters)) + 1, -1, np.int32)
        self._id_of[[ord(character) for character in characters]] = np.arange(len(characters))

    @classmethod
    def train(cls, texts: Iterable[str]) -> "CharacterTokenizer":
        """Build the vocabulary of all characters of a text, given in chunks."""
        present = np.zeros(0x110000, bool)
        for text in texts:
            present[np.frombuffer(text.encode("utf-32-le"), np.uint32)] = True
        return cls("".join(map(chr, np.flatnonzero(present))))

    def encode(self, text: str) -> Ids:
        """Return the ids of a text, (tokens,).

        Raises:
            UserError: Characters that the vocabulary lacks, all named.
        """
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)  # (tokens,)
        ids = self._id_of[np.minimum(points, len(self._id_of) - 1)]
        unknown = (points >= len(self._id_of)) | (ids < 0)
        if unknown.any():
            missing = "".join(map(chr, np.unique(points[unknown])))
            raise UserError(f"The vocabulary lacks {_listed(missing)}. It has {_listed(self.characters)}")
        return ids

    def to_json(self) -> dict[str, Any]:
        """Return the content of `vocabulary.json`."""
        return {"kind": self.kind, "characters": self.characters}


def _listed(characters: str) -> str:
    shown = " ".join(repr(character) for character in characters[:20])
    return shown + (f" and {len(characters) - 20} more" if len(characters) > 20 else "")


class ByteTokenizer:
    """A token is a byte of the text's UTF-8: 256 tokens, and no character is unknown."""

    kind = "bytes"
    tokens = tuple(bytes([number]) for number in range(256))

    def encode(self, text: str) -> Ids:
        """Return the ids of a text, (tokens,)."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def to_json(self) -> dict[str, Any]:
        """Return the content of `vocabulary.json`."""
        return {"kind": self.kind}


class BytePairTokenizer:
    """Byte-pair encoding of the text's UTF-8 (Sennrich et al. 2016, arXiv:1508.07909), by the library `tokenizers`.

    Args:
        state: The tokenizer in the library's JSON format.

    Attributes:
        merges: Pairs of ids, and the id of each merged pair, (merges, 3), in the order in which they are applied.
    """

    kind = "bpe"

    def __init__(self, state: dict[str, Any]) -> None:
        import tokenizers

        self.state = state
        self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(state))
        vocabulary = state["model"]["vocab"]
        byte_of = _byte_alphabet()
        names = sorted(vocabulary, key=vocabulary.__getitem__)
        self.tokens = [bytes(byte_of[letter] for letter in name) for name in names]
        self.merges = [
            (vocabulary[left], vocabulary[right], vocabulary[left + right])
            for left, right in state["model"]["merges"]
        ]

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int) -> "BytePairTokenizer":
        """Learn the merges from a text, given in chunks; there are fewer if it has no more pairs."""
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers, trainers

        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(WORD_PATTERN), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(json.loads(tokenizer.to_str()))

    def encode(self, text: str) -> Ids:
        """Return the ids of a text, (tokens,)."""
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def to_json(self) -> dict[str, Any]:
        """Return the content of `vocabulary.json`."""
        return {"kind": self.kind, "tokenizer": self.state}


def _byte_alphabet() -> dict[str, int]:
    """Return the byte of each letter of a byte-level vocabulary: GPT-2's table, which `tokenizers` uses.

    Printable Latin-1 letters are their own bytes; the other bytes have the letters from U+0100 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + number): byte for number, byte in enumerate(others)
    }


Tokenizer = CharacterTokenizer | ByteTokenizer | BytePairTokenizer


def train_tokenizer(corpus: Corpus, settings: TextData) -> Tokenizer:
    """Return the settings' tokenizer: byte pairs of the training part, or the characters of the whole text."""
    if settings.tokenizer == "bytes":
        return ByteTokenizer()
    if settings.tokenizer == "bpe":
        return BytePairTokenizer.train(corpus.text(0), settings.vocabulary_size)
    return CharacterTokenizer.train(corpus.text())


def decode(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    """Return the text of ids; bytes that are not UTF-8 become U+FFFD."""
    return b"".join(tokenizer.tokens[number] for number in ids).decode(errors="replace")


def write_vocabulary(tokenizer: Tokenizer, path: Path) -> None:
    """Write `vocabulary.json`."""
    write_json(path, tokenizer.to_json())


def read_vocabulary(path: Path, size: int | None = None) -> Tokenizer:
    """Read `vocabulary.json`.

    Args:
        path: The file.
        size: Tokens of the model; None accepts any number.

    Raises:
        UserError: A file that is missing, damaged, or of another size.
    """
    try:
        tokenizer = from_json(json.loads(path.read_text()))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: without it the model's tokens have no text") from None
    except Exception as error:  # a damaged file fails in JSON, in from_json, or in the library
        raise UserError(f"{path} is not a valid vocabulary: {type(error).__name__}: {error}") from error
    if size is not None and len(tokenizer.tokens) != size:
        raise UserError(f"{path} has {len(tokenizer.tokens)} tokens and the model knows {size}")
    return tokenizer


def from_json(content: dict[str, Any]) -> Tokenizer:
    """Build a tokenizer from what its `to_json` returned."""
    kind = content["kind"]
    if kind == "characters":
        characters = content["characters"]
        if not characters or list(characters) != sorted(set(characters)):
            raise ValueError("characters must be there once each, in the order of their code points")
        return CharacterTokenizer(characters)
    if kind == "bytes":
        return ByteTokenizer()
    if kind == "bpe":
        return BytePairTokenizer(content["tokenizer"])
    raise ValueError(f"unknown kind {kind!r}")
