"""Does carrying the memory over the stream beat windows alone? Rolling forecasts at the same cutoffs, on the same
scale.

    TITANS_SEQ_DATA=<folder> python benchmarks/online.py [--dataset ETTh1] [--seeds 3] [--only NAME]
        [--dry-run] [--quick]

A `TitansForecaster` (24 steps from 96, every channel a series of its own, defaults but for the budget) is trained on
the train rows, its epoch chosen on the validation part: on windows alone (`train_blocks=1`, batches of 64) and on four
blocks in a row (`train_blocks=4`, batches of 16), so that every step has 64 forecasts in its loss. Each is then read in
several ways (`readings`) at cutoffs spread over the test part. A forecast for a cutoff is given the rows before it,
nothing else;
standardisation is by the train rows.

"ETTh1" and "Weather" are the registry's; "days" is generated (`days`): every series has its own form for each day of
the week, which four days of lookback cannot tell and earlier weeks can.

docs/results_online.json keeps what finished trainings gave, which are not repeated: means per reading and span of the
test part, of which the paired differences are made.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from arguments import QUICK, one_line, positive
from pages import line, replace_part, row
from sklearn.preprocessing import StandardScaler

from titans_seq import TitansForecaster
from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.csv_files import read_published_csv
from titans_seq.datamodules.forecast.protocol import Benchmark
from titans_seq.datamodules.forecast.registry import find_spec, locate, missing
from titans_seq.forecast.stream import Stream

DOCS = Path(__file__).parent.parent / "docs"
RECORD = DOCS / "results_online.json"
L, H, FORECASTS = 96, 24, 64  # FORECASTS: in the loss of one step
EPOCHS, STEPS, PATIENCE = 8, 125, 3
VALIDATED = 4000  # windows that choose the epoch: all of them, four blocks long, would take longer than the training
LEVELS = (20, 40, 60, 80)  # their bounds and the median are the nine deciles
METRICS = ("crps", "mse", "mae")
PIECE = 960  # rows observed by one call
SPANS = 20  # of the test part; neighbouring cutoffs see the same weather, spans of them less so
SHUFFLED = ", shuffled"
FAR = 0.75  # quantile of |mean of the lookback| beyond which a window counts as far from the training rows
Scores = np.ndarray  # [cutoffs, series, metrics]


@dataclass(frozen=True)
class Data:
    """Series standardised by their first `train` rows, and where the parts begin. step: rows between cutoffs."""

    frame: pd.DataFrame
    train: int
    test: int
    step: int

    def cutoffs(self, part: str) -> list[int]:
        """First rows to forecast; every second one of the validation part."""
        if part == "val":
            return list(range(self.train, self.test - H + 1, 2 * self.step))
        return list(range(self.test, len(self.frame) - H + 1, self.step))


@dataclass(frozen=True)
class Training:
    """How a forecaster is trained, and on which data sets (none named: all). Batches are of 64 / blocks samples."""

    blocks: int
    on: tuple[str, ...] = ()
    epochs: int = EPOCHS
    steps: int = STEPS


COMPARED = ("days", "ETTh1")  # read on the validation part too, with one seed
TRAININGS = {
    "one block": Training(1),
    "four blocks": Training(4),
    "eight blocks": Training(8, on=("days",)),
}
STEP = {"days": 24, "ETTh1": 24, "Weather": 64}


def load(name: str) -> Data:
    """A data set of the registry, on a regular grid of time stamps: the gap and the duplicate in Weather's are ignored,
    as its protocol does.
    """
    if name == "days":
        return days()
    spec = find_spec(name)
    path = locate(spec, None)
    if path is None:
        raise missing(spec, None)
    panel = read_published_csv(path, spec)
    values = panel.target.reshape(len(panel), -1).T
    rows = Benchmark(spec.split).ranges(len(values), 0)
    return _data(values[: rows["test"][1]], rows["train"][1], rows["test"][0], STEP[name], spec.frequency)


def days(series: int = 64, weeks: tuple[int, int, int] = (20, 4, 5)) -> Data:
    """Hourly series: noise, and a sine per day that is upright or upside down, as each series has it for each day of
    the week.
    """
    random = np.random.default_rng(0)
    hours = np.arange(sum(weeks) * 7 * 24)
    sign = random.choice([-1.0, 1.0], size=(series, 7))[:, hours // 24 % 7]
    values = sign * np.sin(2 * np.pi * hours / 24) + 0.3 * random.standard_normal(sign.shape)
    train, test = weeks[0] * 168, (weeks[0] + weeks[1]) * 168
    return _data(values.T, train, test, STEP["days"], "h")


def _data(values: np.ndarray, train: int, test: int, step: int, frequency: str) -> Data:
    scaled = StandardScaler().fit(values[:train]).transform(values)
    index = pd.date_range("2016-07-04", periods=len(values), freq=frequency)
    return Data(pd.DataFrame(scaled, index, [f"{i:02d}" for i in range(values.shape[1])]), train, test, step)


def trained(data: Data, training: Training, seed: int) -> TitansForecaster:
    model = TitansForecaster(
        horizon=H, lookback=L, train_blocks=training.blocks, conformal=False,
        val_size=data.test - data.train, max_epochs=training.epochs, steps_per_epoch=training.steps, patience=PATIENCE,
        batch_size=FORECASTS // training.blocks, val_windows=VALIDATED, seed=seed, id_col="series", accelerator="cpu",
    )  # fmt: skip
    return model.fit(data.frame.iloc[: data.test])


# ways to read ---------------------------------------------------------------------------------------------------------


def readings(model: TitansForecaster, data: Data, part: str, seed: int) -> dict[str, Scores]:
    """Scores of the same model at the same cutoffs, by what its memory has read before.

    windows alone: nothing; the forecast reads the last L rows from the learned initial memory.
    last n blocks: the n - 1 blocks before those rows, as `predict(df)` gives it where `train_blocks` is n.
    from the first row, from the part on: `observe` from the first train row, or from one lookback before the part, then
        `predict()`. It reads the last 2 L rows as two blocks from the last state before them: up to L - 1 rows before
        these are left
            out.
    ..., no lag: as many streams as there are phases of the cutoffs; each ends a block at its cutoffs, so that nothing
    is left out. ..., shuffled: each series with another one's states, its own rows.
    """
    cutoffs, length, blocks = data.cutoffs(part), L, model.train_blocks
    order = derangement(data.frame.shape[1], seed)
    found = {"windows alone": _by_windows(model, data, cutoffs, length)}
    if blocks > 1:
        found[f"last {blocks} blocks"] = _by_windows(model, data, cutoffs, blocks * length)
    begins = {"from the first row": 0} | ({"from the part on": cutoffs[0] - length} if part == "test" else {})
    for name, begin in begins.items():
        both = list(_carried(model, data, begin, cutoffs, order))
        found[name] = np.stack([own for own, _ in both])
        found[name + SHUFFLED] = np.stack([other for _, other in both])
    names = ("from the first row, no lag", "from the first row, no lag" + SHUFFLED)
    found |= {name: np.empty_like(found["windows alone"]) for name in names}
    for phase in {cutoff % length for cutoff in cutoffs}:
        which = [i for i, cutoff in enumerate(cutoffs) if cutoff % length == phase]
        pairs = _carried(model, data, phase, [cutoffs[i] for i in which], order)
        for i, scores in zip(which, pairs, strict=True):
            for name, each in zip(names, scores, strict=True):
                found[name][i] = each
    return found


def _by_windows(model: TitansForecaster, data: Data, cutoffs: list[int], rows: int) -> Scores:
    parts = [
        _scores(model.predict(data.frame.iloc[cutoff - rows : cutoff], level=LEVELS), data, cutoff)
        for cutoff in cutoffs
    ]
    return np.stack(parts)


def _carried(
    model: TitansForecaster, data: Data, begin: int, cutoffs: list[int], order: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scores with the series' own states and with another's, cutoff by cutoff."""
    model.reset()
    for cutoff in cutoffs:
        # in pieces, which gives the same: the time of one call grows faster than its rows
        for piece in range(begin, cutoff, PIECE):
            model.observe(data.frame.iloc[piece : min(piece + PIECE, cutoff)])
        begin, stream = cutoff, model.fitted_.stream
        assert stream is not None and stream.rows.times[-1] == data.frame.index[cutoff - 1]
        own = _scores(model.predict(level=LEVELS), data, cutoff)
        model.fitted_.stream = shuffled(stream, order)
        yield own, _scores(model.predict(level=LEVELS), data, cutoff)
        model.fitted_.stream = stream
    model.reset()


