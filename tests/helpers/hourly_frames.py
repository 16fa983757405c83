"""Frames for tests of the forecaster: hourly series with gaps and every kind of covariate."""

import numpy as np
import pandas as pd

H = 6
SMALL = {
    "horizon": H, "lookback": 24, "network": {"dim": 8}, "max_epochs": 2, "steps_per_epoch": 15, "batch_size": 16,
    "accelerator": "cpu", "val_size": 24,
}  # fmt: skip

# the same for `titans-seq fit forecast --csv FILE`
LONG_FILE = [
    "--id-column", "unique_id", "--time-column", "ds", "--target", "y", "--past-covariates", "temp",
    "--future-covariates", "price", "--static-covariates", "kind,size", "--lookback", "24", "--horizon", str(H),
    "--quiet", "model.dim=8", "model.blocks=1", "data.steps_per_epoch=5", "data.batch_size=16",
]  # fmt: skip


def frame(lengths=(160, 130, 150), seed=0, gaps=True) -> pd.DataFrame:
    """Hourly series of different sizes with a daily cycle, driven by a price known ahead."""
    random, parts = np.random.default_rng(seed), []
    for i, n in enumerate(lengths):
        price, size = random.standard_normal(n), 10.0**i
        y = size * (3 + np.sin(np.arange(n) * 2 * np.pi / 12) + 0.5 * price + 0.1 * random.standard_normal(n))
        part = pd.DataFrame({
            "unique_id": f"s{i}", "ds": pd.date_range("2024", periods=n, freq="h"), "y": y, "price": price,
            "temp": random.standard_normal(n), "kind": "ab"[i % 2], "size": float(i),
        })  # fmt: skip
        if gaps:
            part.loc[random.choice(n - 1, 8, replace=False), "y"] = np.nan
            part = part.drop(index=random.choice(np.arange(1, n - 1), 5, replace=False))
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


COVARIATES = {"past_covariates": ["temp"], "future_covariates": ["price"], "static_covariates": ["kind", "size"]}


def ahead(data: pd.DataFrame, price=0.0) -> pd.DataFrame:
    last = data.groupby("unique_id", sort=False)["ds"].max()
    parts = [
        pd.DataFrame({"unique_id": name, "ds": pd.date_range(end, periods=H + 1, freq="h")[1:]})
        for name, end in last.items()
    ]
    return pd.concat(parts, ignore_index=True).assign(price=price)
