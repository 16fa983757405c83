"""The scores of a forecaster beside those of a baseline, as a table."""

from collections.abc import Mapping
from typing import Any

from titans_seq.cli.tables import show_table

# name in metrics.json -> what it is called, and what is best
_ROWS = {
    "mse": "MSE, standardised",
    "mae": "MAE, standardised",
    "crps": "CRPS, standardised",
    "mase": "MASE",
    "smape": "sMAPE",
    "coverage_80": "coverage of 80 %",
    "coverage_95": "coverage of 95 %",
}


def without_scores(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What `show_scores` does not show."""
    scored = {f"{prefix}_{name}" for prefix in ("test", "baseline") for name in _ROWS}
    return {name: value for name, value in metrics.items() if name not in scored}


def show_scores(metrics: Mapping[str, Any]) -> None:
    """Print model and baseline side by side, on the same test windows."""
    rows = []
    for name, label in _ROWS.items():
        model, baseline = metrics.get(f"test_{name}"), metrics.get(f"baseline_{name}")
        if model is not None:
            rows.append([label, model, "–" if baseline is None else baseline, _change(name, model, baseline)])
    title = f"{metrics['test_windows']:,} test windows, {metrics['series']:,} series"
    show_table(title, ["", "model", metrics.get("baseline", "baseline"), "model vs. baseline"], rows)


def _change(name: str, model: float, baseline: float | None) -> str:
    if baseline is None or name.startswith("coverage") or baseline == 0:
        return "–"
    change = 100 * (model / baseline - 1)
    return f"{abs(change):.1f} % {'better' if change < 0 else 'worse'}"
