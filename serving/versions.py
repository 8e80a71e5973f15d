"""Version numbers of a model's exports. No TensorFlow, so that a mistyped one is refused at once."""

from pathlib import Path

from recipes.config import require


def require_version(version: int | None) -> None:
    """Raise a UserError unless a version number, if there is one, is at least 1."""
    require(version is None or version >= 1, "--version must be at least 1", version=version)


def highest_version(base: Path) -> int:
    """Return the highest version number in a model's folder, or 0."""
    return max((int(path.name) for path in base.iterdir() if path.name.isdecimal()), default=0)
