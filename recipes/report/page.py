"""`report.html`: one self-contained file, with its pictures inside."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from recipes.config import flatten
from recipes.runs.files import write_text


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        path: The PNG file.
        caption: What it shows and how to read it.
    """

    path: Path
    caption: str

    @property
    def data_uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.path.read_bytes()).decode()


@dataclass(frozen=True)
class Table:
    """A table of the page: a caption, and rows as dicts with the same keys."""

    caption: str
    rows: Sequence[dict[str, Any]]


def settings_table(caption: str, settings: Mapping[str, Any]) -> Table:
    """Return a table of settings, given as nested dicts: a row each."""
    return Table(caption, [{"setting": name, "value": value} for name, value in flatten(settings)])


@dataclass(frozen=True)
class Text:
    """A text of the page: a caption, and the text with its lines as they are."""

    caption: str
    text: str


@dataclass(frozen=True)
class Page:
    """Content of the page.

    Attributes:
        figures: The most important numbers, by name.
        pictures, texts, tables: Each in order.
    """

    figures: Mapping[str, str] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    texts: Sequence[Text] = ()
    tables: Sequence[Table] = ()


def write_page(path: Path, title: str, note: str, page: Page) -> None:
    """Write the page.

    Args:
        path: Where it goes.
        title: Its heading.
        note: A warning above everything else; "" for none.
        page: What it shows.
    """
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True).get_template("page.html.jinja")
    write_text(path, template.render(title=title, note=note, page=page))
