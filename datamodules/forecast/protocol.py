"""Train, validation and test rows, and what each of them must hold.

Validation and test begin `lookback` rows early, so their first target is the first row of the split.
"""

from titans_seq.datamodules.common.errors import DataError

Borders = dict[str, tuple[int, int]]
SPLITS = ("train", "val", "test")


def split_borders(rows: int, lookback: int, split: tuple[int, int, int] | None = None) -> Borders:
    """Return the rows [begin, end) of each split; begin is negative where the lookback does not fit before it.

    Args:
        rows: length of the series.
        lookback: rows by which validation and test begin early.
        split: lengths of train, validation and test counted from row 0 (later rows unused); None is the benchmark's
            70/10/20, where train and test round down, validation takes the rest, and test ends at the last row.
    """
    if split is None:
        train, test = int(rows * 0.7), int(rows * 0.2)
        split = (train, rows - train - test, test)
    train, val, test = split
    return {
        "train": (0, train),
        "val": (train - lookback, train + val),
        "test": (train + val - lookback, train + val + test),
    }


def require_windows(name: str, rows: int, lookback: int, horizon: int, split: tuple[int, int, int] | None) -> None:
    """Raise a DataError unless every split of the series holds a window of lookback + horizon rows."""
    if _fits(rows, lookback, horizon, split):
        return
    asked = f"lookback {lookback} + horizon {horizon}"
    if split is not None:
        raise DataError(
            f"{name}: {asked} does not fit its train/val/test rows {split[0]}/{split[1]}/{split[2]}; the horizon may "
            f"be at most {min(split[1:])}, lookback + horizon at most {split[0]}"
        )
    raise DataError(
        f"{name} has {rows} rows, too few for {asked} after the 70/10/20 split into train, val and test; it must have "
        f"at least {rows_needed(lookback, horizon)} rows, or choose a shorter lookback or horizon"
    )


def rows_needed(lookback: int, horizon: int) -> int:
    """Return the length from which on every series has a window in each split of 70/10/20."""
    # rounding makes the limit ragged, so walk down from a length that is certainly enough
    rows = 10 * (horizon + 1) + 2 * (lookback + horizon)
    while _fits(rows - 1, lookback, horizon, None):
        rows -= 1
    return rows


def _fits(rows: int, lookback: int, horizon: int, split: tuple[int, int, int] | None) -> bool:
    borders = split_borders(rows, lookback, split).values()
    return all(begin >= 0 and end <= rows and end - begin >= lookback + horizon for begin, end in borders)
