import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recipes.config import UserError
from recipes.runs import opening
from recipes.runs.directory import Run
from recipes.runs.files import write_file, write_json, write_text
from recipes.runs.lock import claimed, only_writer, reserved
from recipes.runs.opening import check_vacant, create, finished_run, path_to_resume
from recipes.runs.record import check_same

ROOT = Path(__file__).parents[2]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_file(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def make(name: str, environment=None, folder="runs/mnist-mlp") -> Run:
    return create(Path(folder) / name, {"recipe": "mnist-mlp"}, environment or {})


def test_latest_points_at_the_training_run_that_finished_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    latest = Path("runs/mnist-mlp/latest")
    first, second = make("first"), make("second")
    assert not latest.is_symlink()  # none has finished
    second.finish({})
    assert latest.readlink() == Path("second")
    make("interrupted").write_status("interrupted", "by Ctrl-C")
    make("diverged").write_status("failed", "NaN")
    make("pruned", {"made_from": {"run": "second", "structure": "units"}}).finish({})
    make("int8", {"made_from": {"run": "second", "weights": "int8"}}).finish({})
    make("01", folder="runs/mnist-mlp/pruned/steps").finish({})
    make("seed-0", folder="searches/mnist-mlp/s/trials/0000").finish({})
    assert latest.readlink() == Path("second")
    assert not Path("searches/mnist-mlp/s/trials/0000/latest").is_symlink()
    first.finish({})
    assert latest.readlink() == Path("first")
    assert finished_run(latest).path == Path("runs/mnist-mlp/first")


def test_a_broken_latest_names_the_newest_finished_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    latest = Path("runs/mnist-mlp/latest")
    with pytest.raises(UserError, match="latest is not a finished run: it does not exist. Train one first"):
        finished_run(latest)
    for name in ("one", "two", "three"):
        make(name).finish({})
    os.utime("runs/mnist-mlp/one/metrics.json", ns=(0, 0))
    shutil.rmtree("runs/mnist-mlp/three")
    with pytest.raises(UserError, match="points at three, .*The newest finished run is runs/mnist-mlp/two"):
        finished_run(latest)
    latest.unlink()
    with pytest.raises(UserError, match="it does not exist. The newest finished run is runs/mnist-mlp/two"):
        finished_run(latest)


def test_one_name_is_claimed_once(tmp_path):
    """Eight processes begin in one second, as in `for s in ...; do train & done`."""
    code = (
        "import sys; from pathlib import Path; from recipes.runs.lock import claimed\n"
        "with claimed(Path(sys.argv[1])) as path:\n"
        "    print(path, flush=True); (path / 'mine').touch(exist_ok=False)"
    )
    command = [sys.executable, "-c", code, tmp_path / "runs"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) for _ in range(8)]
    names = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    assert len(set(names)) == len(list((tmp_path / "runs").glob("*/mine"))) == 8


def test_a_claimed_directory_that_is_empty_is_removed(tmp_path):
    with pytest.raises(UserError), claimed(tmp_path / "runs") as path:
        raise UserError("no such data")
    assert not path.exists()


def test_the_run_to_resume_is_the_newest_unfinished_one_that_is_not_locked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/mnist-mlp")
    with pytest.raises(UserError, match="there is no run in runs/mnist-mlp"):
        path_to_resume(folder)
    for age, name in enumerate(("pruned", "diverged", "held", "newer", "older", "finished")):
        run = make(name, {"made_from": {"run": "x", "structure": "units"}} if name == "pruned" else {})
        os.utime(run.path / "config.json", ns=(10**18 - age, 10**18 - age))
    Run(folder / "diverged").write_status("failed", "NaN")
    Run(folder / "finished").finish({})
    (folder / "claimed-by-a-killed-process").mkdir()
    with only_writer(folder / "held"):
        # Two processes that resume at the same time get one run each.
        assert [path_to_resume(folder) for _ in range(2)] == [folder / "newer", folder / "older"]
        with pytest.raises(UserError, match="runs/mnist-mlp/held is being written by another process"):
            path_to_resume(folder)
        assert path_to_resume(folder, held=True) == folder / "held"
        for name in ("newer", "older"):
            with reserved(folder / name):
                pass
        assert path_to_resume(folder) == folder / "newer"
        with reserved(folder / "newer"):
            pass
    for name in ("held", "newer", "older"):
        shutil.rmtree(folder / name)
    assert path_to_resume(folder) == folder / "finished"


