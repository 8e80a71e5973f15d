"""Settings that belong to one of several named curves or rules: None means the default of the named one."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from recipes.config.errors import require


def check_own(
    settings: Any,
    group: str,
    known: Mapping[str, Any],
    ranges: Mapping[str, tuple[str, Callable[[Any], bool]]],
) -> None:
    """Refuse a setting that belongs to another curve or rule than the named one, or is out of its range."""
    for setting, (span, holds) in ranges.items():
        value = getattr(settings, setting)
        if value is None:
            continue
        possible = ", ".join(known) or "no setting of its own"
        require(setting in known, f"{group} {settings.name} takes {possible}", **{setting: value})
        require(holds(value), f"{group}.{setting} must be {span}", **{setting: value})


def with_defaults(settings: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the named curve or rule reads."""
    chosen = {setting: getattr(settings, setting) for setting in defaults}
    return {setting: defaults[setting] if value is None else value for setting, value in chosen.items()}


def without_defaults(settings: Any) -> Any:
    """Return settings of a named curve or rule with None in place of its defaults."""
    defaults = type(settings)(name=settings.name).parameters()
    same = {setting: None for setting, value in defaults.items() if getattr(settings, setting) == value}
    return dataclasses.replace(settings, **same)
