"""The commands with language models: output and errors."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recipes.catalog import CATALOG
from recipes.runs.directory import Run
from recipes.tasks import task_of
from tests.processes import ROOT, assert_refused, run_command

SIZES = {
    "--model.layers": 1,
    "--model.width": 16,
    "--model.heads": 2,
    "--model.feed-forward": 32,
    "--data.block-size": 16,
    "--training.epochs": 2,
    "--training.steps-per-epoch": 20,
    "--training.batch-size": 8,
}
SMALL = [str(part) for pair in SIZES.items() for part in pair]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(home):
    book = home / "book.txt"
    book.write_text("The quick brown fox jumps over the lazy dog.\n" * 300)
    done = run_command(
        "recipes",
        "train",
        "lm-transformer",
        "--data.source",
        book,
        *SMALL,
        cwd=home,
        XDG_CACHE_HOME=str(home / "cache"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "epoch 2/2" in done.stdout
    assert "bits per character" in done.stdout
    assert "quick" in done.stdout or "the" in done.stdout  # a sample
    return home / "runs" / "lm-transformer" / "latest"


def test_generate_prints_prompt_and_completion(run, home):
    short = ["--max-new-tokens", 20, "--temperature", 0]
    done = run_command("recipes", "generate", run, "--prompt", "The quick", *short, cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The quick")
    assert len(done.stdout) == len("The quick") + 20 + 1
    prompt = home / "prompt.txt"
    prompt.write_text("The quick")
    piped = run_command("recipes", "generate", run, "--prompt", "-", *short, cwd=home, stdin=prompt)
    assert piped.stdout == done.stdout
    several = run_command(
        "recipes", "generate", run, "--prompt", "The quick", "--prompt", "fox", "--json", *short, cwd=home
    )
    texts = [json.loads(line) for line in several.stdout.splitlines()]
    assert [text["prompt"] for text in texts] == ["The quick", "fox"]
    assert texts[0]["text"] + "\n" == done.stdout


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--prompt", "Zürich #1"], ["lacks '#' '1' 'Z' 'ü'", "It has '\\n' ' ' '.'"]),
        (["--prompt", ""], ["prompt is empty"]),
        (["--temperature", "-1"], ["at least 0", "Received: temperature=-1.0"]),
        (["--top-p", "0"], ["(0, 1]", "top_p=0.0"]),
        (["--top-p", "1.01"], ["top_p=1.01"]),
        (["--max-new-tokens", "0"], ["max_new_tokens=0"]),
        (["--seed", "-1"], ["seed=-1"]),
        (["--top-kk", "3"], ["--top-k"]),
    ],
)
def test_generate_refuses_invalid_arguments(run, home, flags, said):
    assert_refused(run_command("recipes", "generate", run, *flags, cwd=home), *said)


def test_generate_refuses_runs_of_other_tasks(home, tmp_path):
    assert_refused(run_command("recipes", "generate", tmp_path, cwd=home), "not a run directory")
    other = tmp_path / "mnist"
    other.mkdir()
    (other / "config.json").write_text('{"recipe": "mnist-mlp"}')
    (other / "metrics.json").write_text('{"recipe": "mnist-mlp"}')
    assert_refused(
        run_command("recipes", "generate", other, cwd=home), "is not a language model", "mnist-mlp"
    )


def test_a_finished_language_model_is_scored_and_resumed_as_any_run(run, home):
    environment = {"XDG_CACHE_HOME": str(home / "cache")}
    done = run_command("recipes", "evaluate", run, cwd=home, **environment)
    assert json.loads(done.stdout)["test_loss"] == pytest.approx(Run(run).metrics["test_loss"], abs=2e-6)
    other = home / "other.txt"
    other.write_text("THE QUICK\n" * 300)
    refused = run_command("recipes", "evaluate", run, "--data.source", other, cwd=home, **environment)
    assert_refused(refused, "The vocabulary lacks 'C' 'E'")
    again = run_command("recipes", "train", "lm-transformer", "--resume", *SMALL, cwd=home, **environment)
    assert "finished already" in again.stdout


def test_invalid_text_is_refused_and_leaves_nothing(home, tmp_path):
    for name, content, said in [
        ("empty.txt", b"", ["there is no text"]),
        ("tiny.txt", b"abc" * 20, ["a window of", "block_size=16"]),
        ("latin.txt", "é".encode("latin-1") * 9000, ["latin.txt is not UTF-8 at byte 0"]),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        done = run_command(
            "recipes",
            "train",
            "lm-transformer",
            "--data.source",
            path,
            *SMALL,
            "--run-dir",
            tmp_path / "run",
            cwd=home,
        )
        assert_refused(done, *said)
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_corpus_of_a_gibibyte_trains_in_under_one_and_a_half_gibibytes_of_memory(tmp_path):
    line = "All happy families are alike; every unhappy family is unhappy in its own way. é\n"
    with (tmp_path / "corpus.txt").open("w", encoding="utf-8") as file:
        block = line * 2**14
        while file.tell() < 2**30:
            file.write(block)
    code = (
        "import resource, runpy, sys\n"
        f"sys.argv = ['recipes', 'train', 'lm-transformer', '--data.source', {str(tmp_path / 'corpus.txt')!r}, "
        f"'--run-dir', {str(tmp_path / 'run')!r}, '--training.epochs', '1', '--training.steps-per-epoch', '50', "
        "'--data.validation-fraction', '0.0002', '--data.test-fraction', '0.0002']\n"
        "try:\n    runpy.run_module('recipes', run_name='__main__')\n"
        "finally:\n    print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        check=False,
    )
    assert (tmp_path / "run" / "metrics.json").exists(), done.stderr
    assert int(done.stdout.split("PEAK")[1]) < 1.5 * 2**20  # KiB


@pytest.mark.slow
@pytest.mark.skipif(
    not list(Path(os.environ.get("TFDS_DATA_DIR", "/nowhere")).glob("tiny_shakespeare/*")),
    reason="tiny_shakespeare is not prepared in TFDS_DATA_DIR",
)
def test_the_small_transformer_beats_nanogpt_at_its_own_budget(tmp_path):
    recipe = CATALOG["lm-transformer-small"].recipe
    data = dataclasses.replace(recipe.data, source="tiny_shakespeare")
    metrics = (
        task_of("lm-transformer-small", dataclasses.replace(recipe, data=data))
        .train(tmp_path / "run")
        .metrics
    )
    assert metrics["parameters"] <= 804_224
    assert metrics["train_tokens"] == 2000 * 12 * 64
    assert metrics["validation_and_test_loss"] <= 1.58
