"""Tokenizers as graphs: strings → ids and back, with core TensorFlow operations only.

They return the same ids as `recipes.data.tokenizers`, and refuse the same texts.
"""

from typing import Protocol

import numpy as np
import tensorflow as tf

from recipes.data.tokenizers import WORD_PATTERN, BytePairTokenizer, CharacterTokenizer, Tokenizer
from serving.signatures.guards import Tensor, guard

WORD_END = b"\xff"  # no byte of UTF-8
NO_MERGE = np.iinfo(np.int32).max


class GraphTokenizer(Protocol):
    """A tokenizer as a graph."""

    def encode(self, texts: Tensor) -> tf.RaggedTensor:
        """Return the ids, ragged int32 (n, tokens), of texts in UTF-8, string (n,)."""


def in_graph(tokenizer: Tokenizer) -> GraphTokenizer:
    """Return the graph of a tokenizer."""
    if isinstance(tokenizer, CharacterTokenizer):
        return Characters(tokenizer)
    return BytePairs(tokenizer) if isinstance(tokenizer, BytePairTokenizer) else Bytes()


def guard_text(texts: Tensor, max_bytes: int, max_total: int) -> Tensor:
    """Refuse texts that are empty, not UTF-8, or too long, alone or together; string (n,)."""
    sizes = tf.strings.length(texts)
    texts = guard(texts, sizes > 0, "a text is empty: at least one token is needed")
    texts = guard(texts, sizes <= max_bytes, f"a text must have at most {max_bytes} bytes. Received:", sizes)
    total = tf.reduce_sum(sizes)
    texts = guard(
        texts,
        total <= max_total,
        f"the texts of a request must have at most {max_total} bytes together. Received:",
        total,
    )
    points = tf.strings.unicode_decode(texts, "UTF-8", errors="replace", replacement_char=0xFFFD)
    again = tf.strings.unicode_encode(points, "UTF-8")
    return guard(texts, again == texts, "a text is not UTF-8")


def decode(tokens: list[bytes], ids: Tensor, counts: Tensor) -> Tensor:
    """Return the bytes of the first `counts` ids of each row, string (n,); ids int32 (n, time), counts (n,)."""
    pieces = tf.gather(tf.constant(tokens), ids)  # (n, time)
    kept = tf.sequence_mask(counts, tf.shape(ids)[1])
    return tf.strings.reduce_join(tf.where(kept, pieces, ""), axis=1)


class Bytes:
    """A token is a byte."""

    def encode(self, texts: Tensor) -> tf.RaggedTensor:
        """Return the bytes."""
        return _bytes_of(texts)


def _bytes_of(texts: Tensor) -> tf.RaggedTensor:
    """Return each text's bytes, ragged int32 (n, bytes)."""
    single = tf.strings.bytes_split(texts)
    codes = tf.io.decode_raw(single.flat_values, tf.uint8, fixed_length=1)[:, 0]
    return single.with_flat_values(tf.cast(codes, tf.int32))


class Characters:
    """A token is a character; its id is its index in the sorted characters.

    Args:
        tokenizer: The tokenizer.
    """

    def __init__(self, tokenizer: CharacterTokenizer) -> None:
        self.points = np.array([ord(character) for character in tokenizer.characters], np.int32)

    def encode(self, texts: Tensor) -> tf.RaggedTensor:
        """Return the ids; the error for characters that are not in the vocabulary shows them."""
        points = tf.strings.unicode_decode(texts, "UTF-8")
        flat = points.flat_values
        ids = tf.searchsorted(self.points, flat, out_type=tf.int32)
        known = tf.gather(self.points, tf.minimum(ids, len(self.points) - 1)) == flat
        lacking = tf.strings.unicode_encode(tf.unique(tf.boolean_mask(flat, ~known)).y[:, None], "UTF-8")
        return points.with_flat_values(guard(ids, known, "the vocabulary lacks", lacking))


class BytePairs:
    """Byte-pair encoding: in each word the pair of the lowest rank is merged, until no pair has a rank.

    All words are one row of ids, and a second row has the word of each id. A step of the loop merges
    one kind of pair in each word, so the number of steps is at most that of merges for any text.

    Args:
        tokenizer: The tokenizer.
    """

    def __init__(self, tokenizer: BytePairTokenizer) -> None:
        self.size = len(tokenizer.tokens)
        id_of = {token: number for number, token in enumerate(tokenizer.tokens)}
        self.id_of_byte = np.array([id_of[bytes([byte])] for byte in range(256)], np.int32)
        pairs = np.array([left * self.size + right for left, right, _ in tokenizer.merges], np.int64)
        order = np.argsort(pairs)
        # A pair that no text can contain, so that the tables are not empty.
        self.pairs = np.append(pairs[order], np.int64(self.size) ** 2)
        self.ranks = np.append(order.astype(np.int32), NO_MERGE)
        self.merged = np.array([*(merged for _, _, merged in tokenizer.merges), 0], np.int32)

    def encode(self, texts: Tensor) -> tf.RaggedTensor:
        """Return the ids."""
        words = tf.strings.split(
            tf.strings.regex_replace(texts, f"({WORD_PATTERN})", b"\\1" + WORD_END), WORD_END
        )
        letters = _bytes_of(words.flat_values)
        ids = tf.gather(self.id_of_byte, letters.flat_values)  # (tokens of all texts,)
        word = tf.cast(letters.value_rowids(), tf.int32)
        count = tf.cast(letters.nrows(), tf.int32)
        free = tf.TensorShape([None])
        ids, word, _ = tf.while_loop(
            lambda ids, word, ranks: tf.reduce_any(ranks < NO_MERGE),
            lambda ids, word, ranks: self._merge(ids, word, ranks, count),
            (ids, word, self._rank(ids, word)),
            shape_invariants=(free, free, free),
        )
        text = tf.gather(words.value_rowids(), word)
        return tf.RaggedTensor.from_value_rowids(ids, text, nrows=tf.shape(texts, tf.int64)[0])

    def _rank(self, ids: Tensor, word: Tensor) -> Tensor:
        """Return the rank of each id with the next one, (tokens - 1,)."""
        pairs = tf.cast(ids[:-1], tf.int64) * self.size + tf.cast(ids[1:], tf.int64)
        place = tf.searchsorted(self.pairs, pairs)
        known = (tf.gather(self.pairs, place) == pairs) & (word[:-1] == word[1:])
        return tf.where(known, tf.gather(self.ranks, place), NO_MERGE)

    def _merge(
        self, ids: Tensor, word: Tensor, ranks: Tensor, words: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        lowest = tf.math.unsorted_segment_min(ranks, word[:-1], words)  # (words,)
        wanted = (ranks < NO_MERGE) & (ranks == tf.gather(lowest, word[:-1]))
        # In "aaaa" pairs overlap: of consecutive pairs to merge, the first, third, ... are merged.
        others = tf.concat([[-1], tf.cast(tf.where(~wanted)[:, 0], tf.int32)], axis=0)
        last_other = tf.gather(others, tf.cumsum(tf.cast(~wanted, tf.int32)))
        chosen = wanted & ((tf.range(tf.size(ranks)) - last_other) % 2 == 1)
        merged = tf.gather(self.merged, tf.where(chosen, ranks, len(self.merged) - 1))
        ids = tf.concat([tf.where(chosen, merged, ids[:-1]), ids[-1:]], axis=0)
        kept = tf.concat([[True], ~chosen], axis=0)  # drop the right half of each merged pair
        ids, word = tf.boolean_mask(ids, kept), tf.boolean_mask(word, kept)
        return ids, word, self._rank(ids, word)
