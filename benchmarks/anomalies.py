"""Surprise as a score of anomalies, on generated series with planted ones, beside a rolling z-score.

    python benchmarks/anomalies.py [--series 20] [--seed 0] [--epochs 10] [--quick]

Hourly series with a daily and a weekly cycle and autocorrelated noise, 4,000 rows each. The first half is clean, and a
`TitansForecaster` is trained on it; into the second half 6 anomalies of each kind are planted per series: spikes (2
rows), shifts of the level (48 rows) and changes of the daily cycle's frequency (48 rows). Scores: the memory's surprise
over the whole series; |x - rolling mean| / rolling deviation of the 96 rows before. AUROC: of anomalous rows against
rows of no anomaly, all series together.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from arguments import QUICK, positive
from pages import line, replace_part, row
from sklearn.metrics import roc_auc_score

from titans_seq import TitansForecaster

DOCS = Path(__file__).parent.parent / "docs"
ROWS, EACH = 4000, 6
LENGTHS = {"spike": 2, "level shift": 48, "frequency change": 48}


def clean(random: np.random.Generator) -> np.ndarray:
    t = np.arange(ROWS)
    noise = np.zeros(ROWS)
    for i in range(1, ROWS):
        noise[i] = 0.7 * noise[i - 1] + 0.2 * random.standard_normal()
    phase = random.uniform(0, 2 * np.pi, size=2)
    return np.sin(2 * np.pi * t / 24 + phase[0]) + 0.5 * np.sin(2 * np.pi * t / 168 + phase[1]) + noise


def plant(series: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The series with anomalies in its second half, and the rows of each kind."""
    found, marks = series.copy(), {kind: np.zeros(ROWS, dtype=bool) for kind in LENGTHS}
    places = random.permutation(np.arange(ROWS // 2 + 96, ROWS - 96, 100))[: EACH * len(LENGTHS)]
    for i, begin in enumerate(places):
        kind = list(LENGTHS)[i % len(LENGTHS)]
        rows = slice(begin, begin + LENGTHS[kind])
        marks[kind][rows] = True
        size = LENGTHS[kind]
        if kind == "spike":
            found[rows] += random.choice([-1, 1]) * 2.0
        elif kind == "level shift":
            found[rows] += random.choice([-1, 1]) * 1.0
        else:
            t = np.arange(begin, begin + size)
            found[rows] += np.sin(2 * np.pi * t / 10) - (series[rows] - series[rows].mean()) * 0.7
    return found, marks


def rolling_z(series: np.ndarray, window: int = 96) -> np.ndarray:
    past = pd.Series(series).shift(1).rolling(window)
    return ((pd.Series(series) - past.mean()).abs() / past.std()).to_numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=positive, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=positive, default=10)
    parser.add_argument("--quick", action="store_true", help=QUICK)
    given = parser.parse_args()
    series, epochs, steps = (1, 1, 2) if given.quick else (given.series, given.epochs, 100)
    random = np.random.default_rng(given.seed)
    index = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    made = {f"s{i}": plant(clean(random), random) for i in range(series)}
    frame = pd.DataFrame({name: series for name, (series, _) in made.items()}, index=index)
    model = TitansForecaster(horizon=24, max_epochs=epochs, steps_per_epoch=steps, train_blocks=2, seed=given.seed)
    model.fit(frame.iloc[: ROWS // 2])
    surprise = model.surprise(frame)
    late = np.arange(ROWS) >= ROWS // 2
    scores = {
        "surprise": surprise.to_numpy().T,
        "rolling z-score": np.stack([rolling_z(frame[name].to_numpy()) for name in frame]),
    }
    marks = {kind: np.stack([marks[kind] for _, marks in made.values()]) for kind in LENGTHS}
    normal = ~np.any(list(marks.values()), axis=0) & late
    lines = [row("score", *LENGTHS, "all"), line(len(LENGTHS) + 2)]
    for name, score in scores.items():
        cells = []
        for chosen in (*marks.values(), np.any(list(marks.values()), axis=0)):
            rows = normal | chosen
            cells.append(f"{roc_auc_score(chosen[rows], score[rows]):.3f}")
        lines.append(row(name, *cells))
    if not given.quick:
        replace_part(DOCS / "results.md", "anomaly tables", "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
