"""Pages: charts and pictures, the report of a run, the comparison of runs."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recipes.__main__ import compare
from recipes.catalog import CATALOG
from recipes.compression.comparison import gain
from recipes.config import UserError, to_dict, with_settings
from recipes.report.charts import draw_confusion, draw_learning_curves, draw_trade_off
from recipes.report.page import Chart, Page, Picture, Table, Text, settings_table, write_page
from recipes.report.plots import drawn_names, plot_confusion, plot_learning_curves, plot_mistakes, shorten
from recipes.report.run_page import changed_settings, write_report
from recipes.runs.directory import Run
from recipes.runs.files import write_csv, write_json

ROWS = [
    {"epoch": e, "loss": 1 / e, "accuracy": 0.5, "validation_loss": 0.4, "learning_rate": 0.1} for e in (1, 2)
]
PROBABILITIES = np.array([[0.8, 0.1, 0.1]], np.float32)


def test_the_page_holds_all_and_asks_for_nothing_outside(tmp_path):
    plot_learning_curves(ROWS, "accuracy", 2, tmp_path / "curves.png")
    plot_confusion(np.eye(3, dtype=int), ("a", "b", "c"), tmp_path / "confusion.png")
    nothing = np.zeros((0, 28, 28, 1)), np.zeros(0, int), PROBABILITIES[:0]
    plot_mistakes(*nothing, ("a", "b", "c"), tmp_path / "none.png")
    pictures = [Picture(tmp_path / f"{name}.png", name) for name in ("curves", "confusion", "none")]
    for picture in pictures:
        with Image.open(picture.path) as image:
            assert min(image.size) > 100
    write_page(
        tmp_path / "page.html",
        "A <title>",
        "Take care",
        Page(
            {"accuracy": "99 %"},
            charts=[Chart(draw_learning_curves(ROWS, "accuracy", 2), "curves")],
            pictures=pictures,
            texts=[Text("a sample", "two\nlines & more")],
            tables=[Table("t", [{"x": 1}]), settings_table("All settings", {"a": {"b": 2}})],
        ),
    )
    page = (tmp_path / "page.html").read_text()
    assert page.count('<img src="data:image/png;base64,') == 3
    assert "A &lt;title&gt;" in page
    assert "Take care" in page
    assert "<pre>two\nlines &amp; more</pre>" in page
    assert "<details><summary>All settings</summary>" in page
    assert page.count("data-root-id") == 3
    assert page.count("prefers-color-scheme: dark") >= 1
    assert 1e6 < len(page) < 2e6  # Bokeh's script, once
    assert not re.search(r"""<(script|link|img|iframe)[^>]*(src|href)=["']?https?:""", page)


def test_a_page_without_charts_has_no_script(tmp_path):
    write_page(tmp_path / "page.html", "t", "", Page(tables=[Table("t", [{"x": 1}])]))
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "refresh" not in page
    write_page(tmp_path / "page.html", "t", "", Page(), reload_seconds=5)
    assert '<meta http-equiv="refresh" content="5">' in (tmp_path / "page.html").read_text()


def test_the_name_of_a_class_is_no_script(tmp_path):
    chart = draw_confusion(np.eye(2, dtype=int), ("</script><script>alert(1)</script>", "b"))
    write_page(tmp_path / "page.html", "t", "", Page(charts=[Chart([chart], "c")]))
    assert "<script>alert(1)" not in (tmp_path / "page.html").read_text()


def test_names_of_any_length_and_script_are_drawn(tmp_path):
    """Warnings, as of a missing glyph, are errors here. Dollar signs are no formula."""
    classes = ("手書き数字", "한글", "a name of a class that is very long indeed", "$x^$", "line\nbreak")
    plot_confusion(np.eye(5, dtype=int), classes, tmp_path / "confusion.png")
    images, labels = np.zeros((1, 28, 28, 1)), np.array([1])
    plot_mistakes(images, labels, np.array([[0.9, 0.1, 0, 0, 0]]), classes, tmp_path / "mistakes.png")
    names, _ = drawn_names(classes)
    assert names[2:] == ["a name of a class…", "$x^$", "line break"]
    assert names[0] in ("手書き数字", "class 0")  # where no font has it


