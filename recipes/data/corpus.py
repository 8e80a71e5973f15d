"""Text of any size, as bytes in order: where it comes from, and where its three parts begin."""

import codecs
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recipes.config import TextData, UserError
from recipes.data.datasets import is_known, open_builder, prepared_folder, reachable, read_split

DEFAULT_DATASET = "tiny_shakespeare"
OFFLINE_DATASET = "pydoc"
CHUNK_BYTES = 2**22
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Corpus:
    """UTF-8 text in pieces, cut into a training, a validation and a test part, in this order.

    Attributes:
        name: What to call it: "tiny_shakespeare", "pydoc", a file's or folder's name.
        origin: The value of `--data.source` that gives it again: a name or an absolute path.
        pieces: Files, or text that is in memory.
        ends: Where each part ends, in bytes from the beginning.
        note: What whoever reads a result must know.
    """

    name: str
    origin: str
    pieces: tuple[bytes | Path, ...] = field(repr=False)
    ends: tuple[int, int, int]
    note: str = ""

    def fingerprint(self) -> str:
        """Return a short hash of the text and its parts."""
        digest = hashlib.blake2b(repr(self.ends).encode(), digest_size=16)
        for _, _, content in self._read(0, self.ends[-1]):
            digest.update(content)
        return digest.hexdigest()

    def text(self, part: int | None = None) -> Iterator[str]:
        """Yield the text of a part (None: of all) in chunks of some 4 MB that end with a line where they can.

        Raises:
            UserError: Bytes that are no UTF-8, with file and offset.
        """
        start = 0 if part in (None, 0) else self.ends[part - 1]
        stop = self.ends[-1] if part is None else self.ends[part]
        decoder, rest, reading = codecs.getincrementaldecoder("utf-8")(), "", 0
        for piece, offset, content in self._read(start, stop):
            if piece is not reading and decoder.getstate()[0]:
                raise _no_utf8(self.pieces[reading], "its end")
            reading, waiting = piece, len(decoder.getstate()[0])
            try:
                text = rest + decoder.decode(content)
            except UnicodeDecodeError as error:
                raise _no_utf8(self.pieces[piece], f"byte {offset - waiting + error.start}") from None
            line_end = text.rfind("\n") + 1
            complete, rest = (text[:line_end], text[line_end:]) if line_end else ("", text)
            if len(rest) > CHUNK_BYTES:
                complete, rest = complete + rest, ""
            if complete:
                yield complete
        if decoder.getstate()[0]:
            raise _no_utf8(self.pieces[reading], "its end")
        if rest:
            yield rest

    def _read(self, start: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield (piece, offset in the piece, bytes) from start to stop."""
        begin = 0
        for number, piece in enumerate(self.pieces):
            size = _size(piece)
            low, high = max(start - begin, 0), min(stop - begin, size)
            if low < high:
                yield from ((number, offset, content) for offset, content in _chunks(piece, low, high))
            begin += size


def _size(piece: bytes | Path) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.stat().st_size


def _chunks(piece: bytes | Path, low: int, high: int) -> Iterator[tuple[int, bytes]]:
    if isinstance(piece, bytes):
        yield low, piece[low:high]
        return
    with piece.open("rb") as file:
        file.seek(low)
        for offset in range(low, high, CHUNK_BYTES):
            yield offset, file.read(min(CHUNK_BYTES, high - offset))


def _no_utf8(piece: bytes | Path, where: str) -> UserError:
    name = piece if isinstance(piece, Path) else "the text"
    return UserError(f"data.source: {name} is not UTF-8 at {where}")


def open_corpus(settings: TextData) -> Corpus:
    """Open `auto`, `pydoc`, a TensorFlow Datasets name or a path.

    A file here that is called like a dataset is meant by `./NAME`, the dataset by NAME.

    Raises:
        UserError: A source that is not there, or holds no text.
    """
    name = settings.source
    if name == "auto":
        return _open_default(settings)
    if name == OFFLINE_DATASET:
        return _open_pydoc(settings)
    path = Path(name)
    if "/" in name or path.suffix == ".txt" or (path.exists() and not is_known(name)):
        return _open_path(path, settings)
    return _open_tfds(name, settings)


def _open_default(settings: TextData) -> Corpus:
    """Open tiny Shakespeare where it can be had, else the offline text with a note that says so."""
    reason = "it is not prepared here and its host did not answer"
    if prepared_folder(DEFAULT_DATASET) is not None or reachable(DEFAULT_DATASET):
        try:
            return _open_tfds(DEFAULT_DATASET, settings)
        except UserError as error:
            reason = str(error)
    note = (
        f"This is NOT tiny Shakespeare ({reason}): Python's own help texts stand in for it. "
        "Results do not compare with tiny Shakespeare's."
    )
    return _open_pydoc(settings, note)


def _open_pydoc(settings: TextData, note: str = "") -> Corpus:
    """Open the half million characters of English documentation that CPython ships."""
    from pydoc_data.topics import topics

    content = "\n".join(topics[name] for name in sorted(topics)).encode()
    return _cut(OFFLINE_DATASET, OFFLINE_DATASET, (content,), settings, note)


def _open_path(path: Path, settings: TextData) -> Corpus:
    """Open a file, or all files of a folder and its sub-folders in the order of their paths."""
    if not path.exists():
        raise UserError(f"data.source: there is no file or folder {path}")
    files: tuple[Path, ...] = (path,)
    if path.is_dir():
        inside = (file for file in path.rglob("*") if file.is_file())
        shown = (file for file in inside if not any(p.startswith(".") for p in file.relative_to(path).parts))
        files = tuple(sorted(shown))
    return _cut(path.name, str(path.resolve()), files, settings)


def _open_tfds(name: str, settings: TextData) -> Corpus:
    """Open a TensorFlow dataset with a text feature; the parts it has stay what they are.

    A validation or test part that it lacks is cut off the end of its training part.
    """
    builder = open_builder(name)
    if "text" not in builder.info.features:
        raise UserError(
            f"data.source: {name} is no text dataset: it has no feature `text`. "
            f"Received: {', '.join(builder.info.features)}"
        )
    parts = [part for part in PARTS if part in builder.info.splits]
    if "train" not in parts:
        raise UserError(
            f"data.source: {name} has no part `train`. Received: {', '.join(builder.info.splits) or 'no part'}"
        )
    own = {part: b"\n\n".join(read_split(builder, part)["text"].tolist()) for part in parts}
    train = own.pop("train")
    ends = _cut(name, name, (train,), settings, lacking=[part for part in PARTS[1:] if part not in own]).ends
    cut = zip(PARTS, (0, *ends[:-1]), ends, strict=True)
    contents = tuple(own.get(part, train[start:end]) for part, start, end in cut)
    first, second, third = (len(content) for content in contents)
    return Corpus(name, name, contents, (first, first + second, first + second + third))


def _cut(
    name: str,
    origin: str,
    pieces: tuple[bytes | Path, ...],
    settings: TextData,
    note: str = "",
    lacking: Sequence[str] = PARTS[1:],
) -> Corpus:
    """Cut text into parts by their fractions, each beginning with a whole character.

    Only the lacking parts are cut off the training part; another one is left empty.
    """
    size = sum(map(_size, pieces))
    if not size:
        raise UserError(f"data.source: there is no text in {origin}")
    uncut = Corpus(name, origin, pieces, (size, size, size), note)
    validation = settings.validation_fraction if "validation" in lacking else 0
    test = settings.test_fraction if "test" in lacking else 0
    ends = (round(size * (1 - test - validation)), round(size * (1 - test)), size)
    first, second, third = (_character_start(uncut, end) for end in ends)
    return Corpus(name, origin, pieces, (first, second, third), note)


def _character_start(corpus: Corpus, position: int) -> int:
    """Return the first byte from a position on that does not continue a character (10xxxxxx)."""
    following = b"".join(content for _, _, content in corpus._read(position, position + 4))
    return position + next((at for at, byte in enumerate(following) if byte & 0xC0 != 0x80), len(following))
