"""The data module as its users meet it: arguments, loaders, prediction, checkpoints, a Lightning trainer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from titans_seq.datamodules import DataError, ForecastDataModule, embedded_series
from titans_seq.datamodules.common.loaders import SPLITS
from titans_seq.datamodules.forecast.embedded import ORIGIN, STRIDE

Write = Callable[..., Path]


def _own(path: Path, **options: Any) -> ForecastDataModule:
    return ForecastDataModule(csv=str(path), **({"lookback": 24, "horizon": 12} | options))


def _ready(path: Path, **options: Any) -> ForecastDataModule:
    data = _own(path, **options)
    data.setup()
    return data


def _rows(data: ForecastDataModule) -> np.ndarray:
    return data.panel.target.reshape(len(data.panel), -1)


def _restored(data: ForecastDataModule, batch: torch.Tensor) -> np.ndarray:
    """Samples of one window, one per series, in the units of the series."""
    mean, scale = data.scaling.of_target(data.panel).T[..., None]
    return batch.numpy() * scale + mean


@pytest.mark.parametrize("name", [None, "embedded", "Embedded"])
def test_embedded_is_the_default_and_needs_no_file(no_data: Path, name: str | None) -> None:
    data = ForecastDataModule(name)
    data.prepare_data()
    data.setup()
    expected = embedded_series()
    assert data.name == "embedded"
    np.testing.assert_array_equal(data.panel.target, expected.target)
    assert not no_data.exists()
    for split in SPLITS:
        assert ((data.windows(split).anchors.first - ORIGIN) % STRIDE == 0).all()
    assert sum(len(data.windows(split)) for split in SPLITS) == expected.lengths[0] // STRIDE


def test_batches_are_standardised_float32_in_the_order_of_the_rows(write_csv: Write) -> None:
    data = _ready(write_csv(rows=400), eval_batch_size=16)
    batches = list(data.test_dataloader())
    assert [len(batch["index"]) // 3 for batch in batches] == [16, 16, 16, 16, 5]
    assert torch.equal(torch.cat([batch["index"] for batch in batches]), torch.arange(320, 389).repeat_interleave(3))
    first = batches[0]
    assert (first["past_target"].dtype, first["index"].dtype) == (torch.float32, torch.int64)
    np.testing.assert_allclose(_restored(data, first["past_target"][:3]), _rows(data)[:, 296:320], atol=1e-4)


def test_train_batches_are_shuffled_by_seed_and_complete(write_csv: Write) -> None:
    path = write_csv(rows=400)

    def order(seed: int) -> list[int]:
        return torch.cat([batch["index"] for batch in _ready(path, seed=seed).train_dataloader()]).tolist()

    assert order(0) == order(0) != order(1)
    assert sorted(order(0)) == [t for t in range(24, 280 - 12 + 1) for _ in range(3)] != order(0)


def test_validation_takes_every_window_of_its_split(write_csv: Write) -> None:
    data = _own(write_csv(rows=36_000, channels=1), horizon=720, eval_batch_size=1000)
    data.setup()
    index = torch.cat([batch["index"] for batch in data.val_dataloader()])
    assert torch.equal(index, torch.arange(25_200, 28_800 - 720 + 1))


def test_prediction_sees_the_last_rows_and_no_future(write_csv: Write) -> None:
    data = _ready(write_csv(rows=400))
    (batch,) = data.predict_dataloader()
    assert batch["past_target"].shape == (3, 24)
    assert batch["future_target"].shape == (3, 0)
    assert batch["index"].tolist() == [400] * 3
    np.testing.assert_allclose(_restored(data, batch["past_target"]), _rows(data)[:, -24:], atol=1e-4)


def test_prediction_takes_series_of_any_length(write_csv: Write) -> None:
    data = _own(write_csv(rows=20))
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    np.testing.assert_allclose(batch["past_target"][:, 4:].mean(1), 0, atol=1e-6)
    assert batch["past_observed_values"].tolist() == [[0.0] * 4 + [1.0] * 20] * 3
    with pytest.raises(DataError, match="20 rows, too few"):
        data.setup("fit")


def test_prediction_first_and_fitting_later_gives_the_train_statistics(write_csv: Write) -> None:
    path = write_csv(rows=400)
    late, early = _own(path), _own(path)
    late.setup("predict")
    for stage in ("fit", "validate", "test", "predict", None):
        late.setup(stage)
    early.setup("fit")
    pd.testing.assert_frame_equal(late.scaling.scales, early.scaling.scales)


def test_setup_twice_reads_once(write_csv: Write) -> None:
    path = write_csv(rows=400)
    data = _own(path)
    data.setup("fit")
    panel, rows = data.panel, data.windows("train").target
    path.unlink()
    data.setup("fit")
    data.setup("test")
    assert data.panel is panel
    assert data.windows("test").target.data_ptr() == rows.data_ptr()


def test_constant_channel_stays_finite(write_csv: Write) -> None:
    lines = [f"2024-01-01 {i // 60:02d}:{i % 60:02d},5,{i}" for i in range(400)]
    data = _ready(write_csv("\n".join(["date,flat,rising", *lines])))
    assert torch.equal(data.windows("train").__getitems__([0])["past_target"][0], torch.zeros(24))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "ETTh1", "csv": "own.csv"}, "dataset or csv, not both"),
        ({"dataset": "ETTh9"}, "did you mean 'ETTh"),
        ({"lookback": 0}, "lookback must be at least 1; got 0"),
        ({"horizon": -1}, "horizon must be at least 1; got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"eval_batch_size": 0}, "eval_batch_size must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_impossible_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ForecastDataModule(**arguments)


def test_too_short_says_how_long_it_must_be(write_csv: Write) -> None:
    data = _own(write_csv(rows=100), lookback=96, horizon=96)
    with pytest.raises(DataError, match="own has 100 rows, too few .* at least 9[0-9]{2} rows"):
        data.setup()


def test_a_horizon_that_no_session_of_the_embedded_series_holds() -> None:
    usual = ForecastDataModule()
    usual.setup()
    begin, end = usual.protocol.ranges(int(usual.panel.lengths[0]), usual.lookback)["val"]
    rows_to_forecast = end - begin - usual.lookback
    with pytest.raises(DataError, match="embedded: no window of .* in val; .*choose a shorter"):
        ForecastDataModule(horizon=rows_to_forecast).setup()


def test_a_missing_named_set_says_how_to_get_it(no_data: Path) -> None:
    with pytest.raises(DataError, match="ETTh1: no file .*titans-seq data download ETTh1") as caught:
        ForecastDataModule("ETTh1").setup()
    assert str(no_data / "forecast" / "ETTh1.csv") in str(caught.value)


def test_a_changed_named_set_is_refused(toy, put) -> None:
    _, content = toy()
    put(content.replace(b",4\n", b",5\n"))
    with pytest.raises(DataError, match="not the published Toy: sha256"):
        ForecastDataModule("toy", lookback=3, horizon=2).setup()


def test_data_root_is_used_instead_of_the_environment(no_data: Path, tmp_path: Path, toy, put) -> None:
    _, content = toy()
    put(content, root=tmp_path / "else")
    data = ForecastDataModule("toy", lookback=3, horizon=2, data_root=str(tmp_path / "else"))
    data.prepare_data()
    data.setup()
    assert not no_data.exists()


# checkpoints ---------------------------------------------------------------------------------------------------------


def test_state_is_plain_enough_for_weights_only(write_csv: Write, tmp_path: Path) -> None:
    data = _own(write_csv(rows=400))
    assert data.state_dict() == {}
    data.setup()
    torch.save(data.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["about"]["scale_ids"] == ["c0", "c1", "c2"]
    assert np.array_equal(state["arrays"]["scales"].numpy(), data.scaling.scales.to_numpy())


@pytest.mark.parametrize("order", ["load, setup", "setup, load"])
def test_restored_statistics_hold_for_columns_of_the_same_name(write_csv: Write, order: str) -> None:
    source = _ready(write_csv(rows=400))
    text = write_csv(rows=300, name="other.csv").read_text().replace("c2", "new")
    target = _own(write_csv(text, name="other.csv"))
    own = _ready(write_csv(text, name="other.csv"))
    if order == "load, setup":
        target.load_state_dict(source.state_dict())
        target.setup()
    else:
        target.setup()
        target.load_state_dict(source.state_dict())
    expected = pd.concat([source.scaling.scales[:2], own.scaling.scales[2:]])
    np.testing.assert_array_equal(target.scaling.of_target(target.panel), expected)
    past = target.windows("train").__getitems__([0])["past_target"]
    np.testing.assert_allclose(_restored(target, past), _rows(target)[:, :24], atol=1e-4)


def test_restoring_its_own_state_changes_no_bit(write_csv: Write) -> None:
    data = _ready(write_csv(rows=400))
    before = data.windows("train").target.clone()
    data.load_state_dict(data.state_dict())
    assert torch.equal(data.windows("train").target, before)


def test_a_resumed_training_sees_the_same_shuffles(write_csv: Write, train, tmp_path: Path) -> None:
    path = write_csv(rows=400)
    whole, _ = train(_own(path, seed=3), 4, "index")
    first, trainer = train(_own(path, seed=3), 2, "index")
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    torch.manual_seed(99)  # nothing may hang on the global generator
    second, resumed = train(_own(path, seed=3), 4, "index", tmp_path / "last.ckpt")
    assert first.seen | second.seen == whole.seen
    assert sorted(second.seen) == [2, 3]
    assert torch.equal(second.weight, whole.weight)
    assert whole.seen[0] != whole.seen[1]
    (batch,) = resumed.predict(second, datamodule=_own(path, seed=3))
    assert batch["past_target"].shape == (3, 24)
