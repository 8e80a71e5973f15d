import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.config import UserError
from recipes.data.tokenizers import (
    BytePairTokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    decode,
    from_json,
    read_vocabulary,
    write_vocabulary,
)

VERSE = (
    "To be, or not to be: that is the question:\nWhether 'tis nobler in the mind to suffer 100 slings\n" * 20
)
BPE = BytePairTokenizer.train([VERSE], 300)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_bytes_and_byte_pairs_round_trip_any_text(text):
    for tokenizer in (ByteTokenizer(), BPE):
        assert decode(tokenizer, tokenizer.encode(text)) == text


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=sorted(set(VERSE) | set("é€😀\0"))))
def test_characters_round_trip_any_text_of_their_vocabulary(text):
    tokenizer = CharacterTokenizer("".join(sorted(set(VERSE) | set("é€😀\0"))))
    assert decode(tokenizer, tokenizer.encode(text)) == text
    assert len(tokenizer.encode(text)) == len(text)


def test_ids_a_reader_can_work_out():
    assert CharacterTokenizer("abc").encode("cab").tolist() == [2, 0, 1]
    assert ByteTokenizer().encode("aé").tolist() == [97, 0xC3, 0xA9]
    merges = BytePairTokenizer.train(["aaaa bb aaaa"], 258)
    assert [merges.tokens[token] for token in merges.encode("aaaaa b")] == [b"aaaa", b"a", b" ", b"b"]


def test_byte_pairs_never_cross_a_word():
    tokenizer = BytePairTokenizer.train(["of the of the of the 12 12 12 !! !!"] * 9, 400)
    assert sorted(tokenizer.tokens[256:], key=len)[-1] == b" the"
    assert len(tokenizer.tokens) == 256 + len(tokenizer.merges)


def test_unknown_characters_are_all_named():
    with pytest.raises(UserError, match=r"lacks 'd' '€'\. It has 'a' 'b' 'c'$"):
        CharacterTokenizer("abc").encode("abcd€d")


@pytest.mark.parametrize("tokenizer", [CharacterTokenizer("\n aé"), ByteTokenizer(), BPE])
def test_every_tokenizer_is_the_same_after_writing_and_reading(tokenizer, tmp_path):
    write_vocabulary(tokenizer, tmp_path / "vocabulary.json")
    back = read_vocabulary(tmp_path / "vocabulary.json", len(tokenizer.tokens))
    assert type(back) is type(tokenizer)
    assert list(back.tokens) == list(tokenizer.tokens)
    np.testing.assert_array_equal(back.encode("a\né a"), tokenizer.encode("a\né a"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        ("{", "is not a valid vocabulary: JSONDecodeError"),
        ("[]", "is not a valid vocabulary: TypeError"),
        ('{"kind": "words"}', "unknown kind 'words'"),
        ('{"kind": "characters", "characters": "ba"}', "order of their code points"),
        ('{"kind": "characters", "characters": ""}', "order of their code points"),
        ('{"kind": "bpe", "tokenizer": {}}', "is not a valid vocabulary"),
        ('{"kind": "characters", "characters": "ab"}', "has 2 tokens and the model knows 3"),
    ],
)
def test_a_missing_invalid_or_other_vocabulary_is_refused(tmp_path, content, message):
    path = tmp_path / "vocabulary.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_vocabulary(path, 3)


def test_a_tokenizer_is_built_from_its_json():
    assert from_json(json.loads(json.dumps(CharacterTokenizer("ab").to_json()))).encode("b").tolist() == [1]
