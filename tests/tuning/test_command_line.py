import json
import subprocess
import sys
from dataclasses import replace

import pytest

from recipes.runs.lock import only_writer
from tests.processes import ROOT, assert_refused, run_command
from tests.tuning.conftest import plan_of
from tests.tuning.processes import TINY, call
from tuning import __main__ as commands
from tuning.space import own_values
from tuning.trial import Trial

SEARCH = ("search", "mnist-mlp")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serach"], ["no command 'serach'", "search?"]),
        (["search"], ["needs the name of a recipe"]),
        (["search", "mnist-mpl"], ["no recipe 'mnist-mpl'", "mnist-mlp?"]),
        ([*SEARCH, "--trials", "0"], ["--trials must be at least 1. Received: trials=0"]),
        ([*SEARCH, "--seconds", "-1"], ["--seconds must be above 0"]),
        ([*SEARCH, "--workers", "0"], ["--workers must be at least 1"]),
        ([*SEARCH, "--algorithm", "baysian"], ["'baysian'", "bayesian"]),
        ([*SEARCH, "--objective", "validation_acuracy"], ["no 'validation_acuracy'", "validation_accuracy?"]),
        ([*SEARCH, "--space.model.dropot", "0:1"], ["no setting 'model.dropot'", "model.dropout?"]),
        ([*SEARCH, "--space.model.dropout", "0.5:0.1"], ["empty or reversed", "low=0.5, high=0.1"]),
        ([*SEARCH, "--space.optimizer.learning-rate", "0:1:log"], ["a log scale starts above 0"]),
        ([*SEARCH, "--space.model.dropout"], ["needs a range"]),
        ([*SEARCH, "--resume"], ["there is no search in searches/mnist-mlp"]),
        ([*SEARCH, "--algorithm", "hyperband", "--space.training.epochs", "2:4"], ["hyperband chooses the epochs"]),
        (["report", "nowhere"], ["nowhere is not a search directory"]),
        (["chief", "mnist-mlp"], ["chief needs --search-dir"]),
        (["worker", "--search-dir", "s", "--address", "8765"], ["--address must be HOST:PORT"]),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_before_anything_slow(tmp_path, arguments, said):
    assert_refused(run_command("tuning", *arguments, cwd=tmp_path, KERAS_BACKEND="none"), *said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["search", "--help"], ["search", "mnist-cnn", "--help"], ["chief", "mnist-cnn", "--help"]],
)
def test_help_does_not_import_tensorflow(arguments):
    code = (
        "import runpy, sys, atexit; "
        "atexit.register(lambda: print('HEAVY', [m for m in ('tensorflow', 'keras') if m in sys.modules])); "
        f"sys.argv = ['tuning', *{arguments!r}]; runpy.run_module('tuning', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout


def test_training_starts_from_the_settings_of_a_file(tmp_path):
    from recipes.config import to_dict
    from recipes.runs.recipe_lookup import read_settings

    path = tmp_path / "best.json"
    path.write_text('{"recipe": "mnist-mlp", "optimizer": {"learning_rate": 0.25}}')
    recipe = read_settings("mnist-mlp", path)
    assert recipe.optimizer.learning_rate == 0.25
    assert to_dict(recipe)["schedule"]["name"] == "cosine"  # as the catalog has it

    def train(*flags):
        return run_command("recipes", "train", "mnist-mlp", *flags, cwd=tmp_path)

    for text, said in [
        ('{"recipe": "mnist-cnn"}', "holds settings of mnist-cnn. Received: mnist-mlp"),
        ('{"optimizer": {"learning_rat": 1}}', "no setting 'optimizer.learning_rat'. Did you mean learning_rate?"),
        ("[]", "must hold a table of settings. Received: list"),
        ("{", "is not JSON"),
    ]:  # fmt: skip
        path.write_text(text)
        assert_refused(train("--settings", path), said)
    assert_refused(train("--settings=nowhere.json"), "nowhere.json: No such file")
    assert_refused(train("--settings", path, "--resume"), "leave --settings out")


def test_a_search_claims_its_directory_before_anything_is_in_it(tmp_path, monkeypatch):
    from recipes.config import UserError
    from tuning import __main__ as command

    claimed = []

    def refuse(path, plan, *, resume):
        claimed.append(path)
        assert list(path.iterdir()) == []
        if len(claimed) == 1:  # meanwhile another one begins, in the same second
            with pytest.raises(UserError):
                command.search([*SEARCH[1:]])
        raise UserError("enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "open_search", refuse)
    with pytest.raises(UserError, match="enough"):
        command.search([*SEARCH[1:]])
    assert len(set(claimed)) == 2
    assert not any(path.exists() for path in claimed)  # nothing came of them


def test_a_search_is_begun_once_and_resumed_only_as_it_began(tmp_path, capsys, monkeypatch):
    """Without training: what a resumed search trains is in test_whole_searches.py."""
    budgets = []
    monkeypatch.setattr(
        "tuning.run.run_search", lambda directory, **_: budgets.append(directory.plan.method.trials)
    )
    path = tmp_path / "s"
    begin = ("mnist-mlp", "--search-dir", path, *TINY, "--trials", 1)
    resume = ("mnist-mlp", "--search-dir", path, "--resume")
    assert call(capsys, commands.search, *begin) == (0, "")
    again = f"error: {path} is a search already: --resume continues it\n"
    assert call(capsys, commands.search, *begin) == (2, again)
    for changed, said in [
        (("--space.training.batch-size", "32:64"), "space.training.batch_size was '16:256' and is '32:64'"),
        (("--objective", "validation_loss"), "objective was 'validation_accuracy' and is 'validation_loss'"),
        (("--training.epochs", 9), "settings.training.epochs was 2 and is 9"),
    ]:
        status, errors = call(capsys, commands.search, *resume, *changed)
        assert status == 2
        assert said in errors
        assert errors.count("\n") == 1
    assert call(capsys, commands.search, *resume, "--trials", 2) == (0, "")  # a budget may grow
    assert budgets == [1, 2]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    status, errors = call(capsys, commands.search, "mnist-mlp", "--search-dir", tmp_path / "full")
    assert status == 2
    assert "full exists and is not a search directory" in errors


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (False, "none of 3 trials has a value. The last reason: no file\n"),
        (True, "all of 3 trials failed: no file\n"),
    ],
)
def test_a_search_without_a_value_is_a_one_line_error(make_directory, capsys, refused, said):
    directory = make_directory(plan_of())
    for number in range(3):
        trial = Trial(number=number, values={}, status="failed", reason="no file", refused=refused)
        directory.write_trial(replace(trial, values=own_values(plan_of().recipe, plan_of().dimensions)))
    assert call(capsys, commands.report, directory.path) == (2, f"error: {said}")


