"""Digits that are not MNIST's: printed with the fonts that Matplotlib brings, and drawn with a simulated mouse.

Both are drawn on the demo page's canvas of 280 x 280 pixels and laid out as `predict` and the page do.
"""

from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy.interpolate import make_interp_spline

from serving.training_images import lay_out_as_mnist

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Path2D = list[tuple[float, float]]

SIDE = 280
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Bold",
    "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmr10", "cmss10", "cmtt10",
)  # fmt: skip
POINTS = (220, 40)
"""Font sizes in pixels: large print is exact, small print is blurred when it is enlarged."""
PENS = (10, 16, 22, 30)
"""Widths of the pen in pixels of the canvas; the demo page's is 22."""
HAND = 0.04
"""Standard deviation of a stroke's points, as a fraction of the digit's height."""

DIGITS: tuple[tuple[list[Path2D], ...], ...] = (
    (
        [[(0.5, 0.0), (0.1, 0.3), (0.1, 0.7), (0.5, 1.0), (0.9, 0.7), (0.9, 0.3), (0.5, 0.0)]],
        [[(0.6, 0.02), (0.2, 0.2), (0.15, 0.75), (0.5, 1.0), (0.8, 0.7), (0.8, 0.25), (0.45, 0.05)]],
    ),
    (
        [[(0.5, 0.0), (0.5, 0.5), (0.5, 1.0)]],
        [[(0.3, 0.25), (0.42, 0.13), (0.55, 0.0)], [(0.55, 0.0), (0.54, 0.5), (0.53, 1.0)]],
    ),
    (
        [[(0.1, 0.25), (0.4, 0.0), (0.8, 0.2), (0.6, 0.6), (0.1, 1.0)], [(0.1, 1.0), (0.5, 0.98), (0.9, 1.0)]],
        [[(0.15, 0.2), (0.5, 0.0), (0.75, 0.3), (0.45, 0.7), (0.1, 0.95), (0.3, 0.85), (0.9, 1.0)]],
    ),
    (
        [
            [(0.15, 0.1), (0.5, 0.0), (0.8, 0.2), (0.65, 0.42), (0.4, 0.48)],
            [(0.4, 0.48), (0.75, 0.55), (0.85, 0.78), (0.55, 1.0), (0.1, 0.9)],
        ],
        [
            [(0.15, 0.0), (0.45, 0.01), (0.8, 0.0)],
            [(0.8, 0.0), (0.6, 0.22), (0.45, 0.4)],
            [(0.45, 0.4), (0.8, 0.55), (0.8, 0.85), (0.45, 1.0), (0.1, 0.88)],
        ],
    ),
    (
        [[(0.25, 0.0), (0.2, 0.3), (0.15, 0.55)], [(0.15, 0.55), (0.5, 0.55), (0.9, 0.5)], [(0.7, 0.05), (0.68, 0.5), (0.65, 1.0)]],
        [[(0.65, 0.0), (0.4, 0.33), (0.1, 0.68)], [(0.1, 0.68), (0.5, 0.68), (0.9, 0.68)], [(0.65, 0.0), (0.65, 0.5), (0.65, 1.0)]],
    ),
    (
        [
            [(0.8, 0.0), (0.5, 0.01), (0.25, 0.0)],
            [(0.25, 0.0), (0.22, 0.2), (0.2, 0.42)],
            [(0.2, 0.42), (0.6, 0.38), (0.82, 0.68), (0.55, 0.98), (0.12, 0.92)],
        ],
        [
            [(0.25, 0.05), (0.22, 0.25), (0.2, 0.45)],
            [(0.2, 0.45), (0.65, 0.45), (0.8, 0.75), (0.5, 1.0), (0.15, 0.9)],
            [(0.25, 0.05), (0.55, 0.04), (0.85, 0.02)],
        ],
    ),
    (
        [[(0.7, 0.0), (0.35, 0.3), (0.15, 0.7), (0.45, 1.0), (0.8, 0.8), (0.6, 0.52), (0.2, 0.68)]],
        [[(0.4, 0.0), (0.2, 0.4), (0.2, 0.8), (0.5, 1.0), (0.78, 0.8), (0.55, 0.6), (0.22, 0.75)]],
    ),
    (
        [[(0.1, 0.02), (0.5, 0.03), (0.9, 0.0)], [(0.9, 0.0), (0.6, 0.45), (0.4, 1.0)]],
        [
            [(0.1, 0.05), (0.5, 0.02), (0.85, 0.0)],
            [(0.85, 0.0), (0.6, 0.5), (0.4, 1.0)],
            [(0.35, 0.5), (0.6, 0.5), (0.85, 0.5)],
        ],
    ),
    (
        [[(0.75, 0.12), (0.45, 0.0), (0.2, 0.22), (0.5, 0.48), (0.8, 0.75), (0.5, 1.0), (0.2, 0.75), (0.5, 0.48), (0.78, 0.2), (0.7, 0.08)]],
        [
            [(0.5, 0.0), (0.25, 0.22), (0.5, 0.45), (0.75, 0.22), (0.5, 0.0)],
            [(0.5, 0.45), (0.2, 0.72), (0.5, 1.0), (0.8, 0.72), (0.5, 0.45)],
        ],
    ),
    (
        [[(0.75, 0.15), (0.45, 0.0), (0.2, 0.25), (0.45, 0.48), (0.75, 0.2)], [(0.75, 0.2), (0.72, 0.6), (0.65, 1.0)]],
        [[(0.7, 0.1), (0.35, 0.03), (0.25, 0.35), (0.65, 0.38), (0.72, 0.1)], [(0.72, 0.1), (0.7, 0.6), (0.55, 0.95), (0.2, 0.9)]],
    ),
)  # fmt: skip
"""Two ways to write each digit: strokes through points (x, y), x to the right and y down, in a unit square."""


