"""Networks of runs, built without the commands under test."""

from pathlib import Path

import torch

from titans_seq.forecast import SimbaForecaster


def network_of(run: Path) -> SimbaForecaster:
    """The network of a small run, lookback 16 and horizon 8, from its checkpoint alone."""
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    network = SimbaForecaster(16, 8, dim=8, blocks=1, heads=2).eval()
    network.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})
    return network
