"""Random numbers of one training: bit-identical whatever other threads draw, and nothing global is touched."""

import copy
import logging
import random
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from titans_seq import TitansForecaster
from titans_seq.draws import Draws, Dropout
from titans_seq.forecast import SimbaForecaster
from titans_seq.forecast.estimator import TitansEstimator
from titans_seq.training import quiet_training

# four fits of different seeds, sizes and mixers
FITS = [
    {"seed": 0, "horizon": 4, "network": {"dim": 8}},
    {"seed": 1, "horizon": 6, "network": {"dim": 16, "heads": 2}},
    {"seed": 2, "horizon": 4, "mixer": "ssm", "network": {"dim": 8}},
    {"seed": 3, "horizon": 8, "mixer": "attention", "network": {"dim": 16, "blocks": 2}},
]
SMALL = {"lookback": 24, "max_epochs": 2, "steps_per_epoch": 8, "batch_size": 8, "accelerator": "cpu", "val_size": 24}


def frame(seed: int) -> pd.DataFrame:
    values = np.random.default_rng(seed).standard_normal((2, 130 + 10 * seed)).cumsum(axis=1)
    parts = [
        pd.DataFrame({"unique_id": f"s{i}", "ds": pd.date_range("2024", periods=len(y), freq="h"), "y": y})
        for i, y in enumerate(values)
    ]
    return pd.concat(parts)


def forecasts(options: dict) -> list[pd.DataFrame]:
    """Of a fit, and of another one that goes on from it."""
    data = frame(options["seed"])
    model = TitansForecaster(**SMALL | options).fit(data)
    first = model.predict()
    return [first, model.fit(data).predict()]


@pytest.fixture(scope="module")
def one_by_one() -> list[list[pd.DataFrame]]:
    return [forecasts(options) for options in FITS]


def estimate(seed: int, kind: type[TitansEstimator] = TitansEstimator) -> np.ndarray:
    """Forecasts of a GluonTS estimator, trained with shuffled windows."""
    options = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    made = kind(
        4 + seed, 24, network={"dim": 8}, num_batches_per_epoch=4, batch_size=4, trainer_kwargs=options, seed=seed
    )
    data = [{"start": pd.Period("2024", "h"), "target": y} for y in np.random.default_rng(seed).random((3, 90 + seed))]
    with quiet_training():
        return np.array([f.quantile(0.4) for f in made.train(data, shuffle_buffer_length=5).predict(data)])


