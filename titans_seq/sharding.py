"""FSDP: the weights of a network shared out over the devices that train it.

Weights are gathered for the forward, and again for the backward, of a unit: each block is one, all the rest of the
network another. A module can so read what lies inside of it anywhere in its forward (the output weights are the
embedding's, MAC reads the persistent tokens of its attention), but nothing outside of a block can read the block's.
"""

from collections.abc import Mapping
from functools import partial

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Share a network's weights out over all devices of a mesh, in place; once is enough.

    Blocks are what lies in a `ModuleList`. Afterwards parameters and their gradients are `DTensor`s, but plain tensors
    within a forward; only a call of the network itself gathers them.
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


class ShardedStrategy(ModelParallelStrategy):
    """Trains a `TrainedModule` with the weights of its network shared out over all devices; checkpoints are whole
    files.
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Lightning shares weights out in this hook of a module. As a method, under every strategy, it would make
        Lightning's `WeightAveraging` warn of what is not so."""
        super().setup_environment()
        module = self.lightning_module
        assert module is not None and isinstance(module.network, nn.Module)
        module.configure_model = partial(shard, module.network, self.device_mesh)  # type: ignore[method-assign]
