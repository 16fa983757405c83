"""What two processes make of networks whose weights they share. A module of its own: the processes import it by its
name.
"""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from titans_seq.forecast import SimbaForecaster
from titans_seq.genomics import DNAEncoder, DNALanguageModel
from titans_seq.language import LanguageModel
from titans_seq.sharding import is_sharded, load_whole, shard

CLIP = 1e-3  # below every norm here
MEMORY = {"heads": 1, "chunk_size": 4}  # one head: of the initial memory [1, out, in] the second process holds nothing
LANGUAGE: dict[str, dict[str, Any]] = {
    "memory": MEMORY,
    "mac": {**MEMORY, "segment": 8},
    "mag": {**MEMORY, "window": 4},
    "mal": {**MEMORY, "window": 4},
    "h3": {**MEMORY, "window": 4, "form": "h3", "mixer": "mal"},
    "attention": {"heads": 2},
}
NAMES = (*LANGUAGE, "both sides", "forecaster")


def made(name: str) -> tuple[nn.Module, Tensor]:
    """A network, the same at every call, and a batch of four."""
    torch.manual_seed(0)
    tokens = torch.randint(4, 8, (4, 19))
    if name == "forecaster":
        past = torch.stack([torch.randn(4, 32), (torch.rand(4, 32) < 0.8).float()], dim=1)  # values and their mask
        return SimbaForecaster(32, 8, dim=8, dropout=0, head_dropout=0, **MEMORY), past
    if name == "both sides":
        return DNALanguageModel(DNAEncoder(8, bidirectional=True, **MEMORY)), tokens
    return LanguageModel(16, 8, layers=2, **{"mixer": name, **LANGUAGE[name]}), tokens


def clipped(network: nn.Module, batch: Tensor) -> Tensor:
    """Leave clipped gradients in the network; return their norm before."""
    y = network(*batch.unbind(1)) if batch.ndim == 3 else network(batch)
    (y[0] if isinstance(y, tuple) else y).sub(1).square().mean().backward()
    return torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)


def share(rank: int, folder: Path) -> None:
    """What one of two processes does; the first writes down what came of it."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    mesh, found = init_device_mesh("cpu", (1, 2)), {}
    for name in NAMES:
        network, batch = made(name)
        whole = {key: 2 * value for key, value in network.state_dict().items()}
        shard(network, mesh)
        shard(network, mesh)  # Lightning asks before the training and before the test
        norm = clipped(network, batch.chunk(2)[rank])
        assert is_sharded(network) and isinstance(norm, DTensor)
        found[name] = {
            "norm": norm.full_tensor(),
            "units": [key for key, module in network.named_modules() if is_sharded(module)],
            "held": sum(weight.to_local().numel() for weight in network.parameters()),
            "gradients": {key: weight.grad.full_tensor() for key, weight in network.named_parameters()},
        }
        load_whole(network, whole)
        found[name]["weights"] = get_model_state_dict(network, options=StateDictOptions(full_state_dict=True))
    if rank == 0:
        torch.save(found, folder / "found")
    dist.destroy_process_group()
