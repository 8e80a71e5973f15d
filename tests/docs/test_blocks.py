"""Every code block of README and docs is run, or parsed, or says what it needs."""

import os
import re
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, Block, blocks, check_line, lines, parse_only
from tests.processes import wait_until

FILE = r"\w+\.\w+"
MARKS = {
    "sh": r"background|menu|needs-\w+",
    "python": "fragment",
    "javascript": FILE,
    "java": FILE,
    "go": FILE,
    "yaml": FILE,
    "text": "",
}
"""The languages of blocks, and what a block may say about itself."""

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pages
def test_every_block_says_what_it_is(page):
    for block in blocks(page):
        assert block.language in MARKS, block
        for mark in block.marks:
            assert re.fullmatch(MARKS[block.language], mark), f"{block}: {mark}"


@pages
def test_every_shell_line_is_parsed_by_the_program_that_it_names(page, tmp_path, monkeypatch):
    shutil.copy(ROOT / "examples" / "own_recipe.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    parse_only(monkeypatch)
    for block in blocks(page):
        if block.language == "sh":
            for line in lines(block):
                check_line(line)


@pages
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alone = not any("background" in block.marks for block in blocks(page))
    module = types.ModuleType("documented")
    monkeypatch.setitem(sys.modules, "documented", module)
    for block in blocks(page):
        if block.language == "python":
            code = compile("\n" * block.line + block.source, str(page), "exec")
            if alone and "fragment" not in block.marks:  # with a server, the whole page is run below
                exec(code, vars(module))


@pytest.mark.slow
@pages
def test_a_page_runs_from_top_to_bottom(page, tmp_path):
    project = copy_of_the_project(tmp_path / "project")
    with ExitStack() as servers:
        for block in blocks(page):
            if block.is_file:
                (project / block.marks[0]).write_text(block.source)
            elif "background" in block.marks:
                servers.enter_context(background(block, project))
            elif block.runs_here:
                run(block, project)


def copy_of_the_project(folder: Path) -> Path:
    """Copy the files under version control, and link the environment."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)  # make compares times
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def run(block: Block, project: Path) -> None:
    """Run a block as a reader who copies it into a terminal."""
    program = ["bash", "-ec"] if block.language == "sh" else ["python", "-c"]
    done = subprocess.run(
        [*program, block.source],
        cwd=project,
        env={**os.environ, "PATH": f"{project}/.venv/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@contextmanager
def background(block: Block, project: Path) -> Iterator[None]:
    """Run a block until the page ends, from the moment at which it says that it listens."""
    log = project / "background.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["bash", "-ec", block.source],
            cwd=project,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "gRPC on port" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, f"{block}\n{log.read_text()}"
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)
