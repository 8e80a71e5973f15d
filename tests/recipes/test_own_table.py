"""A user's own CSV file: numbers, categories and missing values; regression and classification."""

import csv

import keras
import numpy as np
import pytest

from recipes.catalog import CATALOG
from recipes.config import TableData, UserError, from_dict, to_dict
from recipes.data.table import Column, load_table
from recipes.models.table import EncodeColumns
from recipes.tasks import task_of, task_of_run
from recipes.training.losses import squared_error

ROWS = 400


def write(path, header, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    """The price is 3 times the area, and 100 more in 北京; every twentieth area and city is missing."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(ROWS):
        area, city, garden = (
            random.uniform(10, 100),
            random.choice(["Oslo", "北京"]),
            bool(random.integers(2)),
        )
        price = 3 * area + 100 * (city == "北京") + 20 * garden
        shown_area = "" if number % 20 == 0 else f"{area:.3f}"
        rows.append(
            [shown_area, "" if number % 20 == 1 else city, garden, f"house {number}", "x", f"{price:.3f}"]
        )
    return write(
        tmp_path_factory.mktemp("data") / "houses.csv",
        ["area", "city", "garden", "name", "country", "price"],
        rows,
    )


def trained(source, path, epochs=60, **data):
    recipe = to_dict(CATALOG["table-mlp"].recipe)
    recipe["data"] |= {"source": str(source), **data}
    recipe["training"] |= {"epochs": epochs}
    return task_of("table-mlp", from_dict(type(CATALOG["table-mlp"].recipe), recipe)).train(path)


def test_columns_are_found_and_encoded(houses):
    table = load_table(TableData(source=str(houses)))
    assert table.schema.target == Column("price")
    assert table.schema.columns == (
        Column("area", missing=True),
        Column("city", ("Oslo", "北京"), missing=True),
        Column("garden", ("False", "True")),
    )
    assert (
        table.note
        == "column name is left out: it has 280 different texts; column country is left out: it has a single value"
    )
    assert [len(part) for part in (table.train, table.validation, table.test)] == [280, 60, 60]
    features = np.concatenate([part.features for part in (table.train, table.validation, table.test)])
    assert np.isnan(features[:, 0]).sum() == ROWS / 20
    assert {int(place) for place in features[:, 1]} == {0, 1, 2}
    assert (features[:, 1] == 0).sum() == ROWS / 20
    assert {int(place) for place in features[:, 2]} == {1, 2}


def test_numbers_are_standardized_missing_ones_marked_and_categories_one_hot():
    layer = EncodeColumns([2, 0, 5], [4, 0, 1], categories=[0, 2, 0], missing=[True, True, False])
    rows = np.float32([[4, 1, 5], [np.nan, 0, 7]])
    expected = [[1, 0, 0, 1, 0, 0], [0, 1, 1, 0, 0, 2]]
    assert np.asarray(layer(rows)).tolist() == expected
    again = EncodeColumns.from_config(layer.get_config())
    assert np.asarray(again(rows)).tolist() == expected


def test_a_regression_is_trained_scored_and_reloaded(houses, tmp_path):
    run = trained(houses, tmp_path / "run")
    assert run.metrics["test_r2"] > 0.85  # some areas and cities are missing; the mean price has 0
    assert task_of_run(run).evaluate()["test_mae"] == pytest.approx(run.metrics["test_mae"], rel=1e-4)
    assert run.metrics["target"]["name"] == "price"
    assert [column["name"] for column in run.metrics["columns"]] == ["area", "city", "garden"]
    assert keras.models.load_model(run.model_path).predict(np.float32([[50, 2, 2]]), verbose=0).shape == (
        1,
        1,
    )


def test_another_table_is_scored_as_a_whole_by_the_columns_of_the_model(houses, tmp_path):
    run = trained(houses, tmp_path / "run", epochs=2)
    other = write(
        tmp_path / "other.csv",
        ["price", "garden", "city", "area"],
        [[100, True, "Rome", ""], [90, False, "Oslo", 30]],
    )
    assert task_of_run(run, str(other)).evaluate()["examples"] == 2
    without = write(tmp_path / "without.csv", ["price", "area"], [[100, 20], [90, 30]])
    with pytest.raises(UserError, match="lacks columns that the model reads: city, garden"):
        task_of_run(run, str(without)).evaluate()


@pytest.fixture
def flowers(tmp_path):
    """The class is the sign of x; the target's values are whole numbers, the separator is a semicolon."""
    random = np.random.default_rng(1)
    xs = random.normal(size=200)
    return write(
        tmp_path / "flowers.csv", ["x", "kind"], [[f"{x:.5f}", int(x > 0)] for x in xs], delimiter=";"
    )


def test_whole_numbers_of_few_values_and_texts_are_classes(flowers, tmp_path):
    table = load_table(TableData(source=str(flowers)))
    assert table.schema.target.categories == ("0", "1")
    parts = (table.train, table.validation, table.test)
    assert sum(map(len, parts)) == 200
    assert all(set(part.targets) == {0, 1} for part in parts)
    run = trained(flowers, tmp_path / "run", target="kind")
    assert run.metrics["test_accuracy"] > 0.9
    assert {"test_precision", "test_recall", "test_f1", "test_loss"} <= run.metrics.keys()
    assert (run.plots / "confusion_matrix.png").exists()
    number = load_table(TableData(source=str(flowers), target_type="number"))
    assert number.schema.target == Column("kind")
    assert load_table(TableData(source=str(flowers), target="x")).schema.target == Column("x")


def test_the_loss_of_a_teacher_fits_the_target(houses, flowers):
    tasks = [
        task_of("table-mlp", from_dict(type(CATALOG["table-mlp"].recipe), {"data": {"source": str(source)}}))
        for source in (houses, flowers)
    ]
    for task in tasks:
        task.load()
    assert tasks[0].divergence() is squared_error
    assert tasks[1].divergence() is not squared_error


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (None, {}, "there is no file"),
        (b"\xff\xfe\x00", {}, "not a valid CSV file in UTF-8"),
        (b"", {}, "not a valid CSV file in UTF-8"),
        (b"a\n1\n", {}, "at least two columns"),
        (b"a,b\n" + b"1,2\n" * 30, {"target": "c"}, "data.target"),
        (b"a,b\n1,2\n2,3\n", {"target_type": "number"}, "too few rows"),
        (b"a,b\n" + b"1,x\n2,y\n" * 30, {"target_type": "number"}, "not a column of numbers"),
        (b"a,b\n" + b"1,x\n2,x\n" * 30, {}, "at least two values"),
        (b"a,b\n" + b"1,x\n1,y\n" * 30, {}, "no column to predict from: column a is left out"),
        (b"a,b\n1,x\n2,y\n3,y\n4,y\n", {}, "class 'x' has one example"),
    ],
)
def test_an_invalid_table_is_refused(tmp_path, content, settings, message):
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_table(TableData(source=str(path), **settings))
