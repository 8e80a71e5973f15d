"""Tables: scikit-learn's diabetes data, or a CSV file with numbers, categories and missing values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from recipes.config import TableData, UserError, nearest
from recipes.data.examples import fingerprint, stratified_part

SAMPLE = "diabetes"
MOST_CATEGORIES = 100
"""A column of text with more values in the training part is left out: names, dates, free text."""
MOST_CLASSES_OF_NUMBERS = 10
"""A target of whole numbers with more values is a number, not a class."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name in the first line of the file.
        categories: Its values, sorted, if it has categories; empty for numbers.
        missing: Whether values may be missing.
    """

    name: str
    categories: tuple[str, ...] = ()
    missing: bool = False

    def encode(self, values: "pd.Series[Any]") -> npt.NDArray[np.float32]:
        """Return numbers, NaN where one is missing, or the places of categories from 1, 0 for any other value."""
        if not self.categories:
            numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float32)
            return np.where(np.isfinite(numbers), numbers, np.float32(np.nan))
        places = {name: place for place, name in enumerate(self.categories, 1)}
        return np.array([0 if text is None else places.get(text, 0) for text in _texts(values)], np.float32)


@dataclass(frozen=True)
class Schema:
    """The columns that a network reads, and the one that it predicts; a class if that has categories."""

    columns: tuple[Column, ...]
    target: Column

    def record(self) -> dict[str, Any]:
        """Return it for metrics.json."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the schema that a run recorded."""
        columns, target = (
            [Column(each["name"], tuple(each["categories"]), each["missing"]) for each in some]
            for some in (record["columns"], [record["target"]])
        )
        return cls(tuple(columns), target[0])


@dataclass(frozen=True)
class Rows:
    """Rows of a table.

    Attributes:
        features: (n, columns) float32: numbers, NaN where one is missing; categories as their places from 1, 0 where
            one is missing or unknown.
        targets: (n, 1) float32 numbers, or (n,) int64 class numbers.
    """

    features: npt.NDArray[np.float32]
    targets: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Table:
    """A table, split.

    Attributes:
        name: Name of the dataset.
        data_source: The value of `--data.source` that loads it again.
        schema: Its columns.
        train, validation, test: Its parts.
        note: What a reader of the results must know, such as which columns are left out.
    """

    name: str
    data_source: str
    schema: Schema
    train: Rows = field(repr=False)
    validation: Rows = field(repr=False)
    test: Rows = field(repr=False)
    note: str = ""

    def fingerprint(self) -> str:
        """Return a short hash of the training part."""
        return fingerprint(self.train.features, self.train.targets)


def load_table(settings: TableData, schema: Schema | None = None, trained_on: str | None = None) -> Table:
    """Load a table and split it; the same settings give the same parts.

    Args:
        settings: The source, the target, and how it is split.
        schema: The columns of the model to be scored; None to find them in the training part.
        trained_on: `data_source` of the table that this model was trained on. All rows of another table are the
            test part.

    Raises:
        UserError: A file that is not found or not valid, an unknown column, or too few rows.
    """
    if settings.source in (SAMPLE, "auto"):
        return _load_sample(settings)
    path = Path(settings.source)
    frame, notes = read_csv(path), []
    name = target_of(settings, frame, schema)
    target = schema.target if schema else _target(name, frame[name], settings)
    targets, known = _targets(target, frame[name])
    if not known.all():
        notes.append(f"{(~known).sum():,} of {len(known):,} rows have no valid {name} and are left out")
    frame, targets = frame[known].drop(columns=name), targets[known]
    if trained_on in (None, str(path.resolve())):
        parts = _split(targets, target, settings)
    else:
        parts = np.empty(0, np.int64), np.empty(0, np.int64), np.arange(len(targets))
    if schema is None:
        columns, left_out = _columns(frame, parts[0])
        notes += left_out
        schema = Schema(columns, target)
    features = _encode(schema.columns, frame, path)
    train, validation, test = (Rows(features[part], targets[part]) for part in parts)
    return Table(path.stem, str(path.resolve()), schema, train, validation, test, note="; ".join(notes))


def target_of(settings: TableData, frame: pd.DataFrame, schema: Schema | None = None) -> str:
    """Return the name of the column to predict: that of the schema or the settings, else the last one.

    Raises:
        UserError: There is no such column.
    """
    name = schema.target.name if schema else settings.target or str(frame.columns[-1])
    if name not in frame:
        raise UserError(
            f"data.target: {settings.source} has no such column. {nearest(name, map(str, frame.columns))}"
        )
    return name


