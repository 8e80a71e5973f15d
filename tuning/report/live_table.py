"""The live table of a search on the terminal: a row for each trial, the best one highlighted."""

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from tuning.directory import SearchDirectory
from tuning.scores import value_by_epoch
from tuning.trial import Trial, best_trial

ROWS = 30
"""Trials shown at once: the newest."""


class LiveTable(Live):
    """Shows the trials: in place on a terminal, otherwise a line when a trial ends.

    Args:
        directory: The search directory.
        console: Console to print to; None is standard output.
    """

    def __init__(self, directory: SearchDirectory, console: Console | None = None) -> None:
        console = console or Console(soft_wrap=True, highlight=False)
        super().__init__(console=console, auto_refresh=False)
        self.directory = directory
        self.ended = {trial.number for trial in directory.trials() if trial.status != "running"}

    def start(self, refresh: bool = False) -> None:
        """Start the display, on a terminal only."""
        if self.console.is_terminal:
            super().start(refresh)

    def show(self) -> bool:
        """Show the current trials; return whether one has ended since the last call."""
        trials = self.directory.trials()
        new = [trial for trial in trials if trial.status != "running" and trial.number not in self.ended]
        self.ended |= {trial.number for trial in new}
        if self.console.is_terminal:
            best = best_trial(trials, self.directory.plan.sign)
            self.update(Group(self._table(trials, best), self._summary(trials, best)), refresh=True)
        else:
            for trial in new:
                self.console.print(f"trial {trial.number}  {'  '.join(self._cells(trial)[1:])}")
        return bool(new)

    def _table(self, trials: list[Trial], best: Trial | None) -> Table:
        table = Table(box=None, pad_edge=False)
        plan = self.directory.plan
        names = [dimension.name.split(".")[-1] for dimension in plan.dimensions]
        for name in ("trial", *names, plan.objective, "epochs", "seconds", "status"):
            table.add_column(name.replace("_", " "), justify="left" if name == "status" else "right")
        for trial in trials[-ROWS:]:
            table.add_row(*self._cells(trial), style="bold green" if trial == best else "")
        return table

    def _summary(self, trials: list[Trial], best: Trial | None) -> str:
        plan = self.directory.plan
        saved = sum(trial.saved_seconds for trial in trials)
        text = f"{len(self.ended)} of at most {plan.method.trials} trials"
        if best is not None:
            text += f", best {plan.objective} {best.value:.6g} in trial {best.number}"
        return f"{text}, {saved:.0f} s saved by stopping trials early" if saved else text

    def _cells(self, trial: Trial) -> list[str]:
        epochs, value = trial.epochs, trial.value
        if trial.status == "running":
            epochs, value = self._progress(trial)
        return [
            str(trial.number),
            *(f"{each:.3g}" if isinstance(each, float) else str(each) for each in trial.values.values()),
            "" if value is None else f"{value:.5g}",
            str(epochs),
            f"{trial.seconds:.0f}" if trial.ended else "",
            f"{trial.status}: {trial.reason}" if trial.reason else trial.status,
        ]

    def _progress(self, trial: Trial) -> tuple[int, float | None]:
        """Return the epochs of a running trial and the value of the weights that it would keep now."""
        runs = [run for run in self.directory.runs(trial.number) if run.history_path.exists()]
        curves = [value_by_epoch(run, self.directory.plan) for run in runs]
        return sum(map(len, curves)), curves[-1][-1] if curves and curves[-1] else None
