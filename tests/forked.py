"""Run command lines in processes forked from one that has imported TensorFlow: each starts in milliseconds."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

PRELOADED = [
    "tests.conftest",
    "tensorflow",
    "keras",
    "tensorflow_datasets",
    "matplotlib.figure",
    "sklearn.metrics",
]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOADED)


def run_module(
    module: str,
    *arguments: object,
    cwd: Path,
    environment: Mapping[str, str] = os.environ,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """Run `python -m module arguments` and return its exit status and output.

    Raises:
        subprocess.TimeoutExpired: It did not end in time; it is killed.
    """
    command = [module, *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "stdout", Path(folder) / "stderr"
        process = _context.Process(target=_run, args=(command, cwd, dict(environment), files))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout)
        stdout, stderr = (path.read_text() for path in files)
    return subprocess.CompletedProcess(command, process.exitcode or 0, stdout, stderr)


def _run(command: list[str], cwd: Path, environment: dict[str, str], files: tuple[Path, Path]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in zip((1, 2), files, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__")
