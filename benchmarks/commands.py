"""Commands of the project in processes of their own, as a user types them, and what their runs measured."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def command(*arguments: object) -> None:
    """Run a command to its end: what follows `python -m`. What it prints goes to standard error."""
    subprocess.run([sys.executable, "-m", *map(str, arguments)], cwd=ROOT, check=True, stdout=sys.stderr)


def metrics_of(run: Path) -> dict[str, Any]:
    """Return a run's metrics."""
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return metrics
