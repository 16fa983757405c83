"""FSDP: the weights of a network shared out over the devices that train it.

Weights are gathered for the forward, and again for the backward, of a unit: each block is one, all the rest of the network another.
A module can so read what lies inside of it anywhere in its forward (the output weights are the embedding's, MAC reads the persistent
tokens of its attention), but nothing outside of a block can read the block's.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Share a network's weights out over all devices of a mesh, in place; once is enough.

    Blocks are what lies in a `ModuleList`. Afterwards parameters and their gradients are `DTensor`s, but plain tensors within a
    forward; only a call of the network itself gathers them.
    """
    if is_sharded(network):
        return
    everyone = init_device_mesh(mesh.device_type, (mesh.size(),))
    for blocks in [module for module in network.modules() if isinstance(module, nn.ModuleList)]:
        for block in blocks:
            fully_shard(block, mesh=everyone)
    fully_shard(network, mesh=everyone)


def is_sharded(network: nn.Module) -> bool:
    return isinstance(network, FSDPModule)


def load_whole(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a module whose weights may be shared out those of a whole one; every process has them."""
    set_model_state_dict(module, dict(weights), options=StateDictOptions(full_state_dict=True))
