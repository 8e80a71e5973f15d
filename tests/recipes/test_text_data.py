import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from recipes.config import BatchSchedule, TextData, UserError
from recipes.data import corpus as corpora
from recipes.data import tokens as token_files
from recipes.data.batch_sizes import BatchSizes
from recipes.data.corpus import Corpus, open_corpus
from recipes.data.tokenizers import CharacterTokenizer, decode
from recipes.data.tokens import TextPart, cache_folder, load_text
from recipes.data.windows import evaluation_windows, training_windows
from tests.recipes.sizes import fixed_sizes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def file(tmp_path: Path, content: bytes, name: str = "book.txt") -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_is_cut_into_three_parts_in_order(tmp_path):
    text = "".join(chr(97 + number % 26) for number in range(2000))
    data = TextData(
        source=str(file(tmp_path, text.encode())), block_size=8, validation_fraction=0.1, test_fraction=0.2
    )
    loaded = load_text(data)
    parts = [
        decode(loaded.tokenizer, loaded.tokens[part.start : part.stop])
        for part in (loaded.train, loaded.validation, loaded.test)
    ]
    assert parts == [text[:1400], text[1400:1600], text[1600:]]
    assert loaded.tokens.dtype == np.uint8
    assert loaded.train + loaded.validation == TextPart(0, 1600, 1600)


def test_parts_begin_with_whole_characters(tmp_path):
    path = file(tmp_path, ("é" * 500).encode())
    for fraction in (0.101, 0.102, 0.103):
        corpus = open_corpus(TextData(source=str(path), test_fraction=fraction))
        assert all(end % 2 == 0 for end in corpus.ends)


def test_a_folder_is_read_in_the_order_of_its_paths_across_files(tmp_path):
    for name, content in [
        ("b/1.txt", "BB"),
        ("a.txt", "AA"),
        ("c.md", "CC"),
        (".hidden", "x"),
        (".git/y", "y"),
    ]:
        file(tmp_path / "books", content.encode() * 100, name)
    corpus = open_corpus(TextData(source=str(tmp_path / "books")))
    assert "".join(corpus.text()) == "A" * 200 + "B" * 200 + "C" * 200
    assert corpus.ends == (540, 570, 600)
    assert "".join(corpus.text(1)) == "C" * 30


def test_chunks_do_not_cut_characters(monkeypatch):
    monkeypatch.setattr(corpora, "CHUNK_BYTES", 7)
    content = "ab\né€😀 no line end for long " * 30
    pieces = tuple(content.encode()[start : start + 11] for start in range(0, len(content.encode()), 11))
    whole = Corpus("x", "x", (content.encode(),), (10, 20, len(content.encode())))
    assert "".join(whole.text()) == content
    assert whole.fingerprint() == Corpus("y", "y", pieces, whole.ends).fingerprint()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "there is no text in"),
        (b"abc\xff" + b"d" * 9000, "book.txt is not UTF-8 at byte 3"),
        (b"d" * 9000 + b"\xe2\x82", "book.txt is not UTF-8 at byte 9000"),
        (b"short", "has 4 tokens"),
    ],
)
def test_empty_short_or_invalid_text_is_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        load_text(TextData(source=str(file(tmp_path, content))))


def test_the_error_names_the_right_byte_in_the_second_chunk_and_file(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "CHUNK_BYTES", 16)
    file(tmp_path / "books", b"x" * 1000, "1")
    file(tmp_path / "books", b"y" * 500 + b"\xc3\x28" + b"z" * 500, "2")
    with pytest.raises(UserError, match="books/2 is not UTF-8 at byte 500"):
        load_text(TextData(source=str(tmp_path / "books")))


def test_unknown_sources_are_refused(tmp_path):
    for source, message in [
        ("nowhere.txt", "no file or folder nowhere.txt"),
        (str(tmp_path / "cache"), "no file or folder"),
        ("tiny_shakespear", "tiny_shakespeare?"),
    ]:
        with pytest.raises(UserError, match=message):
            open_corpus(TextData(source=source))


def cached_texts() -> list[Path]:
    return [path for path in cache_folder().iterdir() if path.is_dir()]