def read_csv(path: Path, rows: int | None = None) -> pd.DataFrame:
    """Read the first rows (None: all) of a CSV file in UTF-8 with commas, semicolons or tabs, whose first line names
    the columns.

    Raises:
        UserError: A file that is not found or not valid, or has fewer than two columns.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        frame = pd.read_csv(
            path, sep=max(",;\t", key=header.count), encoding="utf-8-sig", skipinitialspace=True, nrows=rows
        )
    except FileNotFoundError as error:
        raise UserError(f"data.source: there is no file {path}; {SAMPLE} is the offline sample") from error
    except (OSError, ValueError) as error:  # pandas's errors and UnicodeDecodeError are ValueErrors
        raise UserError(f"data.source: {path} is not a valid CSV file in UTF-8: {error}") from error
    if len(frame.columns) < 2:
        raise UserError(
            f"data.source: {path} must have at least two columns. Received: {list(frame.columns)}"
        )
    return frame


def _load_sample(settings: TableData) -> Table:
    """Load scikit-learn's diabetes data in their own units."""
    from sklearn.datasets import load_diabetes

    if settings.target is not None or settings.target_type == "category":
        raise UserError(
            f"data.target and data.target_type are for CSV files. Received: data.source={settings.source!r}"
        )
    table = load_diabetes(scaled=False)
    features = table.data.astype(np.float32)
    targets = table.target.astype(np.float32)[:, np.newaxis]
    schema = Schema(tuple(Column(name) for name in table.feature_names), Column("progression"))
    train, validation, test = (
        Rows(features[part], targets[part]) for part in _split(targets, schema.target, settings)
    )
    return Table(SAMPLE, SAMPLE, schema, train, validation, test)


def _split(
    targets: npt.NDArray[Any], target: Column, settings: TableData
) -> tuple[npt.NDArray[np.int64], ...]:
    """Return the numbers of the training, validation and test rows; each has every class."""
    random = np.random.default_rng(settings.split_seed)
    if target.categories:
        rest = np.arange(len(targets))
        parts = []
        for fraction in (settings.test_fraction, settings.validation_fraction / (1 - settings.test_fraction)):
            chosen = stratified_part(targets[rest], fraction, random, target.categories)
            parts.append(rest[chosen])
            rest = rest[~chosen]
        test, validation = parts
    else:
        ends = np.cumsum(
            [round(part * len(targets)) for part in (settings.test_fraction, settings.validation_fraction)]
        )
        test, validation, rest = np.split(random.permutation(len(targets)), ends)
    if min(len(rest), len(validation), len(test)) == 0:
        raise UserError(
            f"data.source: too few rows for a training, a validation and a test part. Received: {len(targets)}"
        )
    return rest, validation, test


def _target(name: str, values: "pd.Series[Any]", settings: TableData) -> Column:
    """Return the column to predict, with its classes if it is one of categories."""
    number, distinct = _is_number(values), values.dropna().unique()
    if settings.target_type == "number" and not number:
        raise UserError(f"data.target: {name} is not a column of numbers: choose data.target_type category")
    few = number and len(distinct) <= MOST_CLASSES_OF_NUMBERS and all(distinct % 1 == 0)
    if settings.target_type == "number" or (settings.target_type == "auto" and number and not few):
        return Column(name)
    classes = tuple(filter(None, _texts(pd.Series(sorted(distinct)))))
    if len(classes) < 2:
        raise UserError(f"data.target: {name} must have at least two values. Received: {list(classes)}")
    return Column(name, classes)


def _targets(target: Column, values: "pd.Series[Any]") -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return the targets of all rows, and which of them are known."""
    encoded = target.encode(values)
    if target.categories:
        return encoded.astype(np.int64) - 1, encoded > 0
    return encoded[:, np.newaxis], np.isfinite(encoded)


def _texts(values: "pd.Series[Any]") -> list[str | None]:
    """Return values as text, None where one is missing; whole numbers have no fraction."""
    whole = (int(value) if isinstance(value, float) and value.is_integer() else value for value in values)
    return [None if pd.isna(value) else str(value).strip() for value in whole]


def _is_number(values: "pd.Series[Any]") -> bool:
    return is_numeric_dtype(values) and not is_bool_dtype(values)


def _columns(frame: pd.DataFrame, train: npt.NDArray[np.int64]) -> tuple[tuple[Column, ...], list[str]]:
    """Return the columns that a network can read, and why others are left out."""
    columns, left_out = [], []
    for name, values in frame.items():
        categories = () if _is_number(values) else _categories(values.iloc[train])
        missing = bool(values.replace([np.inf, -np.inf], np.nan).isna().any())
        column = Column(str(name), categories, missing)
        distinct = len(
            np.unique(column.encode(values.iloc[train]))
        )  # NaN and a missing category count as a value
        if distinct < 2:
            left_out.append(f"column {name} is left out: it has a single value")
        elif len(categories) > MOST_CATEGORIES:
            left_out.append(f"column {name} is left out: it has {len(categories):,} different texts")
        else:
            columns.append(column)
    if not columns:
        raise UserError(f"data.source: there is no column to predict from: {'; '.join(left_out)}")
    return tuple(columns), left_out


def _categories(values: "pd.Series[Any]") -> tuple[str, ...]:
    return tuple(sorted({text for text in _texts(values) if text is not None}))


def _encode(columns: Sequence[Column], frame: pd.DataFrame, path: Path) -> npt.NDArray[np.float32]:
    """Return the features of all rows, (n, columns)."""
    missing = [column.name for column in columns if column.name not in frame]
    if missing:
        raise UserError(f"data.source: {path} lacks columns that the model reads: {', '.join(missing)}")
    features = np.stack([column.encode(frame[column.name]) for column in columns], axis=1)
    for column, values in zip(columns, features.T, strict=True):
        if np.isnan(values).any() and not column.missing:
            raise UserError(
                f"data.source: {path} has rows without a number in column {column.name}, and the model was trained "
                f"on a table without such rows. Received: {np.isnan(values).sum():,} rows"
            )
    return features
