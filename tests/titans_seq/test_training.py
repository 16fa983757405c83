"""What all trainings share: the optimiser."""

import copy

import lightning as L
import pytest
import torch
from accuracy import assert_equal_to
from torch import nn

from titans_seq.forecast import ForecastModule, SimbaForecaster
from titans_seq.training import adamw, quiet_training


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> list[torch.Tensor]:
    for step in range(first, last):
        optimizer.zero_grad()
        model(torch.randn(4, 5, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimizer.step()
    return list(model.parameters())


@pytest.mark.parametrize("resumed", [None, "by PyTorch's loop", "by the one kernel"])
def test_steps_are_those_of_adamw(resumed):
    """Also when one goes on where the other stopped."""
    options = {"lr": 1e-2, "weight_decay": 0.1, "betas": (0.8, 0.9)}
    plain, model = network(), network()
    plain_steps, fused = torch.optim.AdamW(plain.parameters(), **options), adamw(model.parameters(), **options)
    assert fused.param_groups[0]["fused"] and not plain_steps.param_groups[0]["fused"]
    wanted, found = steps(plain, plain_steps, 0, 5), steps(model, fused, 0, 5)
    if resumed is not None:
        state = copy.deepcopy((plain_steps if "loop" in resumed else fused).state_dict())
        fused = adamw(model.parameters(), **options)
        fused.load_state_dict(state)
    wanted, found = steps(plain, plain_steps, 5, 10), steps(model, fused, 5, 10)
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert_equal_to(a, b, name=f"parameter {i}", tolerance=1e-6)


def test_where_the_one_kernel_does_not_run():
    """Another device; numbers of another kind."""
    for weight in (torch.empty(3, device="meta"), torch.empty(3, dtype=torch.complex64)):
        assert not adamw([nn.Parameter(weight)], lr=1e-3).param_groups[0]["fused"]


def test_gradients_are_clipped_under_mixed_precision():
    """Lightning refuses to for an optimiser that says it unscales gradients."""
    batches = [{"past_target": torch.randn(2, 20), "future_target": torch.randn(2, 5)} for _ in range(2)]
    module = ForecastModule(SimbaForecaster(20, 5, dim=8, mixer="none"))
    with quiet_training():
        trainer = L.Trainer(
            max_epochs=1, precision="bf16-mixed", gradient_clip_val=1e-3, accelerator="cpu", logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    gradients = torch.cat([p.grad.flatten() for p in module.parameters()])
    assert 0.9e-3 < gradients.norm() < 1.01e-3
    assert trainer.optimizers[0].param_groups[0]["fused"]
