"""`titans-seq backtest forecast`: forecasts of past cutoffs, as if each were now."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from titans_seq.cli import runs
from titans_seq.cli.errors import UsageError
from titans_seq.cli.forecast import MODEL
from titans_seq.cli.forecast_use import levels_for
from titans_seq.cli.pictures import draw
from titans_seq.cli.tables import show_paths, show_table
from titans_seq.cli.trained import Trained, open_trained
from titans_seq.datamodules.common.files import user_path
from titans_seq.datamodules.forecast.calendar import stamp_text
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.files import replacing
from titans_seq.forecast.backtest_scores import by_cutoff, plot_backtest, scores_of, with_baselines
from titans_seq.forecast.backtests import backtest
from titans_seq.forecast.fitted import FittedForecaster
from titans_seq.forecast.fitting import fit_panels
from titans_seq.forecast.forecaster import TitansForecaster
from titans_seq.forecast.outputs import PointOutput, learned_level
from titans_seq.forecast.scores import LEVELS, Season

Fit: TypeAlias = Callable[[Sequence[Panel]], FittedForecaster]
FILES = ("forecasts.csv", "scores.csv", "backtest.png")


def backtest_command(arguments: argparse.Namespace) -> None:
    """Forecast, score, write and draw."""
    _require_free(arguments)
    trained = open_trained(arguments, "test" if arguments.csv is None else "predict")
    panel, fitted, horizon = trained.series.panel, trained.fitted, trained.fitted.network.horizon
    step = arguments.step or horizon
    first = horizon + (arguments.windows - 1) * step
    levels = levels_for(trained, arguments.level)
    if arguments.refit:
        fit = _anew(trained)
    else:
        _require_unseen(trained, panel, first)
        fit = lambda _: fitted
    season = Season.of(panel.freq, int(panel.lengths.max()) - first, arguments.season).rows
    made: list[FittedForecaster] = []

    def fit_and_keep(panels: Sequence[Panel]) -> FittedForecaster:
        made.append(fit(panels))
        return made[-1]

    def measured(fit: Fit, levels: Sequence[float]) -> tuple[pd.DataFrame, pd.DataFrame]:
        options = {"horizon": horizon, "windows": arguments.windows, "step": step, "refit": arguments.refit}
        found = pd.concat(backtest([panel], fit, level=levels, **options), ignore_index=True)
        frame = with_baselines(found, panel, season)
        return frame, scores_of(frame, panel, fitted.alias, season)

    frame, scores = measured(fit_and_keep, levels)
    if levels_of_crps := _levels_of_crps(fitted):  # whatever intervals were asked for
        again = iter(made)
        scores["crps"] = measured(lambda _: next(again), levels_of_crps)[1]["crps"]
    _show(trained, scores)
    _write(trained, arguments, frame, scores, panel, levels)


def _levels_of_crps(fitted: FittedForecaster) -> list[float]:
    """LEVELS, of which a forecaster without calibration may lack some."""
    if fitted.conformal is not None:
        return LEVELS
    output = fitted.module.output
    return [] if isinstance(output, PointOutput) else [level for level in LEVELS if level <= learned_level(output)]


def _require_free(arguments: argparse.Namespace) -> None:
    """Refuse, before any work, to write over another backtest."""
    if arguments.output is not None:
        folder = user_path(arguments.output)
        taken = next((name for name in FILES if (folder / name).exists()), None)
        if taken is not None:
            raise UsageError(f"{folder} holds {taken} already; choose another --output")


def _anew(trained: Trained) -> Fit:
    """Training of a forecaster with the same settings."""
    folder = trained.folder if trained.job is None else trained.folder / MODEL
    try:
        model = TitansForecaster.load(folder)
    except ValueError as error:
        raise UsageError(f"--refit needs the settings in {folder}: {error}") from None
    if model.weight_ is not None:
        raise UsageError(
            f"--refit would train without the weights {model.weight_!r} of the rows; in Python "
            f"TitansForecaster.load({str(folder)!r}).backtest(df, refit=True) has them"
        )
    return lambda panels: fit_panels(model, panels)[0]


def _require_unseen(trained: Trained, panel: Panel, first: int) -> None:
    """Refuse cutoffs before rows that the weights, or the intervals, were chosen on."""
    unseen = trained.unseen(panel)
    wrong = (panel.lengths > first) & (panel.lengths - first < unseen)
    if wrong.any():
        i = int(np.argmax(wrong))
        cutoff = panel.stamps(panel.offsets[i : i + 1] + panel.lengths[i] - first - 1)[0]
        raise UsageError(
            f"the first cutoff of series {panel.ids[i]} is {stamp_text(cutoff)}, and the forecaster has learned from "
            f"later rows; give fewer --windows, a smaller --step, or --refit"
        )


def _show(trained: Trained, scores: pd.DataFrame) -> None:
    table = by_cutoff(scores)
    columns = [name for name in table.columns if table[name].notna().any()]
    rows = [["–" if pd.isna(value) else value for value in row] for row in table[columns].itertuples(index=False)]
    show_table(f"backtest of {trained.name}, means over series, in the units of the data", columns, rows)


def _write(
    trained: Trained,
    arguments: argparse.Namespace,
    frame: pd.DataFrame,
    scores: pd.DataFrame,
    panel: Panel,
    levels: Sequence[float],
) -> None:
    if arguments.output is None:
        folder = runs.make_new_folder(trained.folder / "backtest")
    else:
        folder = runs.make_folder(user_path(arguments.output))
    paths: list[Path] = [folder / name for name in FILES]
    for path, table in zip(paths, (frame, scores), strict=False):
        with replacing(path) as part:
            table.to_csv(part, index=False)
    title = f"{trained.name}: {arguments.windows} cutoffs"
    pictures = draw(plot_backtest, frame, panel, trained.fitted.alias, levels, paths[2], title=title)
    show_paths("files", [*paths[:2], *pictures])