def shuffled(stream: Stream, order: np.ndarray) -> Stream:
    """The stream in which series i has the states of series order[i]; the rows stay where they are."""
    index = torch.from_numpy(order)
    return replace(
        stream, older=stream.older.select(index), before=stream.before.select(index), now=stream.now.select(index)
    )


def derangement(size: int, seed: int) -> np.ndarray:
    """A permutation without a fixed point: one random cycle."""
    cycle = np.random.default_rng(seed).permutation(size)
    order = np.empty(size, dtype=np.int64)
    order[cycle] = np.roll(cycle, 1)
    assert (order != np.arange(size)).all()
    return order


def _scores(found: pd.DataFrame, data: Data, cutoff: int) -> np.ndarray:
    """CRPS (twice the mean pinball loss over the deciles), squared and absolute error of the median: [series,
    metrics].
    """
    truth = data.frame.iloc[cutoff : cutoff + H]
    assert (found.index == truth.index).all()
    values = {name: found.xs(name, axis=1, level=1)[truth.columns].to_numpy() for name in found.columns.unique(1)}
    quantiles = {0.5: values["forecast"]}
    for level in LEVELS:
        quantiles |= {0.5 - level / 200: values[f"lo-{level}"], 0.5 + level / 200: values[f"hi-{level}"]}
    wrong = {q: truth.to_numpy() - value for q, value in quantiles.items()}
    pinball = [np.maximum(q * error, (q - 1) * error) for q, error in wrong.items()]
    return np.stack([2 * np.mean(pinball, axis=0), wrong[0.5] ** 2, np.abs(wrong[0.5])], axis=-1).mean(axis=0)


