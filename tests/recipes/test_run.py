import json

import pytest

from recipes import run as runs
from recipes.config import UserError
from recipes.files import write_file, write_text
from recipes.run import Run, check_same, check_vacant, create, only_writer


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_file(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_latest_points_at_the_newest_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        path = runs.new_path(runs.RUNS / "mnist-mlp")
        create(path, {"recipe": "mnist-mlp"}, {})
        assert (tmp_path / "runs/mnist-mlp/latest").resolve() == path.resolve()
    assert len(list((tmp_path / "runs/mnist-mlp").iterdir())) == 3


def test_a_run_without_metrics_is_not_finished_and_with_them_it_is(tmp_path):
    run = create(tmp_path / "run", {"recipe": "mnist-mlp"}, {})
    with pytest.raises(UserError, match=r"not a finished run.*train mnist-mlp --resume"):
        _ = run.metrics
    run.set_aside("interrupted", "why")
    run.finish({"test_accuracy": 1.0})
    assert run.metrics == {"test_accuracy": 1.0}
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.json",
        "environment.json",
        "metrics.json",
        "plots",
    ]


def test_what_is_no_run_is_never_written_over(tmp_path):
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(UserError, match="exists and is not a run directory"):
        check_vacant(tmp_path)
    with pytest.raises(UserError, match="exists and is not a run directory"):
        runs.check_replaceable(tmp_path)
    (tmp_path / "empty").mkdir()
    check_vacant(tmp_path / "empty")


def test_a_spoilt_file_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json is not JSON"):
        _ = Run(tmp_path).config


def test_two_processes_cannot_write_one_run(tmp_path):
    run = create(tmp_path / "run", {}, {})
    with (
        only_writer(run.path),
        pytest.raises(UserError, match="written by another process"),
        only_writer(run.path),
    ):
        pass


def test_changes_are_named_old_value_first():
    with pytest.raises(UserError, match="Changed: a.b was 1 and is 2; c was None and is 3"):
        check_same({"a": {"b": 1}}, {"a": {"b": 2}, "c": 3}, "settings")


def test_json_is_written_for_people(tmp_path):
    runs.write_json(tmp_path / "x.json", {"b": 1, "a": [1.5]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"b": 1, "a": [1.5]}
    assert (tmp_path / "x.json").read_text().startswith('{\n  "b"')