def printed() -> tuple[Images, Labels]:
    """Return digits of FONTS at POINTS, (260, 28, 28), bright on black, and their labels, (260,)."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [ImageFont.truetype(folder / f"{name}.ttf", size) for name in FONTS for size in POINTS]
    images = []
    for font in fonts:
        for digit in range(10):
            canvas = Image.new("L", (SIDE, SIDE))
            ImageDraw.Draw(canvas).text((SIDE / 2, SIDE / 2), str(digit), fill=255, font=font, anchor="mm")
            images.append(lay_out_as_mnist(np.asarray(canvas)))
    return np.stack(images), np.tile(np.arange(10), len(fonts))


def drawn(count: int, random: np.random.Generator) -> tuple[Images, Labels]:
    """Return digits drawn with an unsteady hand, (count, 28, 28), bright on black, and their labels, (count,)."""
    labels = np.arange(count) % 10
    return np.stack([lay_out_as_mnist(_draw(DIGITS[label], random)) for label in labels]), labels


def _draw(ways: tuple[list[Path2D], ...], random: np.random.Generator) -> Images:
    """Return a digit on a canvas, (280, 280), in one of these ways."""
    strokes = ways[random.integers(len(ways))]
    pen = int(random.choice(PENS))
    height, slant = random.uniform(120, 220), random.uniform(-0.3, 0.3)
    size = height * np.array([random.uniform(0.5, 0.9), 1.0])
    canvas = Image.new("L", (SIDE, SIDE))
    brush = ImageDraw.Draw(canvas)
    for stroke in strokes:
        points = _smooth(np.array(stroke) + random.normal(0, HAND, (len(stroke), 2)))
        points[:, 0] -= slant * (points[:, 1] - 0.5)
        for x, y in (points - 0.5) * size + SIDE / 2:
            brush.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=255)
    return np.asarray(canvas)


def _smooth(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return 200 points on a smooth curve through points, (points, 2)."""
    curve = make_interp_spline(np.linspace(0, 1, len(points)), points, k=2)
    return np.asarray(curve(np.linspace(0, 1, 200)))
