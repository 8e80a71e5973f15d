import csv
import html
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from recipes.runs.recipe_lookup import read_settings
from tests.tuning.conftest import bowl, plan_of
from tests.tuning.test_callbacks import write_run
from tuning.directory import SearchDirectory
from tuning.report.charts import better_values, draw_best_so_far, draw_parallel_coordinates
from tuning.report.importance import importance
from tuning.report.page import remarks, write_report, write_tables
from tuning.training import write_hparams
from tuning.trial import Trial, best_trial


def trials_of(plan, count, seed=0):
    random = np.random.default_rng(seed)
    for number in range(count):
        values = {
            "training.batch_size": int(random.choice([32, 64, 128])),
            "optimizer.learning_rate": float(10 ** random.uniform(-4, -2)),
        }
        yield Trial(number=number, values=values, status="finished", value=bowl(values), ended=2e9)


@pytest.fixture
def searched(make_directory) -> SearchDirectory:
    """Give a search of eight finished trials, a failed one and a stopped one."""
    directory = make_directory(plan_of())
    for trial in trials_of(plan_of(), 8):
        write_run(directory, trial.number, [trial.value - 0.1, trial.value])
        directory.write_trial(trial)
    values = {"training.batch_size": 32, "optimizer.learning_rate": 0.01}
    write_run(directory, 9, [0.1])
    directory.write_trial(
        Trial(number=9, values=values, status="stopped", value=0.1, reason="0.1 < 0.5", saved_seconds=3.5)
    )
    directory.write_trial(Trial(number=8, values=values, status="failed", reason="loss is NaN in epoch 1"))
    return directory


def test_the_table_has_a_row_for_each_trial_and_the_best_settings_can_be_trained(searched):
    best = write_tables(searched)
    rows = list(csv.DictReader((searched.path / "trials.csv").read_text().splitlines()))
    assert [row["trial"] for row in rows] == [str(number) for number in range(10)]
    assert rows[8]["reason"] == "loss is NaN in epoch 1"
    assert rows[8]["validation_accuracy"] == ""
    assert float(rows[9]["saved_seconds"]) == 3.5
    top = max(rows[:8], key=lambda row: float(row["validation_accuracy"]))
    assert int(top["trial"]) == best.number
    recipe = read_settings("mnist-mlp", searched.best_path)
    assert recipe.optimizer.learning_rate == float(top["optimizer.learning_rate"])
    assert recipe.training.batch_size == int(top["training.batch_size"])
    assert recipe.early_stopping.metric == "validation_accuracy"
    assert json.loads(searched.best_path.read_text())["recipe"] == "mnist-mlp"


def test_the_best_trial_is_a_finished_one_if_there_is_one(searched):
    """A stopped trial's value may be of weights that no finished trial could keep."""
    finished = write_tables(searched)
    stopped = replace(searched.read_trial(9), value=0.9999)
    searched.write_trial(stopped)
    assert write_tables(searched) == finished
    write_report(searched)
    table = searched.report_path.read_text().split("Trials, best first")[1]
    rows = re.findall(r"<tr><td>(\d+)</td><td>(\w+)</td>", re.sub(r">\s+<", "><", table))
    assert rows[0] == (str(finished.number), "finished")
    assert rows[8] == ("9", "stopped")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_a_failure_in_searches_of_older_versions_too(searched, bad):
    before = write_tables(searched)
    for number in (3, 9):
        searched.write_trial(replace(searched.read_trial(number), value=bad))
    best = write_tables(searched)
    assert best == before
    write_report(searched)
    rows = list(csv.DictReader((searched.path / "trials.csv").read_text().splitlines()))
    assert [row["status"] for row in rows].count("failed") == 3
    assert rows[3]["validation_accuracy"] == ""
    assert f"became {bad}" in searched.report_path.read_text()


def test_the_report_states_the_baseline_the_edges_and_the_length_of_the_best_trial(searched):
    """Recipe: batches of 64 at a learning rate of 0.001, searched from 16 to 256 and 0.0001 to 0.01."""

    def said(*trials):
        for trial in trials:
            searched.write_trial(trial)
        found = searched.trials()
        return " ".join(remarks(plan_of(), found, write_tables(searched)))

    own = {"training.batch_size": 64, "optimizer.learning_rate": 0.001}
    best = replace(searched.read_trial(0), values={**own, "training.batch_size": 128}, value=0.9991)
    assert "No finished trial had the recipe's own settings: trial 0 may be no better." in said(best)
    rounded = {**own, "optimizer.learning_rate": float(np.float32(0.001))}  # by keras-tuner's service
    stopped = replace(searched.read_trial(1), values=rounded, status="stopped", value=0.9)
    assert "No finished trial had the recipe's own settings" in said(stopped)
    assert "The recipe's own settings reached 0.9 in trial 1." in said(replace(stopped, status="finished"))
    assert "edge" not in said()
    assert "No trial was better than the recipe's own settings." in said(
        replace(stopped, status="finished", value=best.value)
    )
    edge = replace(best, values={"training.batch_size": 256, "optimizer.learning_rate": 0.0095}, value=0.9995)
    text = said(edge)
    assert "training.batch_size 256 is at the edge of the search space, 16, 32, 64, 128, 256." in text
    assert "optimizer.learning_rate 0.0095 is at the edge of the search space, 0.0001 to 0.01." in text
    assert "The trials had 2 epochs; best.json is for the recipe's own 20." in text
    write_report(searched)
    page = html.unescape(searched.report_path.read_text())
    assert all(sentence in page for sentence in text.split(". ")[:-1])