def test_a_class_that_no_font_can_draw_has_its_number():
    names, _ = drawn_names(("zero", "\U000f1234"))  # for private use
    assert names == ["zero", "class 1"]


def test_a_long_name_is_shortened_to_18_characters():
    assert shorten("x" * 18) == "x" * 18
    assert shorten("x" * 19) == "x" * 17 + "…"


def test_a_confusion_matrix_has_counts_names_and_the_part_of_the_true_class():
    chart = draw_confusion(np.array([[3, 1], [0, 0]]), ("a", "b"))
    data = chart.select_one({"name": "cells"}).data_source.data
    assert data["true"] == ["a", "a", "b", "b"]
    assert data["predicted"] == ["a", "b", "a", "b"]
    assert data["count"].tolist() == [3, 1, 0, 0]
    assert data["alpha"].tolist() == [np.sqrt(0.75), 0.5, 0, 0]


def test_the_trade_off_counts_parameters_that_are_gone():
    rows = [
        {"step": 0, "kept": True, "nonzero_parameters": 200, "validation_loss": 1.0},
        {"step": 1, "kept": False, "nonzero_parameters": 50, "validation_loss": 1.5},
    ]
    data = draw_trade_off(rows, "validation_loss", 1.1).select_one({"name": "steps"}).data_source.data
    assert data["x"] == [0, 75]
    assert data["marker"] == ["circle", "x"]


@pytest.mark.parametrize(
    ("name", "old", "new", "times"),
    [
        ("examples_per_second", 1000, 500, 0.5),
        ("latency_ms", 1.0, 2.0, 0.5),
        ("latency_ms", 2.0, 1.0, 2.0),
        ("parameters", 100, 50, 2.0),
    ],
)
def test_a_slower_or_larger_model_is_below_1(name, old, new, times):
    assert gain(name, old, new) == times


def write_run(path: Path, settings=None, *, name="mnist-cnn", made_from=None, **metrics) -> Run:
    """Write what a finished run of a recipe has, except a model."""
    recipe = with_settings(CATALOG[name].recipe, settings or {})
    path.mkdir(parents=True)
    write_json(path / "config.json", {"recipe": name, **to_dict(recipe.resolved())})
    environment = {"started": "2026-11-24 12:00:00 +0000", "command": "python -m recipes train mnist-cnn"}
    write_json(path / "environment.json", environment | ({"made_from": made_from} if made_from else {}))
    write_csv(path / "history.csv", ROWS)
    sizes = {"parameters": 10, "epochs": 2, "best_epoch": 2, "train_seconds": 3.0, "dataset": "digits"}
    write_json(path / "metrics.json", {"recipe": name, **sizes, "test_loss": 0.5, **metrics})
    return Run(path)


def report_of(run: Run) -> str:
    """Return the text of a run's report, without its scripts."""
    write_report(run, "a title", run.metrics, Page(), plotted_metric="accuracy", served=True)
    return re.sub(r"<script.*?</script>", "", (run.path / "report.html").read_text(), flags=re.DOTALL)


def test_settings_that_differ_from_the_recipes_come_first(tmp_path):
    run = write_run(tmp_path / "run", {"training": {"epochs": 2}, "model": {"dropout": 0.1}})
    assert changed_settings(run) == [
        {"setting": "model.dropout", "this run": 0.1, "the recipe": 0.4},
        {"setting": "training.epochs", "this run": 2, "the recipe": 12},
    ]
    report = report_of(run)
    assert report.index("Settings that differ") < report.index("All settings")
    assert "99.57 ± 0.06 % of MNIST" in report
    assert "This run has 2 other settings" in report


def test_a_run_of_the_recipes_own_settings_says_so(tmp_path):
    run = write_run(tmp_path / "run")
    assert changed_settings(run) == []
    assert "This run has the same settings." in report_of(run)


