"""Text of any size, read in chunks, and divided into a training, a validation and a test part."""

import codecs
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from recipes.config import TextData, UserError
from recipes.data.datasets import is_path, open_builder, read_split

DEFAULT_DATASET = "tiny_shakespeare"
OFFLINE_DATASET = "pydoc"
CHUNK_BYTES = 2**22
PARTS = ("train", "validation", "test")

Piece = bytes | Path
"""A text in memory, or a file."""


@dataclass(frozen=True)
class Corpus:
    """UTF-8 text: the training part, then the validation part, then the test part.

    Attributes:
        name: Name of the text: "tiny_shakespeare", "pydoc", a file's or folder's name.
        data_source: The value of `--data.source` that loads it again: a name or an absolute path.
        pieces: The text, in order.
        ends: Where each part ends, in bytes from the start of the text.
        note: What a reader of the results must know, such as that this is not the text asked for.
    """

    name: str
    data_source: str
    pieces: tuple[Piece, ...] = field(repr=False)
    ends: tuple[int, int, int]
    note: str = ""

    def __post_init__(self) -> None:
        if not self.ends[-1]:
            raise UserError(f"data.source: there is no text in {self.data_source}")

    def fingerprint(self) -> str:
        """Return a short hash of the text and its parts."""
        digest = hashlib.blake2b(repr(self.ends).encode(), digest_size=16)
        for _, _, content, _ in _read(self.pieces, 0, self.ends[-1]):
            digest.update(content)
        return digest.hexdigest()

    def text(self, part: int | None = None) -> Iterator[str]:
        """Yield the text of a part (None: the whole text) in chunks of about 4 MB, which end with a line if possible.

        Raises:
            UserError: Bytes that are not UTF-8, with file and offset.
        """
        start, stop = (0, self.ends[-1]) if part is None else ((0, *self.ends)[part], self.ends[part])
        decoder, rest = codecs.getincrementaldecoder("utf-8")(), ""
        for piece, offset, content, last in _read(self.pieces, start, stop):
            first = offset - len(
                decoder.getstate()[0]
            )  # with the beginning of a character in the chunk before
            try:
                text = rest + decoder.decode(content, final=last)
            except UnicodeDecodeError as error:
                name = piece if isinstance(piece, Path) else self.name
                raise UserError(f"data.source: {name} is not UTF-8 at byte {first + error.start}") from None
            line_end = text.rfind("\n") + 1
            complete, rest = text[:line_end], text[line_end:]
            if len(rest) > CHUNK_BYTES:
                complete, rest = text, ""
            if complete:
                yield complete
        if rest:
            yield rest


def _read(pieces: tuple[Piece, ...], start: int, stop: int) -> Iterator[tuple[Piece, int, bytes, bool]]:
    """Yield (piece, offset in the piece, bytes, whether they are its last) from start to stop."""
    for piece in pieces:
        size = _size(piece)
        low, high = max(start, 0), min(stop, size)
        if low < high:
            yield from _chunks(piece, low, high)
        start, stop = start - size, stop - size


def _chunks(piece: Piece, low: int, high: int) -> Iterator[tuple[Piece, int, bytes, bool]]:
    if isinstance(piece, bytes):
        yield piece, low, piece[low:high], True
        return
    with piece.open("rb") as file:
        file.seek(low)
        for offset in range(low, high, CHUNK_BYTES):
            end = min(offset + CHUNK_BYTES, high)
            yield piece, offset, file.read(end - offset), end == high


def _size(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.stat().st_size


def open_corpus(settings: TextData) -> Corpus:
    """Open `auto`, `pydoc`, a TensorFlow dataset or a path.

    Raises:
        UserError: A source that is not found, or has no text.
    """
    name = settings.source
    if name == OFFLINE_DATASET:
        return _open_pydoc(settings)
    if name == "auto":
        try:
            return _open_dataset(DEFAULT_DATASET, settings)
        except UserError as error:
            note = (
                "This is NOT tiny Shakespeare but Python's own help texts, whose results are not comparable with "
                f"tiny Shakespeare's ({error})"
            )
            return _open_pydoc(settings, note)
    return _open_path(Path(name), settings) if is_path(name) else _open_dataset(name, settings)


def _open_pydoc(settings: TextData, note: str = "") -> Corpus:
    """Open the half million characters of English documentation that CPython ships."""
    from pydoc_data.topics import topics

    pieces = ("\n".join(topics[name] for name in sorted(topics)).encode(),)
    ends = _part_ends(pieces, settings.validation_fraction, settings.test_fraction)
    return Corpus(OFFLINE_DATASET, OFFLINE_DATASET, pieces, ends, note)


def _open_path(path: Path, settings: TextData) -> Corpus:
    """Open a file, or all files of a folder and its sub-folders in the order of their paths, but hidden ones."""
    if not path.exists():
        raise UserError(f"data.source: there is no file or folder {path}")
    files: tuple[Path, ...] = (path,)
    if path.is_dir():
        inside = (file for file in path.rglob("*") if file.is_file())
        shown = (file for file in inside if not any(p.startswith(".") for p in file.relative_to(path).parts))
        files = tuple(sorted(shown))
    ends = _part_ends(files, settings.validation_fraction, settings.test_fraction)
    return Corpus(path.name, str(path.resolve()), files, ends)


def _open_dataset(name: str, settings: TextData) -> Corpus:
    """Open a TensorFlow dataset with a feature `text`, with the parts that it has.

    A missing validation or test part is taken from the end of the training part.
    """
    builder = open_builder(name)
    features, splits = builder.info.features, builder.info.splits
    if "text" not in features:
        raise UserError(
            f"data.source: a text dataset has a feature `text`. Received: {name} with {', '.join(features)}"
        )
    if "train" not in splits:
        raise UserError(
            f"data.source: {name} has no part `train`. Received: {', '.join(splits) or 'no part'}"
        )
    own = {part: b"\n\n".join(read_split(builder, part)["text"].tolist()) for part in PARTS if part in splits}
    train = own["train"]
    train_end, validation_end, _ = _part_ends(
        (train,),
        0 if "validation" in own else settings.validation_fraction,
        0 if "test" in own else settings.test_fraction,
    )
    validation = own.get("validation", train[train_end:validation_end])
    pieces = (train[:train_end], validation, own.get("test", train[validation_end:]))
    first, second, third = itertools.accumulate(map(len, pieces))
    return Corpus(name, name, pieces, (first, second, third))


def _part_ends(
    pieces: tuple[Piece, ...], validation_fraction: float, test_fraction: float
) -> tuple[int, int, int]:
    """Return where the parts of a text end, in bytes; each part starts with a whole character."""
    size = sum(map(_size, pieces))
    train_end = round(size * (1 - test_fraction - validation_fraction))
    validation_end = round(size * (1 - test_fraction))
    return _character_start(pieces, train_end), _character_start(pieces, validation_end), size


def _character_start(pieces: tuple[Piece, ...], position: int) -> int:
    """Return the first byte from a position on that does not continue a character (10xxxxxx)."""
    following = b"".join(content for _, _, content, _ in _read(pieces, position, position + 4))
    return position + next((at for at, byte in enumerate(following) if byte & 0xC0 != 0x80), len(following))
