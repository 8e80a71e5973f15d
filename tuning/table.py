"""The live table of a search: a line a trial, the best so far above it."""

import threading
from types import TracebackType
from typing import Self

import rich.table
from rich.console import Console, Group
from rich.live import Live

from tuning.plan import Plan, SearchDirectory, Trial, best_trial

ROWS = 30
"""Trials shown at once; older ones leave the table."""


class Table:
    """Shows the trials: in place on a terminal, elsewhere a line when a trial ends.

    Args:
        search: Where the trials are.
        plan: What is searched.
        console: Where to print; standard output as it comes.
    """

    def __init__(self, search: SearchDirectory, plan: Plan, console: Console | None = None) -> None:
        self.search = search
        self.plan = plan
        self.console = console or Console(soft_wrap=True, highlight=False)
        self.live = Live(console=self.console, auto_refresh=False, transient=False)
        self.progress: dict[int, tuple[int, float | None]] = {}
        self.ended = {trial.number for trial in search.trials() if trial.status != "running"}
        self.lock = threading.Lock()

    def __enter__(self) -> Self:
        """Begin to show."""
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last table on the terminal."""
        self.live.stop()

    def tell(self, number: int, epochs: int, value: float | None) -> None:
        """Take a trial's epochs and value so far; any thread may tell."""
        with self.lock:
            self.progress[number] = (epochs, value)

    def refresh(self) -> bool:
        """Show how the trials stand; return whether one has ended since the last time."""
        trials = self.search.trials()
        ended = {trial.number for trial in trials if trial.status != "running"}
        new = [trial for trial in trials if trial.number in ended - self.ended]
        self.ended = ended
        best = best_trial(trials, self.plan.sign)
        if self.console.is_terminal:
            self.live.update(Group(self._table(trials, best), self._summary(trials, best)), refresh=True)
        else:
            for trial in new:
                self.console.print(f"trial {trial.number}  {'  '.join(self._cells(trial)[1:])}")
        return bool(new)

    def _table(self, trials: list[Trial], best: Trial | None) -> rich.table.Table:
        table = rich.table.Table(box=None, pad_edge=False)
        names = [dimension.name.split(".")[-1] for dimension in self.plan.dimensions]
        for name in ("trial", *names, self.plan.objective, "epochs", "seconds", ""):
            table.add_column(name.replace("_", " "), justify="left" if not name else "right")
        for trial in trials[-ROWS:]:
            table.add_row(*self._cells(trial), style="bold green" if trial == best else "")
        return table

    def _summary(self, trials: list[Trial], best: Trial | None) -> str:
        saved = sum(trial.saved_seconds for trial in trials)
        text = f"{len(self.ended)} of at most {self.plan.method.trials} trials"
        if best is not None:
            text += f", best {self.plan.objective} {best.value:.6g} in trial {best.number}"
        return f"{text}, {saved:.0f} s saved by ending trials early" if saved else text

    def _cells(self, trial: Trial) -> list[str]:
        with self.lock:
            epochs, value = self.progress.get(trial.number, (trial.epochs, trial.value))
        if trial.status != "running":
            epochs, value = trial.epochs, trial.value
        return [
            str(trial.number),
            *(f"{each:.3g}" if isinstance(each, float) else str(each) for each in trial.values.values()),
            "" if value is None else f"{value:.5g}",
            str(epochs),
            f"{trial.seconds:.0f}" if trial.ended else "",
            f"{trial.status}: {trial.reason}" if trial.reason else trial.status,
        ]