def test_a_run_on_the_offline_sample_is_not_compared(tmp_path):
    report = report_of(write_run(tmp_path / "run", note="NOT MNIST"))
    assert 'role="alert">NOT MNIST' in report
    assert "This run has other data" in report


def test_the_report_says_when_and_how_the_run_began_and_which_commands_use_it(tmp_path):
    report = report_of(write_run(tmp_path / "run"))
    assert "2026-11-24 12:00:00 +0000" in report
    assert "python -m recipes train mnist-cnn" in report
    assert f"-m recipes evaluate {tmp_path / 'run'}" in report
    assert f"-m serving export {tmp_path / 'run'}" in report
    assert "recipes generate" not in report  # no vocabulary


def test_the_report_says_why_validation_is_better(tmp_path):
    """Training loss 0.5, validation loss 0.4 in the epoch that was kept."""
    report = report_of(write_run(tmp_path / "run"))
    assert (
        "augmentation (rotate, scale, shift), dropout of 0.4, weights that change during the epoch" in report
    )
    still = {"augmentation": {"end_fraction": 0.5}, "training": {"epochs": 2}, "regularization": {"l1": 0.1}}
    report = report_of(write_run(tmp_path / "still", still))
    assert "measured with dropout of 0.4, the L1 penalty, weights that change" in report


def test_the_report_of_a_pruned_run_says_that_it_is_one(tmp_path):
    report = report_of(write_run(tmp_path / "run", made_from={"run": "runs/dense", "structure": "units"}))
    assert "<h1>a title, pruned</h1>" in report
    assert "Pruned from runs/dense." in report
    assert "is not of the recipe&#39;s own training" in report


def test_compare_writes_curves_metrics_and_settings_side_by_side(tmp_path, capsys):
    runs = [
        write_run(tmp_path / "a", test_accuracy=0.5),
        write_run(tmp_path / "b", {"training": {"epochs": 3}}, test_accuracy=0.75, note="NOT MNIST"),
    ]
    out = tmp_path / "new" / "page.html"
    compare([*(str(run.path) for run in runs), "--out", str(out)])
    assert capsys.readouterr().out == f"{out}\n"
    page = re.sub(r"\s*<", "<", out.read_text())
    assert "Comparison of a, b" in page
    assert "NOT MNIST" in page
    assert "<tr><td>test accuracy</td><td>0.5</td><td>0.75</td></tr>" in page
    differ = page.split("Settings that differ")[1].split("All settings")[0]
    assert re.findall("<tr><td>.*?</tr>", differ) == [
        "<tr><td>training.epochs</td><td>12</td><td>3</td></tr>"
    ]
    assert page.count("data-root-id") == 3  # validation loss, loss, learning rate


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for folder in ("a", "b"):
        write_run(tmp_path / folder / "run")
    compare([str(tmp_path / "a/run"), str(tmp_path / "b/run"), "--out", str(tmp_path / "page.html")])
    assert "Comparison of a/run, b/run" in (tmp_path / "page.html").read_text()


def test_what_cannot_be_compared_is_a_line(tmp_path):
    whole, unfinished, bare = (write_run(tmp_path / name) for name in ("whole", "unfinished", "bare"))
    (unfinished.path / "metrics.json").unlink()
    (bare.path / "history.csv").unlink()
    for runs, message in (
        ([whole], "two runs or more. Received: .*whole"),
        ([], "two runs or more. Received: none"),
        ([whole, unfinished], "unfinished is not a finished run"),
        ([whole, bare], r"bare has no epochs in history\.csv"),
        ([whole, whole], "compared with itself"),
    ):
        with pytest.raises(UserError, match=message):
            compare([*(str(run.path) for run in runs), "--out", str(tmp_path / "page.html")])
    assert not (tmp_path / "page.html").exists()
    assert json.loads((whole.path / "metrics.json").read_text())["test_loss"] == 0.5