def test_a_run_is_finished_once_it_has_metrics(tmp_path):
    run = create(tmp_path / "run", {"recipe": "mnist-mlp"}, {})
    with pytest.raises(UserError, match=r"not a finished run.*train mnist-mlp --resume"):
        _ = run.metrics
    run.write_status("interrupted", "why")
    run.finish({"test_accuracy": 1.0})
    assert run.metrics == {"test_accuracy": 1.0}
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.json",
        "environment.json",
        "metrics.json",
        "plots",
    ]


def test_other_files_are_never_overwritten(tmp_path):
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(UserError, match="exists and is not a run directory"):
        check_vacant(tmp_path, "")
    (tmp_path / "empty").mkdir()
    check_vacant(tmp_path / "empty", "")


def test_a_directory_of_a_run_that_was_killed_before_it_began_is_vacant(tmp_path, monkeypatch):
    def killed(path, value):
        if path.name == "config.json":
            raise KeyboardInterrupt
        write_json(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(opening, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            create(tmp_path / "run", {}, {})
    (tmp_path / "run" / ".config.json.123").touch()
    check_vacant(tmp_path / "run", "")
    create(tmp_path / "run", {"recipe": "mnist-mlp"}, {})
    with pytest.raises(UserError, match="is a run already: go away"):
        check_vacant(tmp_path / "run", "go away")


def test_an_old_run_is_replaced_completely(tmp_path):
    run = create(tmp_path / "run", {"recipe": "mnist-mlp"}, {})
    (run.path / "steps" / "01").mkdir(parents=True)
    (run.path / "report.html").touch()
    (run.path / "link").symlink_to(tmp_path)
    inode = run.path.stat().st_ino
    create(run.path, {"recipe": "mnist-cnn"}, {})
    assert sorted(path.name for path in run.path.iterdir()) == [
        "checkpoint",
        "config.json",
        "environment.json",
        "plots",
    ]
    assert run.path.stat().st_ino == inode  # the lock is on it


def test_a_corrupt_file_is_named(tmp_path):
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


def test_a_blocking_error_inside_a_lock_is_not_taken_for_the_lock(tmp_path):
    with pytest.raises(BlockingIOError, match="a full pipe"), only_writer(tmp_path):
        raise BlockingIOError("a full pipe")


def lock(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(folder)


def test_a_reserved_lock_is_taken_over_here_and_refused_elsewhere(tmp_path):
    path = tmp_path / "run"
    with reserved(path):
        with pytest.raises(BlockingIOError):
            lock(path)
        with only_writer(path), pytest.raises(BlockingIOError):
            lock(path)
        lock(path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("path", "made_from", "said"),
    [
        ("run", {}, "recipes train mnist-mlp --resume --run-dir 'a b/run'"),
        ("run", {"run": "dense", "structure": "units"}, "recipes prune dense --resume --run-dir 'a b/run'"),
        ("run", {"run": "dense", "weights": "int8"}, "recipes quantize dense"),
        ("run/steps/01", {}, "It is a part of {root}/a b/run, which is resumed instead"),
        ("run/pretraining", {}, "It is a part of {root}/a b/run, which"),
        ("s/trials/0000/seed-0", {}, "It is a part of {root}/a b/s, which"),
    ],
)
def test_the_advice_for_an_unfinished_run_is_a_command(tmp_path, monkeypatch, path, made_from, said):
    monkeypatch.chdir(tmp_path)
    make("run", folder="a b")
    (tmp_path / "a b" / "s").mkdir()
    (tmp_path / "a b" / "s" / "search.json").touch()
    run = make(path, {"made_from": made_from} if made_from else {}, folder="a b")
    with pytest.raises(UserError, match=re.escape(said.format(root=tmp_path))):
        _ = run.metrics


def test_changes_are_named_old_value_first():
    with pytest.raises(UserError, match="Changed: a.b was 1 and is 2; c was None and is 3"):
        check_same({"a": {"b": 1}}, {"a": {"b": 2}, "c": 3}, "settings")


def test_json_is_indented_and_keeps_its_order(tmp_path):
    write_json(tmp_path / "x.json", {"b": 1, "a": [1.5]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"b": 1, "a": [1.5]}
    assert (tmp_path / "x.json").read_text().startswith('{\n  "b"')