# records --------------------------------------------------------------------------------------------------------------


def measured(data: Data, training: Training, seed: int, *, validated: bool) -> dict[str, Any]:
    """Train once and read in all ways; validated: also on the validation part, by which trainings are compared."""
    start = time.perf_counter()
    model = trained(data, training, seed)
    seconds = time.perf_counter() - start
    losses = [epoch["val_loss"] for epoch in model.history_]
    far = _far(data)
    test = readings(model, data, "test", seed)
    val = readings(model, data, "val", seed) if validated else {}
    return {
        "seconds": round(seconds),
        "epochs": len(losses),
        "best": int(np.argmin(losses)) + 1,
        "loss": round(min(losses), 5),
        "pairs": {"all": _counts(np.ones_like(far)), "far": _counts(far)},
        "val": {name: _means(scores) for name, scores in val.items()},
        "test": {name: _by_span(scores, far) for name, scores in test.items()},
    }


def _means(scores: Scores) -> dict[str, float]:
    return dict(zip(METRICS, np.round(scores.mean(axis=(0, 1)), 5).tolist(), strict=True))


def _far(data: Data) -> np.ndarray:
    """Which windows [cutoffs, series] have a level far from that of the training rows, which is 0."""
    shift = np.stack([data.frame.to_numpy()[cutoff - L : cutoff].mean(axis=0) for cutoff in data.cutoffs("test")])
    return np.abs(shift) > np.quantile(np.abs(shift), FAR)


def _counts(chosen: np.ndarray) -> list[int]:
    return [int(part.sum()) for part in np.array_split(chosen, SPANS)]


def _by_span(scores: Scores, far: np.ndarray) -> dict[str, list[float]]:
    """Means of each span of the test part: of every metric over all windows, and of the CRPS over the far ones."""
    means = {name: _span_means(scores[..., i], np.ones_like(far)) for i, name in enumerate(METRICS)}
    return means | {"far": _span_means(scores[..., 0], far)}


def _span_means(values: np.ndarray, chosen: np.ndarray) -> list[float]:
    parts = zip(np.array_split(values, SPANS), np.array_split(chosen, SPANS), strict=True)
    return [round(float(part[which].mean()), 5) if which.any() else 0.0 for part, which in parts]


def run(results: dict[str, dict], names: list[str], seeds: int, only: str) -> None:
    for name in names:
        with one_line(DataError):
            data = load(name)
        for seed in range(seeds):
            for key, training in TRAININGS.items():
                cell = f"{name}: {key}, seed {seed}"
                if cell in results or only not in cell or name not in (training.on or STEP):
                    continue
                results[cell] = measured(data, training, seed, validated=seed == 0 and name in COMPARED)
                written = RECORD.with_suffix(".part")
                written.write_text(_as_json(results))
                os.replace(written, RECORD)
                print(cell, results[cell]["loss"], results[cell]["seconds"], results[cell]["val"], flush=True)


def quick() -> dict[str, dict]:
    """Two trainings of two steps on few generated series."""
    data = days(series=3, weeks=(3, 1, 1))
    small = {key: replace(TRAININGS[key], epochs=1, steps=2) for key in ("one block", "four blocks")}
    return {f"days: {key}, seed 0": measured(data, each, 0, validated=True) for key, each in small.items()}


def _as_json(results: dict[str, dict]) -> str:
    """One line per cell."""
    return "{\n" + ",\n".join(f"{json.dumps(cell)}: {json.dumps(found)}" for cell, found in results.items()) + "\n}\n"


# tables ---------------------------------------------------------------------------------------------------------------