@pytest.mark.parametrize("damaged", ["tokens", "parts.json", "vocabulary.json"])
def test_damaged_tokens_are_written_again(tmp_path, damaged):
    path = file(tmp_path, b"hello world\n" * 1000)
    first = load_text(TextData(source=str(path))).tokens.copy()
    (folder,) = cached_texts()
    whole = (folder / damaged).read_bytes()
    (folder / damaged).write_bytes(whole[: len(whole) // 4])
    again = load_text(TextData(source=str(path)))
    np.testing.assert_array_equal(first, again.tokens)
    assert (folder / damaged).read_bytes() == whole
    assert cached_texts() == [folder]


def test_unfinished_tokens_of_a_killed_run_are_deleted(tmp_path):
    path = file(tmp_path, b"hello world\n" * 1000)
    kill_while_tokenizing = (
        "import os, signal, sys\n"
        "from recipes.config import TextData\n"
        "from recipes.data import tokens\n"
        "tokens.write_vocabulary = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "tokens.load_text(TextData(source=sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", kill_while_tokenizing, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(cached_texts()) == 1  # the unfinished one
    other = file(tmp_path, b"another text\n" * 1000, "other.txt")
    assert len(load_text(TextData(source=str(other))).tokens) == 13_000
    (folder,) = cached_texts()
    assert (folder / "parts.json").exists()


def test_several_threads_can_load_one_text(tmp_path):
    path = file(tmp_path, b"hello world\n" * 1000)
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda _: load_text(TextData(source=str(path))), range(4)))
    assert {len(text.tokens) for text in texts} == {12_000}
    assert len(cached_texts()) == 1


def test_a_text_is_tokenized_once(tmp_path, monkeypatch):
    path = file(tmp_path, b"hello world\n" * 1000)
    first = load_text(TextData(source=str(path)))
    monkeypatch.setattr(token_files, "_write", None)
    again = load_text(TextData(source=str(path)))
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert len(cached_texts()) == 1
    path.write_bytes(b"hello World\n" * 1000)
    with pytest.raises(TypeError):
        load_text(TextData(source=str(path)))


def test_a_given_tokenizer_is_used_and_unknown_characters_are_named(tmp_path):
    path = file(tmp_path, b"abcabc" * 1000)
    loaded = load_text(TextData(source=str(path)), CharacterTokenizer("abcd"))
    assert loaded.tokenizer.characters == "abcd"
    with pytest.raises(UserError, match="lacks 'c'"):
        load_text(TextData(source=str(path)), CharacterTokenizer("ab"))
    assert not [each for each in os.listdir(cache_folder()) if each.startswith(".making")]


@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe"])
def test_every_tokenizer_decodes_the_text_it_encoded(tmp_path, kind):
    text = "Wer reitet so spät durch Nacht und Wind?\n€ 100, 😀!\n" * 300
    loaded = load_text(TextData(source=str(file(tmp_path, text.encode())), tokenizer=kind))
    assert decode(loaded.tokenizer, loaded.tokens) == text
    assert loaded.train.characters + loaded.validation.characters + loaded.test.characters == len(text)
    if kind == "bpe":
        assert len(loaded.tokens) < len(text) / 3


def all_windows(dataset) -> list[np.ndarray]:
    return [np.concatenate(parts) for parts in zip(*dataset.as_numpy_iterator(), strict=True)]


@pytest.mark.parametrize("stride", [None, 1, 3, 8])
@pytest.mark.parametrize(
    "part", [TextPart(0, 50, 50), TextPart(10, 75, 65), TextPart(10, 13, 3), TextPart(10, 18, 8)]
)
def test_every_token_is_scored_exactly_once(part, stride):
    tokens = np.arange(100)
    ids, following, weights = all_windows(
        evaluation_windows(tokens, part, TextData(block_size=8, evaluation_stride=stride))
    )
    scored = np.sort(following[weights > 0])
    np.testing.assert_array_equal(scored, np.arange(max(part.start, 1), part.stop))
    np.testing.assert_array_equal(following[weights > 0], ids[weights > 0] + 1)
    assert weights.sum() == pytest.approx(weights.size)
    context = (weights > 0) * np.arange(1, 9)
    if stride == 1 and len(part) > 8:
        assert np.count_nonzero(context[1:] == 8) == np.count_nonzero(weights[1:])


def test_random_windows_depend_on_seed_and_epoch_only():
    tokens = np.arange(1000, dtype=np.uint16)

    def read(seed: int, epoch: int) -> np.ndarray:
        sizes = fixed_sizes(4, steps=50)
        windows = training_windows(tokens, TextPart(100, 900, 800), TextData(block_size=16), sizes, seed)
        windows.epoch.assign(epoch)
        ids, following = all_windows(windows.dataset)
        np.testing.assert_array_equal(following, ids + 1)
        assert ids.shape == (200, 16)
        assert ids.min() >= 100
        assert following.max() < 900
        return ids

    np.testing.assert_array_equal(read(0, 3), read(0, 3))
    assert not np.array_equal(read(0, 3), read(0, 4))
    assert not np.array_equal(read(0, 3), read(1, 3))


def test_windows_and_batch_sizes_draw_from_different_streams():
    """Both are uniform from 1 to 1,000 with the same seed and epoch, and must not be correlated."""
    random = BatchSchedule(name="random", largest=1000)
    drawn = BatchSizes(random, 1, examples=100_000, epochs=1, seed=7).of_epoch(0)
    windows = training_windows(
        np.arange(1005), TextPart(1, 1005, 1004), TextData(block_size=4), fixed_sizes(150, steps=1), 7
    )
    ids, _ = next(iter(windows.dataset.as_numpy_iterator()))
    assert abs(np.corrcoef(ids[:, 0], drawn[:150])[0, 1]) < 0.3


@pytest.mark.parametrize("batches", [BatchSchedule(), BatchSchedule(name="random", largest=5)])
def test_each_pass_has_every_window_once(batches):
    """19 windows of 8 tokens a pass, whose ends do not fall on those of epochs and batches."""
    sizes = BatchSizes(batches, 3, examples=24, epochs=5, seed=1)
    windows = training_windows(np.arange(200), TextPart(20, 180, 160), TextData(block_size=8), sizes, 1)
    starts: list[int] = []
    for epoch in range(5):
        windows.epoch.assign(epoch)
        starts += [int(row[0]) for ids, _ in windows.dataset.as_numpy_iterator() for row in ids]
    passes = [starts[begin : begin + 19] for begin in range(0, 6 * 19, 19)]
    for each in passes:
        assert sorted(each) == list(range(min(each), min(each) + 19 * 8, 8))
        assert each != sorted(each)
    assert len({min(each) for each in passes}) > 1


def test_windows_reach_both_ends_of_the_part():
    sizes = fixed_sizes(64, steps=20)
    windows = training_windows(np.arange(30), TextPart(5, 20, 15), TextData(block_size=4), sizes, 0)
    ids, following = all_windows(windows.dataset)
    assert (ids.min(), following.max()) == (5, 19)


def test_a_part_of_one_window_repeats_it():
    windows = training_windows(
        np.arange(30), TextPart(5, 14, 9), TextData(block_size=8), fixed_sizes(2, steps=2), 0
    )
    ids, following = all_windows(windows.dataset)
    np.testing.assert_array_equal(ids, [np.arange(5, 13)] * 4)
    np.testing.assert_array_equal(following, ids + 1)


def store_letters(tmp_path, monkeypatch, own: tuple[str, ...]) -> None:
    """Prepare the dataset `letters` with the given parts."""
    letters = {"train": "t", "validation": "v", "test": "e"}
    sizes = {"train": 1000, "validation": 60, "test": 50}
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    tfds.dataset_builders.store_as_tfds_dataset(
        name="letters",
        version="1.0.0",
        data_dir=tmp_path / "tfds",
        split_datasets={
            part: tf.data.Dataset.from_tensors({"text": letters[part] * sizes[part]}) for part in own
        },
        features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
    )


def test_a_dataset_without_a_training_part_is_refused(tmp_path, monkeypatch):
    store_letters(tmp_path, monkeypatch, ("test", "validation"))
    with pytest.raises(UserError, match="letters has no part `train`. Received: test, validation"):
        open_corpus(TextData(source="letters"))


@pytest.mark.parametrize("own", [("test", "train"), ("train", "validation"), ("train", "validation", "test")])
def test_a_dataset_keeps_the_parts_it_has(tmp_path, monkeypatch, own):
    """The training part consists of t, the validation part of v, the test part of e."""
    store_letters(tmp_path, monkeypatch, own)
    settings = TextData(source="letters", validation_fraction=0.1, test_fraction=0.2)
    corpus = open_corpus(settings)
    assert ["".join(corpus.text(part)) for part in range(3)] == {
        ("test", "train"): ["t" * 900, "t" * 100, "e" * 50],
        ("train", "validation"): ["t" * 800, "v" * 60, "t" * 200],
        ("train", "validation", "test"): ["t" * 1000, "v" * 60, "e" * 50],
    }[own]


def test_the_offline_text_needs_no_dataset():
    loaded = load_text(TextData(source="pydoc"))
    assert 350_000 < len(loaded.train) < 600_000
    assert loaded.corpus.data_source == "pydoc"


@pytest.mark.skipif(
    "TFDS_DATA_DIR" not in os.environ, reason="tiny_shakespeare is not prepared in TFDS_DATA_DIR"
)
def test_tiny_shakespeare_is_split_as_tfds_splits_it():
    loaded = load_text(TextData(source="tiny_shakespeare"))
    assert [len(part) for part in (loaded.train, loaded.validation, loaded.test)] == [
        1_003_854,
        55_770,
        55_770,
    ]
    assert len(loaded.tokenizer.tokens) == 65
    assert decode(loaded.tokenizer, loaded.tokens[:15]) == "First Citizen:\n"
