"""Directives that write reference pages from the code.

{command-help} recipes train mnist-cnn --help    what the command prints
{settings} ImageRecipe                           the settings that this class of recipes adds to its base class
"""

import ast
import contextlib
import dataclasses
import io
import os
import typing
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

from recipes import command_line, config
from recipes.config.fields import describe, field_types

COLUMNS = 96
ROOT = Path(__file__).parents[2]


class CommandHelp(SphinxDirective):
    """A literal block with what a command of one of the three packages prints."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Run the command in this process."""
        line = self.arguments[0]
        package, *arguments = line.split()
        return [
            nodes.literal_block(
                text=f"$ python -m {line}\n{printed(package, arguments)}", language="text", classes=["help"]
            )
        ]


def printed(package: str, arguments: list[str]) -> str:
    """Return the standard output of `python -m PACKAGE ARGUMENTS`.

    Raises:
        ValueError: The command fails.
    """
    main = import_module(f"{package}.__main__")
    os.environ["COLUMNS"] = str(COLUMNS)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            status = command_line.run(main.COMMANDS, main.HELP, arguments)
        except SystemExit as ended:  # help ends a command
            status = ended.code
    if status:
        raise ValueError(
            f"python -m {package} {' '.join(arguments)} must print help. Received: exit status {status}"
        )
    return output.getvalue().rstrip()


class Layout(SphinxDirective):
    """A list of the modules and sub-packages of a package."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Read the docstrings without importing."""
        folder = ROOT / self.arguments[0]
        listed = nodes.definition_list()
        for path in sorted(folder.iterdir()):
            module = path / "__init__.py" if path.is_dir() else path
            if module.suffix == ".py" and module.exists() and path.name != "__init__.py":
                documented = ast.get_docstring(ast.parse(module.read_text())) or ""
                summary = documented.split("\n\n")[0].replace("\n", " ")
                listed += entry(self, f"{path.name}/" if path.is_dir() else path.name, summary)
        return [listed]


class SettingsOf(SphinxDirective):
    """A section for each group of settings that a class of recipes adds to its base class."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the sections, and before them the settings without a group."""
        kind = getattr(config, self.arguments[0])
        inherited = field_types(kind.__base__)
        own = {name: each for name, each in field_types(kind).items() if inherited.get(name) != each}
        groups = {name: each for name, each in own.items() if dataclasses.is_dataclass(each)}
        single = [name for name in own if name not in groups and own[name] is not Any]
        found: list[nodes.Node] = [self._settings(kind, "", single)] if single else []
        return found + [self._section(kind, name, group) for name, group in groups.items()]

    def _section(self, recipe: type, path: str, group: type) -> nodes.section:
        name = path if hasattr(config.Recipe, path) else f"{path} of {recipe.__name__}"
        section = nodes.section(ids=[nodes.make_id(f"{recipe.__name__}-{path}")], names=[])
        section += nodes.title(text=name)
        section += paragraph(self, " ".join((group.__doc__ or "").split()))
        section += self._settings(group, f"{path}.", list(field_types(group)))
        return section

    def _settings(self, group: type, prefix: str, names: list[str]) -> nodes.definition_list:
        listed = nodes.definition_list()
        for name in names:
            listed += self._setting(group, prefix, name)
        return listed

    def _setting(self, group: type, prefix: str, name: str) -> nodes.definition_list_item:
        kind, default = field_types(group)[name], getattr(group, name, dataclasses.MISSING)
        if dataclasses.is_dataclass(kind):
            text = f"{docstring(group, name)} The settings of {typing.cast(type, kind).__name__}."
            flag = f"--{prefix}{name}.NAME"
        else:
            chosen = " ".join(map(str, default)) if isinstance(default, tuple) else default
            text = f"{docstring(group, name)} Type: {describe(kind)}. Default: {chosen if chosen != '' else 'none'}."
            flag = f"--{prefix}{name}"
        return entry(self, flag.replace("_", "-"), text)


def entry(directive: SphinxDirective, name: str, text: str) -> nodes.definition_list_item:
    """Return an entry of a definition list; its text is Markdown."""
    item, term, definition = nodes.definition_list_item(), nodes.term(), nodes.definition()
    term += nodes.literal(text=name)
    definition += paragraph(directive, text)
    item += [term, definition]
    return item


def paragraph(directive: SphinxDirective, text: str) -> nodes.paragraph:
    """Return a paragraph of Markdown."""
    made = nodes.paragraph()
    made += directive.parse_inline(text)[0]
    return made


def docstring(kind: type, name: str) -> str:
    """Return the docstring under a field, from the class that defines it."""
    for owner in kind.__mro__:
        documented = (
            ModuleAnalyzer.for_module(owner.__module__).find_attr_docs() if owner is not object else {}
        )
        if (owner.__name__, name) in documented:
            return " ".join(" ".join(documented[owner.__name__, name]).split())
    raise LookupError(f"Every setting needs a docstring. Received: {kind.__name__}.{name}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives."""
    app.add_directive("command-help", CommandHelp)
    app.add_directive("layout", Layout)
    app.add_directive("settings", SettingsOf)
    return {"parallel_read_safe": True}
