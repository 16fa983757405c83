"""The page of a report: everything it shows, written into one file that asks for nothing else."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
from plotly.offline import get_plotlyjs

from titans_seq.forecast.report.figures import MEASURES, MOST_BARS
from titans_seq.forecast.report.plots import Plot
from titans_seq.forecast.scores import LEVELS, MODEL, SHOWN, Scores, Season, verdict
from titans_seq.forecast.scores import MEASURES as SCORED


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """What the page shows.

    Args:
        about: dataset, lookback, horizon, mixer and seed of the run.
        made: when.
        columns: names of all channels.
        hidden: how many of them cannot be chosen among the forecasts.
        scores: on the test windows.
        baseline: of its names, the better one on the validation windows.
        season: of the seasonal naive.
        calibrated: windows of one channel each that the intervals were calibrated on.
        validation: such windows of the validation split.
        pooled: levels whose intervals have one margin for all steps.
        plots: forecast, horizon, channels, training and, where there is a memory, surprise.
        training: a sentence.
        facts: names and values.
        config: the text of the run's configuration.
        spans: of the surprise: peak, channel, first and last row.
        every: rows that a point of the surprise stands for.
        differs: what to say where the run's own metrics are others.
    """

    about: Mapping[str, Any]
    made: datetime.datetime
    columns: Sequence[str]
    hidden: int
    scores: Scores
    baseline: str
    season: Season
    calibrated: int
    validation: int
    pooled: Sequence[str]
    plots: Mapping[str, Plot]
    training: str
    facts: Sequence[tuple[str, str]]
    config: str
    spans: Sequence[tuple[float, str, str, str]] = ()
    every: int = 1
    differs: str | None = None

    bars, scored = MOST_BARS, SCORED

    @property
    def windows(self) -> int:
        return self.scores.windows

    @property
    def summary(self) -> str:
        """How good, and against what."""
        mse, mae = (self.scores.total(MODEL, measure) for measure in MEASURES)
        others = sorted(self.scores.seasons, key=lambda name: name != self.baseline)
        words = " ".join(f"Against the {name}, {self._compared(name)}." for name in others)
        return f"Test MSE {mse:.4f}, MAE {mae:.4f} on {self.windows:,} windows. {words}"

    def _compared(self, name: str) -> str:
        changes = [(measure, 100 * self.scores.change(name, measure)) for measure in MEASURES]
        if any(np.isnan(change) for _, change in changes):
            return "which is exact, there is nothing to gain"
        return " and ".join(f"{name} is {abs(x):.1f} % {'lower' if x <= 0 else 'higher'}" for name, x in changes)

    @property
    def tiles(self) -> list[tuple[str, str, str, bool]]:
        """Label, value and note of the numbers at the top, and whether it is a bad one."""
        change = self.scores.change(self.baseline, "MSE")
        compared = "MSE" if np.isnan(change) else f"MSE, the model is {'worse' if change > 0 else 'better'}"
        tiles = [
            ("Test MSE", f"{self.scores.total(MODEL, 'MSE'):.4f}", "standardised", False),
            ("Test MAE", f"{self.scores.total(MODEL, 'MAE'):.4f}", "standardised", False),
            (f"vs {self.baseline}", _signed_percent(change), compared, change > 0),
        ]
        for row in self.intervals:
            value = _percent(row["coverage"]) if row["finite"] else "–"
            note = f"of test values inside{': ' if row['verdict'] else ''}{row['verdict']}"
            tiles.append((f"{row['level']:g} % interval", value, note, bool(row["verdict"])))
        return tiles

    @property
    def intervals(self) -> list[dict[str, Any]]:
        """Of each level: what was measured on the test windows."""
        rows: list[dict[str, Any]] = []
        shares, widths = self.scores.coverage(MODEL), self.scores.width(MODEL)
        for i, level in [(LEVELS.index(level), level) for level in SHOWN]:
            row = {"level": level, "finite": not np.isnan(shares[i]), "verdict": ""}
            if row["finite"]:
                coverage = self.scores.coverage_by_series[i]
                lowest = int(np.nanargmin(coverage))
                row |= {
                    "verdict": verdict(level, shares[i]),
                    "coverage": shares[i],
                    "lowest": float(coverage[lowest]),
                    "channel": self.columns[lowest],
                    "width": widths[i],
                }
            rows.append(row)
        return rows

    @property
    def calibration(self) -> str:
        """What the intervals were calibrated on."""
        if self.calibrated == self.validation:
            return "all validation windows"
        return f"{self.calibrated:,} of {self.validation:,} validation windows of single channels, evenly spaced"


def render(report: Report) -> str:
    """The whole page."""
    # all text is escaped, in the page as in the JSON of the plots
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("titans_seq.forecast.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    pages.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    pages.filters |= {"fixed": "{:.4f}".format, "percent": _percent, "signed_percent": _signed_percent}
    return pages.get_template("page.html").render(report=report, plotly=get_plotlyjs())


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _signed_percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:+.1f} %".replace("-", "−")
