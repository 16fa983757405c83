"""Borders of train, validation and test, and how long a series must be."""

import pytest

from titans_seq.datamodules import DataError
from titans_seq.datamodules.forecast.protocol import require_windows, rows_needed, split_borders
from titans_seq.datamodules.forecast.registry import find_spec

# begin of val and test at lookback 96, and the ends, from the benchmark's rule worked out by hand
ETTH = {"train": (0, 8640), "val": (8544, 11520), "test": (11424, 14400)}
ETTM = {"train": (0, 34560), "val": (34464, 46080), "test": (45984, 57600)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ETTh1", ETTH),
        ("ETTh2", ETTH),
        ("ETTm1", ETTM),
        ("ETTm2", ETTM),
        ("Weather", {"train": (0, 36887), "val": (36791, 42157), "test": (42061, 52696)}),
        ("ECL", {"train": (0, 18412), "val": (18316, 21044), "test": (20948, 26304)}),
        ("Traffic", {"train": (0, 12280), "val": (12184, 14036), "test": (13940, 17544)}),
    ],
)
def test_borders_of_the_benchmark(name: str, expected: dict[str, tuple[int, int]]) -> None:
    spec = find_spec(name)
    assert split_borders(spec.rows, 96, spec.split) == expected


@pytest.mark.parametrize(("lookback", "horizon"), [(1, 1), (2, 5), (96, 96), (96, 720), (512, 96), (7, 3)])
def test_rows_needed_is_the_length_from_which_all_fit(lookback: int, horizon: int) -> None:
    needed = rows_needed(lookback, horizon)
    for rows in range(needed, needed + 200):
        require_windows("own", rows, lookback, horizon, None)
    with pytest.raises(DataError, match=f"own has {needed - 1} rows, too few .* at least {needed} rows"):
        require_windows("own", needed - 1, lookback, horizon, None)


def test_every_refused_length_is_below_what_is_said_to_be_needed() -> None:
    needed = rows_needed(5, 3)
    for rows in range(needed):
        try:
            require_windows("own", rows, 5, 3, None)
        except DataError as error:
            assert f"at least {needed} rows" in str(error)


def test_fixed_splits_name_their_limits() -> None:
    spec = find_spec("ETTh1")
    require_windows(spec.name, spec.rows, 5760, 2880, spec.split)
    for lookback, horizon in ((96, 2881), (5761, 2880)):
        with pytest.raises(DataError, match="horizon may be at most 2880, lookback . horizon at most 8640"):
            require_windows(spec.name, spec.rows, lookback, horizon, spec.split)