def test_best_json_trains_for_the_recipes_own_length(searched):
    """The search's trials had two epochs."""
    write_tables(searched)
    assert read_settings("mnist-mlp", searched.best_path).training.epochs == 20


def test_the_report_holds_its_charts_and_every_trial(searched):
    write_report(searched)
    page = searched.report_path.read_text()
    assert page.count("data-root-id") == 5
    for words in ("loss is NaN in epoch 1", "1 failed", "8 finished", "1 stopped", "4 s"):
        assert words in page


def test_the_report_of_a_running_search_reloads_itself(searched):
    write_report(searched, running=True)
    assert '<meta http-equiv="refresh" content="10">' in searched.report_path.read_text()
    write_report(searched)
    assert "http-equiv" not in searched.report_path.read_text()


def test_trials_off_the_axis_are_drawn_at_its_edge(searched):
    """Trial 9 has 0.1, the others more than 0.7."""
    trials = searched.trials()
    chart = draw_best_so_far(searched, trials)
    data = chart.select_one({"name": "trials"}).data_source.data
    low = better_values(searched.plan, trials, margin=0.3)[0]
    place = data["trial"].index(9)
    assert data["y"][place] == low
    assert chart.y_range.start < low
    assert data["value"][place] == "0.1"
    assert min(data["y"][:place] + data["y"][place + 1 :]) >= low


def test_every_axis_of_the_settings_has_numbers(searched):
    chart = draw_parallel_coordinates(searched, searched.trials())
    texts = [each.data_source.data["text"] for each in chart.renderers if "text" in each.data_source.data]
    assert texts[:2] == [
        ["16", "32", "64", "128", "256"],
        ["0.0001", "0.0003162", "0.001", "0.003162", "0.01"],
    ]
    assert len(texts[2]) == 5


def test_the_reason_is_in_a_short_row(searched):
    write_report(searched)
    names = re.findall(r'<th scope="col">(.*?)</th>', searched.report_path.read_text())[:8]
    assert names == [
        "trial", "status", "validation accuracy", "batch size", "learning rate", "epochs", "seconds", "reason",
    ]  # fmt: skip


def test_a_search_of_one_trial_has_a_report_too(make_directory):
    directory = make_directory(plan_of())
    trial = next(trials_of(plan_of(), 1))
    write_run(directory, 0, [0.5])
    directory.write_trial(trial)
    write_report(directory)
    assert directory.report_path.read_text().count("data-root-id") == 4  # no importance of one


def test_importance_finds_the_setting_that_matters():
    plan = plan_of({"model.dropout": "0:0.5"})
    random = np.random.default_rng(0)
    trials = [
        Trial(
            number=number,
            values={
                "training.batch_size": 64,
                "optimizer.learning_rate": 0.001,
                "model.dropout": (dropout := float(random.uniform(0, 0.5))),
            },
            value=1 - dropout,
        )
        for number in range(20)
    ]
    parts = importance(plan.dimensions, trials)
    assert next(iter(parts)) == "model.dropout"
    assert parts["model.dropout"] > 0.95
    assert parts["optimizer.learning_rate"] < 0.01
    assert importance(plan.dimensions, trials[:5]) == {}


def test_the_best_trial_is_the_lowest_loss_and_the_first_of_equals():
    trials = [Trial(number=n, values={}, value=v) for n, v in enumerate([0.5, None, 0.2, 0.2])]
    assert best_trial(trials, -1).number == 2
    assert best_trial(trials, 1).number == 0
    assert best_trial(trials[1:2], 1) is None


def test_tensorboards_plugin_reads_settings_and_value(tmp_path):
    trial = next(trials_of(plan_of(), 1))
    write_hparams(tmp_path, plan_of(), trial)
    events = EventAccumulator(str(tmp_path)).Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = metadata.parse_session_start_info_plugin_data(content).hparams
    assert hparams["training.batch_size"].number_value == trial.values["training.batch_size"]
    assert hparams["optimizer.learning_rate"].number_value == trial.values["optimizer.learning_rate"]
    value = tf.make_ndarray(events.Tensors("validation_accuracy")[0].tensor_proto)
    assert value == pytest.approx(trial.value)