def test_a_second_process_at_a_search_is_refused_and_changes_nothing(make_directory, capsys):
    directory = make_directory(plan_of(trials=16))
    before = {path: path.read_bytes() for path in directory.path.rglob("*") if path.is_file()}
    flags = ("mnist-mlp", "--resume", "--search-dir", directory.path, "--trials", 2, "--seconds", 5)
    with only_writer(directory.path):
        for command, address in ((commands.search, ()), (commands.chief, ("--address", "127.0.0.1:1"))):
            status, errors = call(capsys, command, *flags, *address)
            assert (status, errors) == (2, f"error: {directory.path} is being written by another process\n")
            after = {path: path.read_bytes() for path in directory.path.rglob("*") if path.is_file()}
            assert after == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plan: [], "a search has a recipe"),
        (lambda plan: plan.pop("recipe") and plan, "a search has a recipe"),
        (lambda plan: plan | {"settings": 1}, "a search has a recipe"),
        (lambda plan: plan | {"recipe": "mnist-mpl"}, "no recipe 'mnist-mpl'. Did you mean mnist-mlp?"),
        (lambda plan: plan | {"space": {"model.dropout": 3}}, "space must have a range"),
        (lambda plan: plan | {"space": {"model.dropuot": "0:1"}}, "no setting 'model.dropuot'"),
        (lambda plan: plan | {"trials": "many"}, "trials must be int"),
        (lambda plan: plan | {"objective": "validation_acuracy"}, "no 'validation_acuracy'"),
        (lambda plan: plan | {"no_such": 1}, "no setting 'no_such'"),
        (lambda plan: plan | {"settings": {"training": {"epochs": 0}}}, "epochs must be at least 1"),
    ],
)
def test_a_malformed_search_is_a_one_line_error(make_directory, capsys, change, said):
    directory = make_directory(plan_of())
    directory.plan_path.write_text(json.dumps(change(json.loads(directory.plan_path.read_text()))))
    for command, arguments in (
        (commands.report, [directory.path]),
        (commands.search, ["mnist-mlp", "--resume", "--search-dir", directory.path]),
    ):
        status, errors = call(capsys, command, *arguments)
        assert status == 2
        assert errors.startswith(f"error: {directory.plan_path}: ")
        assert said in errors
        assert errors.count("\n") == 1


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"number": 0, "values": {}, "no_such": 1}'])
def test_a_malformed_trial_is_a_one_line_error(make_directory, capsys, text):
    directory = make_directory(plan_of())
    directory.trial_path(0).mkdir()
    (directory.trial_path(0) / "trial.json").write_text(text)
    status, errors = call(capsys, commands.report, directory.path)
    assert status == 2
    assert "trials/0000/trial.json is not a trial: " in errors
    assert errors.count("\n") == 1


def test_a_chief_listens_on_this_machine_only_unless_told_otherwise():
    assert commands.ChiefArguments().address.startswith("127.0.0.1:")