Cells = dict[int, dict[str, Any]]  # by seed
BASE = ("one block", "windows alone")
HEAD = (
    "trained on",
    "read",
    "CRPS",
    "MSE",
    "MAE",
    "difference",
    "error",
    "far",
    "rest",
    "shuffled",
    "same weights",
    "validation",
)


def tables(results: dict[str, dict]) -> str:
    parts = []
    for name in STEP:
        cells = {key: found for key in TRAININGS if (found := _cells(results, name, key))}
        if BASE[0] in cells:
            parts += [f"### {name}\n", row(*HEAD), line(len(HEAD)), *_rows(cells), ""]
            parts += [row("trained on", "seeds", "epochs", "best", "validation loss", "minutes"), line(6)]
            parts += [*(_trained_row(key, found) for key, found in cells.items()), ""]
    return "\n".join(parts)


def _cells(results: dict[str, dict], name: str, key: str) -> Cells:
    parts = {cell: cell.rpartition(", seed ") for cell in results}
    return {int(seed): results[cell] for cell, (of, _, seed) in sorted(parts.items()) if of == f"{name}: {key}"}


def _rows(cells: dict[str, Cells]) -> Iterator[str]:
    base = _read(cells[BASE[0]], BASE[1])
    for key, found in cells.items():
        first = next(iter(found.values()))
        for reading in first["test"]:
            if reading.endswith(SHUFFLED):
                continue
            mine, pairs = _read(found, reading), first["pairs"]
            scores = [_over_seeds([_mean(each[name], pairs["all"]) for each in mine.values()]) for name in METRICS]
            shown = ["-"] * 4 if (key, reading) == BASE else _differences(mine, base, pairs)
            others = _read(found, reading + SHUFFLED)
            shown.append(_differences(others, base, pairs)[0] if others else "-")
            shown.append("-" if reading == BASE[1] else _differences(mine, _read(found, BASE[1]), pairs)[0])
            val = [cell["val"][reading]["crps"] for cell in found.values() if reading in cell["val"]]
            yield row(key, reading, *scores, *shown, _over_seeds(val) if val else "-")


def _read(cells: Cells, reading: str) -> Cells:
    return {seed: cell["test"][reading] for seed, cell in cells.items() if reading in cell["test"]}


def _differences(mine: Cells, base: Cells, pairs: dict[str, list[int]]) -> list[str]:
    """CRPS less that of windows alone, same seed, times 1,000: over seeds; its error by spans; in far windows; in the
    rest.
    """
    couples = [(each, base[seed]) for seed, each in mine.items() if seed in base]
    every = [np.subtract(a["crps"], b["crps"]) for a, b in couples]
    mean = [_mean(each, pairs["all"]) for each in every]
    far = [_mean(np.subtract(a["far"], b["far"]), pairs["far"]) for a, b in couples]
    share = sum(pairs["far"]) / sum(pairs["all"])
    rest = [(a - share * b) / (1 - share) for a, b in zip(mean, far, strict=True)]
    error = _error(np.mean(every, axis=0), pairs["all"])
    return [_thousandths(mean), f"{1000 * error:.1f}", _thousandths(far), _thousandths(rest)]


def _mean(spans: np.ndarray | list[float], counts: list[int]) -> float:
    return float(np.average(spans, weights=counts))


def _error(spans: np.ndarray, counts: list[int]) -> float:
    """Standard error of the mean, spans taken as independent of one another."""
    residual = np.array(counts) * (spans - _mean(spans, counts))
    return float(np.sqrt(SPANS / (SPANS - 1) * np.square(residual).sum()) / sum(counts))


def _over_seeds(values: list[float]) -> str:
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def _thousandths(values: list[float]) -> str:
    return f"{1000 * np.mean(values):+.1f}" + (f" ± {1000 * np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def _trained_row(key: str, cells: Cells) -> str:
    found = list(cells.values())
    epochs, best = ("/".join(str(cell[name]) for cell in found) for name in ("epochs", "best"))
    minutes = np.mean([cell["seconds"] for cell in found]) / 60
    return row(key, len(found), epochs, best, _over_seeds([cell["loss"] for cell in found]), f"{minutes:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=list(STEP))
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--only", default="", help='trainings whose name holds this, e.g. "four blocks, seed 0"')
    parser.add_argument("--dry-run", action="store_true", help="run nothing, write the tables of what is finished")
    parser.add_argument("--quick", action="store_true", help=QUICK)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", module="lightning")
    if given.quick:
        print(tables(quick()))
        return
    results = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    if not given.dry_run:
        run(results, [given.dataset] if given.dataset else list(STEP), given.seeds, given.only)
    replace_part(DOCS / "results.md", "online tables", tables(results))


if __name__ == "__main__":
    main()
