"""The lines that a command prints about a finished run."""

from recipes.runs.directory import Run

TEST_METRICS = ("exact_match", "accuracy", "r2", "mae", "loss", "perplexity", "bits_per_character")
SIZES = ("nonzero_parameters", "multiply_adds", "model_bytes")


def summarize(run: Run) -> str:
    """Return the test metrics of a finished run, the note on its data and the path of its report."""
    metrics = run.metrics
    scores = ", ".join(
        f"{name.replace('_', ' ')} {metrics[f'test_{name}']:.4f}"
        for name in TEST_METRICS
        if f"test_{name}" in metrics
    )
    status = f", {metrics['status']}" if "status" in metrics else ""
    warning = f"\nWARNING: {metrics['note']}" if "note" in metrics else ""
    return (
        f"test {scores} on {metrics['dataset']} (kept epoch {metrics['best_epoch']} "
        f"of {metrics['epochs']}{status}, {metrics['train_seconds']:.0f} s){warning}\n"
        f"report: {run.path / 'report.html'}"
    )


def summarize_compression(run: Run) -> str:
    """Return the sizes and the validation metric of a pruned or quantised run before and after, and its summary."""
    metrics = run.metrics
    before, after = metrics["compression"]["before"], metrics["compression"]["after"]
    sizes = ", ".join(f"{name.replace('_', ' ')} {before[name]:,} → {after[name]:,}" for name in SIZES)
    dense = next(name for name in metrics if name.startswith("dense_"))
    metric = dense.removeprefix("dense_")
    return f"{sizes}\n{metric} {metrics[dense]:.4f} → {metrics[metric]:.4f}\n{summarize(run)}"
