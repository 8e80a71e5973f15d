"""The code blocks of README and docs, as sybil reads them, and shell lines parsed without being run.

The first line of a block says what it is. "sh" is run in the order of its page by `make test ARGS="-m slow"`, and after
"sh" may come

    background        runs until the page ends, such as a server
    menu              alternatives, of which a reader chooses one: parsed, not run
    needs-PROGRAM     run where the program is installed; needs-cluster, needs-gpu and needs-engine (Docker's) are nowhere

"python" is run, and "python fragment" compiled. Another language may have the name of its file: "go predict.go". All other
blocks are output.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
from sybil import Document
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

import recipes.__main__
import serving.__main__
import tuning.__main__
from recipes import command_line
from recipes.catalog import CATALOG

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for page in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
    if "_build" not in page.parts and "```" in page.read_text()
]
OTHER_COMMANDS = {
    "printf",
    "cp",
    "curl",
    "docker",
    "kubectl",
    "grpcurl",
    "node",
    "java",
    "go",
    "npm",
    "serving/deploy/release",
}
MAINS: dict[str, Any] = {"recipes": recipes.__main__, "tuning": tuning.__main__, "serving": serving.__main__}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    marks: tuple[str, ...]
    source: str

    @property
    def is_file(self) -> bool:
        """Whether a reader saves it under the name that it has as its mark."""
        return any("." in mark for mark in self.marks)

    @property
    def runs_here(self) -> bool:
        """Whether it is to be run, and the program that it needs is installed."""
        needed = [mark.removeprefix("needs-") for mark in self.marks if mark.startswith("needs-")]
        marked = self.marks != () and not needed
        return self.language in ("sh", "python") and not marked and all(map(shutil.which, needed))

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page; directives of the site such as `{toctree}` are none."""
    lexer = RawFencedCodeBlockLexer(re.compile(r"(?!\{)(?P<info>[^\n]*)\n"))
    document = Document(page.read_text(), str(page))
    for region in lexer(document):
        language, *marks = region.lexemes["info"].split() or [""]
        line = document.text.count("\n", 0, region.start) + 1
        yield Block(page, line, language, tuple(marks), str(region.lexemes["source"]))


def lines(block: Block) -> list[str]:
    """Return the command lines of a shell block."""
    return block.source.replace("\\\n", " ").splitlines()


def stop(*arguments: Any, **named: Any) -> NoReturn:
    """Take the place of the first step after parsing."""
    raise SystemExit(0)


def then_stop(parse: Callable[..., Any]) -> Callable[..., NoReturn]:
    """Return a parser that ends the process once it has parsed."""

    def parsing(*arguments: Any, **named: Any) -> NoReturn:
        parse(*arguments, **named)
        raise SystemExit(0)

    return parsing


def parse_only(patch: pytest.MonkeyPatch) -> None:
    """Let commands of the three packages exit with 0 once their command lines are parsed."""
    patch.setattr(recipes.__main__, "parse", then_stop(recipes.__main__.parse))
    patch.setattr(recipes.__main__, "parse_flags", then_stop(recipes.__main__.parse_flags))
    patch.setattr(recipes.__main__, "read_settings", lambda name, path: CATALOG[name].recipe)
    patch.setattr(serving.__main__, "parse", then_stop(serving.__main__.parse))
    patch.setattr(tuning.__main__, "parse", then_stop(tuning.__main__.parse))
    patch.setattr(tuning.__main__, "check_source", lambda recipe: None)  # a reader's own files
    patch.setattr(tuning.__main__, "open_search", stop)
    patch.setattr(tuning.__main__, "_recorded_path", lambda folder, flags: Path("searches/some"))


def check_line(line: str) -> None:
    """Parse a command line as the program that it names does.

    Raises:
        AssertionError: It names a program, a target, a command or a flag that does not exist.
    """
    words = shlex.split(line, comments=True)
    while words and re.match("[A-Z_]+=", words[0]):
        del words[0]  # a variable of the environment
    if not words:
        return
    program, *arguments = words
    if program == "make":
        _check_make(arguments)
    elif program in ("python", ".venv/bin/python") and arguments[:1] == ["-m"]:
        _check_module(*arguments[1:])
    elif program == ".venv/bin/python":
        assert arguments[0] == "-c", line
    else:
        assert program in OTHER_COMMANDS, f"Nobody knows the command of: {line}"


def _check_make(arguments: Sequence[str]) -> None:
    """Ask make for the commands of a target, and parse those."""
    # The variables of a `make test` around these tests are not this command's.
    environment = {name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS")}
    done = subprocess.run(
        ["make", "-n", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for line in done.stdout.replace("\\\n", " ").splitlines():
        if found := re.match(r"@?\.venv/bin/python (-m (?:recipes|tuning|serving) .*)", line):
            check_line(f".venv/bin/python {found[1]}")


def _check_module(module: str, *arguments: str) -> None:
    """Parse the command line of a package, or find the module."""
    if module not in MAINS:
        path = ROOT / module.replace(".", "/")
        assert module == "pip" or path.with_suffix(".py").exists(), f"There is no module {module}"
        return
    main = MAINS[module]
    try:
        status = command_line.run(main.COMMANDS, main.HELP, arguments)
    except SystemExit as ended:
        status = int(ended.code or 0)
    assert status == 0, f"python -m {module} {shlex.join(arguments)} exits with {status}"
