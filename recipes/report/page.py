"""A page: one HTML file with its charts and pictures inside, for a screen or a phone, in the light or the dark."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from recipes.config import flatten
from recipes.report.charts import embed
from recipes.runs.files import write_text


@dataclass(frozen=True)
class Chart:
    """Charts that belong together: Bokeh's, side by side where there is room, and a caption."""

    charts: Sequence[Any]
    caption: str


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
    """A table of the page.

    Attributes:
        caption: What it shows.
        rows: Rows as dicts with the same keys.
        folded: Whether only the caption is shown until it is opened.
    """

    caption: str
    rows: Sequence[Mapping[str, Any]]
    folded: bool = False


def settings_table(caption: str, settings: Mapping[str, Any]) -> Table:
    """Return a folded table of settings, given as nested dicts: a row each."""
    rows = [{"setting": name, "value": value} for name, value in flatten(settings)]
    return Table(caption, rows, folded=True)


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
        remarks: Sentences about them.
        charts, pictures, texts, tables: Each in order.
    """

    figures: Mapping[str, str] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    pictures: Sequence[Picture] = ()
    texts: Sequence[Text] = ()
    tables: Sequence[Table] = ()


def write_page(path: Path, title: str, note: str, page: Page, *, reload_seconds: int | None = None) -> None:
    """Write the page.

    Args:
        path: Where it goes.
        title: Its heading.
        note: A warning above everything else; "" for none.
        page: What it shows.
        reload_seconds: Time after which a browser reads it again; None for never.
    """
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True).get_template("page.html.jinja")
    scripts, divisions = embed([chart for group in page.charts for chart in group.charts])
    drawn = iter(divisions)
    groups = [([next(drawn) for _ in group.charts], group.caption) for group in page.charts]
    write_text(
        path,
        template.render(
            title=title, note=note, page=page, scripts=scripts, groups=groups, reload_seconds=reload_seconds
        ),
    )
