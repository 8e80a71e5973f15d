"""Text → token ids and back: characters, bytes, byte-pair encoding.

All three are a list of byte strings, one a token, and a way to cut text into them. Joining the
tokens' bytes gives the text back, so decoding is the same for all, here and inside a SavedModel.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from recipes.config import UserError
from recipes.runs.files import write_json

Ids = npt.NDArray[np.int32]

WORD = r" ?(?:[A-Za-z]|[^\x00-\x7f])+| ?[0-9]+| ?[!-/:-@\[-`{-~]+|[\x00-\x20\x7f]+"
"""What byte-pair encoding never merges across: a run of letters (all that is not ASCII counts as
one), of digits, of punctuation, each with the space before it, or of white space. GPT-2's pattern
looks ahead and asks Unicode tables, which the regular expressions of a TensorFlow graph can't."""


class Tokenizer(Protocol):
    """What every kind of tokenizer offers.

    Attributes:
        kind: Its name: characters, bytes or bpe.
    """

    kind: str

    @property
    def tokens(self) -> Sequence[bytes]:
        """The bytes of each token, by id."""

    def encode(self, text: str) -> Ids:
        """Return the ids of a text, (tokens,).

        Raises:
            UserError: Characters that the vocabulary lacks, all named.
        """

    def to_json(self) -> dict[str, Any]:
        """Return what `vocabulary.json` holds."""


def decode(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    """Return the text of ids; bytes that are no UTF-8 become U+FFFD."""
    return b"".join(tokenizer.tokens[number] for number in ids).decode(errors="replace")


class CharacterTokenizer:
    """A token is a character.

    Args:
        characters: The vocabulary: every character once, in the order of their code points.
    """

    kind = "characters"

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self.tokens = [character.encode() for character in characters]
        self._id_of = np.full(max(map(ord, characters)) + 1, -1, np.int32)
        self._id_of[[ord(character) for character in characters]] = np.arange(len(characters))

    def encode(self, text: str) -> Ids:
        """Return the ids of a text."""
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)  # (tokens,)
        ids = self._id_of[np.minimum(points, len(self._id_of) - 1)]
        unknown = (points >= len(self._id_of)) | (ids < 0)
        if unknown.any():
            lacking = "".join(map(chr, np.unique(points[unknown])))
            raise UserError(f"The vocabulary lacks {_listed(lacking)}. It has {_listed(self.characters)}")
        return ids

    def to_json(self) -> dict[str, Any]:
        """Return the kind and the characters."""
        return {"kind": self.kind, "characters": self.characters}


def _listed(characters: str) -> str:
    shown = " ".join(repr(character) for character in characters[:20])
    return shown + (f" and {len(characters) - 20} more" if len(characters) > 20 else "")


class ByteTokenizer:
    """A token is a byte of the text's UTF-8: 256 tokens, no character is unknown."""

    kind = "bytes"
    tokens = tuple(bytes([number]) for number in range(256))

    def encode(self, text: str) -> Ids:
        """Return the ids of a text."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def to_json(self) -> dict[str, Any]:
        """Return the kind."""
        return {"kind": self.kind}


class BytePairTokenizer:
    """Byte-pair encoding of the text's UTF-8 (Sennrich et al. 2016, arXiv:1508.07909), by `tokenizers`.

    Args:
        state: The tokenizer as the library writes it.

    Attributes:
        merges: Pairs of ids and the id that each becomes, (merges, 3), in the order they are applied.
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
        """Learn the merges of some text; fewer than asked for where it has no more pairs."""
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers, trainers

        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(WORD), "isolated"),
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
        """Return the ids of a text."""
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def to_json(self) -> dict[str, Any]:
        """Return the kind and the library's own state."""
        return {"kind": self.kind, "tokenizer": self.state}


def _byte_alphabet() -> dict[str, int]:
    """Return the byte that each letter of a byte-level vocabulary stands for.

    Printable Latin-1 stands for itself; the others have the letters from U+0100 on, in their order
    (GPT-2's table, which `tokenizers` uses).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + number): byte for number, byte in enumerate(others)
    }


def write_vocabulary(tokenizer: Tokenizer, path: Path) -> None:
    """Write `vocabulary.json`."""
    write_json(path, tokenizer.to_json())


def read_vocabulary(path: Path, size: int | None = None) -> Tokenizer:
    """Read `vocabulary.json`.

    Args:
        path: The file.
        size: Number of tokens that the model knows; None takes any.

    Raises:
        UserError: No such file, no vocabulary in it, or one of another size.
    """
    try:
        tokenizer = from_json(json.loads(path.read_text()))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: without it the model's tokens have no text") from None
    except Exception as error:  # a damaged file fails in JSON, in our reading of it, or inside the library
        raise UserError(f"{path} is no vocabulary: {type(error).__name__}: {error}") from error
    if size is not None and len(tokenizer.tokens) != size:
        raise UserError(f"{path} has {len(tokenizer.tokens)} tokens and the model knows {size}")
    return tokenizer


def from_json(content: dict[str, Any]) -> Tokenizer:
    """Build a tokenizer from what `to_json` gave."""
    kind = content["kind"]
    if kind == "characters":
        characters = content["characters"]
        if list(characters) != sorted(set(characters)) or not characters:
            raise ValueError("its characters are not each there once, in the order of their code points")
        return CharacterTokenizer(characters)
    if kind == "bytes":
        return ByteTokenizer()
    if kind == "bpe":
        return BytePairTokenizer(content["tokenizer"])
    raise ValueError(f"unknown kind {kind!r}")