def test_estimators_with_a_seed_train_in_threads_too():
    wanted = [estimate(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool, others_drawing():
        found = list(pool.map(estimate, range(3)))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_quiet_trainings_in_threads_leave_filters_and_logger_as_they_were():
    """Whichever ends first."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    before, filters = logger.level, list(warnings.filters)
    first, second = quiet_training(), quiet_training()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert logger.level == logging.ERROR
    second.__exit__(None, None, None)
    assert logger.level == before and warnings.filters == filters


def assert_equal(found: list[list[pd.DataFrame]], wanted: list[list[pd.DataFrame]]) -> None:
    for each, other in zip(found, wanted, strict=True):
        for a, b in zip(each, other, strict=True):
            pd.testing.assert_frame_equal(a, b, check_exact=True)


class Mix(nn.Module):
    """A user's mixer, with every kind of layer that draws in training."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, 2, dropout=0.3, batch_first=True)
        self.layers = nn.Sequential(nn.Linear(dim, dim), nn.RReLU(), nn.Dropout(0.2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(self.layers(x) + self.attention(x, x, x)[0], 0.3, self.training)


MIXERS = {
    "own": Mix,
    "dropout": lambda dim: nn.Sequential(nn.Linear(dim, dim), nn.Dropout()),
    "rrelu": lambda dim: nn.RReLU(),
}


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_mixer_that_draws_otherwise_hangs_on_the_seed_alone(mixer):
    """And leaves the global generators as they were, also after an error."""
    options = SMALL | FITS[0] | {"mixer": MIXERS[mixer]}
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = global_states()
        found.append(forecasts(options))
        assert global_states() == before
    assert_equal(found[:1], found[1:])
    with pytest.raises(ValueError, match="training diverged"):
        TitansForecaster(**options, learning_rate=1e30).fit(frame(0))
    assert global_states() == before


def test_an_estimator_with_a_module_that_draws_otherwise():
    class Own(TitansEstimator):
        def create_lightning_module(self):
            module = super().create_lightning_module()
            module.network.blocks[0].mixer = Mix(8)
            return module

    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(estimate(0, Own))
        assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("mixer", ["memory", "attention", "ssm", "none"])
def test_the_mixers_here_need_no_global_generator(mixer):
    network = SimbaForecaster(24, 6, dim=8, mixer=mixer)
    with Draws(0).dropping(network):
        torch.manual_seed(7)
        before = torch.get_rng_state()
        sum(part.sum() for part in network(torch.ones(6, 24))).backward()
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)  # nothing was set back either


@contextmanager
def others_drawing() -> Iterator[None]:
    """Another thread draws from every global generator, and seeds them anew, all the time."""
    done = threading.Event()

    def draw() -> None:
        while not done.is_set():
            torch.manual_seed(random.randrange(100))
            torch.rand(3)
            np.random.seed(int(np.random.randint(100)))
            random.random()

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_four_fits_in_threads_are_the_fits_one_by_one(one_by_one):
    with ThreadPoolExecutor(4) as pool:
        assert_equal(list(pool.map(forecasts, FITS)), one_by_one)


def test_a_fit_beside_other_draws_is_the_same(one_by_one):
    with others_drawing():
        assert_equal([forecasts(FITS[0])], one_by_one[:1])


def global_states() -> list[bytes]:
    """Not that of `random`: under pytest beartype draws which item of a list it looks at."""
    _, numbers, place, *_ = np.random.get_state()
    return [torch.get_rng_state().numpy().tobytes(), numbers.tobytes(), bytes([place % 256])]


def test_training_leaves_the_global_random_states_alone():
    """In a process of its own, without beartype: those of torch, NumPy and `random`."""
    command = [sys.executable, "-W", "ignore", "-c", ALONE]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["True"] * 4, done.stderr


ALONE = """
import logging
import random
import numpy as np
import pandas as pd
import torch
from titans_seq import TitansForecaster
from titans_seq.forecast.estimator import TitansEstimator

def states():
    kind, numbers, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), numbers.tolist(), rest, random.getstate()

y = np.random.default_rng(0).standard_normal(150).cumsum()
df = pd.DataFrame({"unique_id": "a", "ds": pd.date_range("2024", periods=150, freq="h"), "y": y})
small = {"max_epochs": 1, "steps_per_epoch": 2, "accelerator": "cpu", "lookback": 24, "val_size": 24}
model = TitansForecaster(horizon=4, network={"dim": 8}, **small)
before = states()
model.fit(df).fit(df).predict()
print(states() == before)
model.observe(df).predict()
print(states() == before)
model.backtest(df)
print(states() == before)
trainer = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
made = TitansEstimator(4, 24, network={"dim": 8}, num_batches_per_epoch=2, trainer_kwargs=trainer, seed=0)
made.train([{"start": pd.Period("2024", "h"), "target": y}], shuffle_buffer_length=4)
print(states() == before)
"""


def test_a_failed_fit_leaves_modules_and_state_alone():
    model = TitansForecaster(**SMALL | FITS[0]).fit(frame(0))
    before = global_states()
    with pytest.raises(ValueError, match="training diverged"):
        model.set_params(learning_rate=1e30).fit(frame(0))
    assert global_states() == before
    assert all(layer.draws is None for layer in model.module_.modules() if isinstance(layer, Dropout))


def test_draws_are_those_of_the_seeded_global_generator():
    """Weights and masks, to the bit."""
    torch.manual_seed(5)
    wanted = SimbaForecaster(24, 6, dim=8)
    x = torch.randn(6, 24, generator=torch.Generator().manual_seed(0))
    outputs = [wanted(x)[0] for _ in range(3)]
    draws = Draws(5)
    with draws.building():
        made = SimbaForecaster(24, 6, dim=8)
    with draws.dropping(made):
        found = [made(x)[0] for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(wanted.parameters(), made.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(outputs, found, strict=True))


def test_building_reaches_every_kind_of_draw():
    def draw() -> list[torch.Tensor]:
        x = torch.ones(20)
        return [
            torch.randn(20), torch.rand(20), torch.randint(9, (20,)), torch.randint(2, 9, (20,)), torch.randperm(20),
            torch.rand_like(x), torch.randn_like(x), torch.bernoulli(0.5 * x), torch.normal(x, x), x.multinomial(5),
            nn.functional.dropout(x), x.clone().exponential_(), x.clone().uniform_(), x.clone().normal_(),
            torch.rand(20, out=torch.empty(20)), torch.randint(2, 9, (20,), out=torch.empty(20).long()),
            torch.randn(20, out=torch.empty(20)), torch.randperm(20, out=torch.empty(20).long()),
            torch.randint_like(x, 2, 9), nn.functional.rrelu(-x, training=True),
            nn.init.trunc_normal_(torch.empty(20)), nn.Linear(4, 5).weight, nn.MultiheadAttention(4, 2).in_proj_weight,
        ]  # fmt: skip

    torch.manual_seed(3)
    wanted = draw()
    before = global_states()
    with Draws(3).building():
        found = draw()
    assert global_states() == before
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropout(p):
    """With and without draws of its own; gradients are masked as values are; nothing happens in evaluation."""
    layer, x, draws = Dropout(p), torch.ones(1000, requires_grad=True), Draws(1)
    with draws.dropping(layer):
        y = layer(x)
        y.sum().backward()
        assert torch.equal(layer.eval()(x), x)
    assert torch.equal(x.grad, y)
    assert abs(float((y == 0).float().mean()) - p) < 0.1
    assert p == 1 or torch.allclose(y[y > 0], torch.tensor(1 / (1 - p)), rtol=1e-4)
    torch.manual_seed(1)
    assert torch.equal(layer.train()(x), y)


@pytest.mark.parametrize("p", [1e-6, 0.01, 0.2, 0.5, 0.99, 1 - 1e-6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_masks_keep_the_share_they_should_and_the_mean(p, dtype):
    """Of a million numbers, an odd one of them, within 6 standard deviations; p is a multiple of 2^-16."""
    size, p_in_steps = 10**6 + 1, min(max(round(p * 2**16), 1), 2**16 - 1) / 2**16
    y = Dropout(p).train()(torch.ones(size, dtype=dtype)).double()
    share = float((y == 0).double().mean())
    assert abs(share - p_in_steps) < 6 * (p_in_steps * (1 - p_in_steps) / size) ** 0.5
    kept = y[y > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p_in_steps)), rtol=1e-2, atol=0)


def test_numbers_of_a_mask_are_independent():
    """Any two of a mask, over many masks: four of them come from one draw of 64 bits."""
    masks = torch.stack([Dropout(0.5).train()(torch.ones(64)) for _ in range(4000)]) - 1
    correlations = masks.T @ masks / len(masks) - torch.eye(64)
    assert correlations.abs().max() < 6 / len(masks) ** 0.5


def test_operations_without_a_generator_draw_from_a_seed_of_the_draws():
    """Fused attention in a constructor; the kernels of a GPU that drop; in a block of its own each."""
    x = torch.ones(1, 2, 5, 4)

    def draw() -> list[torch.Tensor]:
        dropped = [torch.ops.aten.native_dropout(torch.ones(100), 0.5, True)[0] for _ in range(2)]
        return [*dropped, nn.functional.scaled_dot_product_attention(x, x, x), torch.rand(3)]

    found = []
    for seed in (3, 3, 4):
        before = global_states()
        with Draws(seed).building():
            found.append(draw())
        assert global_states() == before
        torch.rand(1)
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    assert not torch.equal(found[0][0], found[0][1]) and not torch.equal(found[0][0], found[2][0])
    assert torch.equal(found[0][2], x)


def test_building_without_storage_draws_nothing():
    draws, before = Draws(3), global_states()
    with draws.building(), torch.device("meta"):
        assert SimbaForecaster(24, 6, dim=8).head.weight.is_meta
        nn.functional.dropout(torch.empty(5))
    assert global_states() == before
    assert torch.equal(draws.on("cpu").get_state(), Draws(3).on("cpu").get_state())


def test_one_generator_per_device():
    draws = Draws(0)
    assert draws.on("cpu:0") is draws.on("cpu") is draws.on(torch.device("cpu", 0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_one_generator_per_gpu():
    draws = Draws(0)
    assert draws.on("cuda") is draws.on("cuda:0") is draws.on(torch.zeros(1, device="cuda").device)


def test_dropping_may_be_nested_and_copied():
    layer, x, outer = Dropout(0.5), torch.ones(100), Draws(1)
    with Draws(1).dropping(layer):
        wanted = layer(x)
    with outer.dropping(layer):
        with Draws(2).dropping(layer):
            assert not torch.equal(layer(x), wanted)
        assert layer.draws is outer and copy.deepcopy(layer).draws is None
        assert torch.equal(layer(x), wanted)
    assert layer.draws is None
