"""The live table of a search."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from tests.tuning.conftest import plan_of
from tests.tuning.test_callbacks import write_run
from tuning.report.live_table import LiveTable

VALUES = {"training.batch_size": 64, "optimizer.learning_rate": 0.001}


@pytest.fixture
def directory(make_directory):
    """Give a search with a finished trial and a running one of two epochs."""
    directory = make_directory(plan_of())
    for number, status in enumerate(["finished", "running"]):
        write_run(directory, number, [0.5, 0.75], status)
        trial = replace(directory.read_trial(number), values=VALUES)
        directory.write_trial(trial if status == "finished" else replace(trial, value=None, epochs=0))
    return directory


def shown(table):
    """Return the words that a table has printed."""
    return table.console.file.getvalue().split()


def test_a_terminal_shows_all_trials_with_the_progress_of_running_ones(directory):
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    with LiveTable(directory, console) as table:
        assert not table.show()
    text = " ".join(shown(table))
    assert "0 64 0.001 0.75 2" in text
    assert "1 64 0.001 0.75 2 running" in text
    assert "1 of at most 20 trials, best validation_accuracy 0.75 in trial 0" in text


def test_elsewhere_each_trial_has_a_line_when_it_ends(directory):
    with LiveTable(directory, Console(file=io.StringIO(), width=120)) as table:
        assert not table.show()
        assert shown(table) == []
        trial = directory.read_trial(1)
        directory.write_trial(
            replace(trial, status="failed", reason="loss is NaN", epochs=1, ended=trial.started + 3)
        )
        assert table.show()
        assert not table.show()
    assert " ".join(shown(table)) == "trial 1 64 0.001 1 3 failed: loss is NaN"
