"""The random numbers of one training, apart from the global ones: threads may train side by side."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

# of torch.nn, what draws in every training; the others take their dropout as a number
RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)


class Dropout(nn.Dropout):
    """`nn.Dropout`; while `Draws.dropping` lasts, its masks come from those draws, those of a copy do not.

    On a CPU a mask takes 16 random bits per number, and p is rounded to as many; PyTorch's own mask takes 64, one by
    one, and four times as long (docs/LOG.md). Equal generators, the global one or that of draws, give equal masks.
    `vmap` does not take it with randomness="different".
    """

    draws: "Draws | None" = None

    def forward(self, input: Tensor) -> Tensor:
        here = input.device.type == "cpu" and not torch.compiler.is_compiling()
        if not self.training or not 0 < self.p < 1 or (self.draws is None and not here):
            return super().forward(input)
        generator = None if self.draws is None else self.draws.on(input.device)
        return input * _mask(input, 1 - self.p, generator)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "draws"}


def _mask(x: Tensor, keep: float, generator: torch.Generator | None) -> Tensor:
    """In the shape and dtype of x: 1 / keep with a probability of `keep`, else 0."""
    if x.device.type != "cpu":
        return torch.empty_like(x).bernoulli_(keep, generator=generator).div_(keep)
    steps = min(max(round(keep * 2**16), 1), 2**16 - 1)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    kept = bits.view(torch.int16)[: x.numel()].view(x.shape) < steps - 2**15
    return kept.to(x.dtype).mul_(2**16 / steps)


class Draws:
    """Generators of one training, one per device, all from one seed. The global ones are neither read nor changed,
    except for layers and operations that take no generator: see `dropping` and `building`.

        draws = Draws(seed)
        with draws.building():
            network = SimbaForecaster(...)
        with draws.dropping(network):
            ...  # train

    A generator on the CPU gives the numbers that PyTorch's global one would after `torch.manual_seed(seed)`.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def on(self, device: torch.device | str) -> torch.Generator:
        device = torch.device(device)
        if device not in self._generators:
            device = torch.empty(0, device=device).device  # "cuda" is the current GPU, a tensor knows its index
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[device]

    @contextmanager
    def building(self) -> Iterator[None]:
        """Whatever this thread draws in the block, initial weights for one, is drawn from here.

        An operation that takes no generator (fused attention) uses PyTorch's global ones, with a seed drawn from here;
        they are set back after it.
        """
        with _Redirected(self):
            yield

    @contextmanager
    def dropping(self, network: nn.Module) -> Iterator[None]:
        """All `Dropout` in the network draws from here; at the end it draws from where it drew before.

        Other layers that may draw, such as a user's own modules, use PyTorch's global generators. If there are any, the
        block seeds the global generators and sets them back at the end: no other thread should draw meanwhile.
        """
        before = {layer: layer.draws for layer in network.modules() if isinstance(layer, Dropout)}
        otherwise = any(_draws_otherwise(layer) for layer in network.modules())
        try:
            for layer in before:
                layer.draws = self
            with _global_seed(self.seed) if otherwise else nullcontext():
                yield
        finally:
            for layer, draws in before.items():
                layer.draws = draws


def _draws_otherwise(layer: nn.Module) -> bool:
    """Whether the layer itself may draw random numbers in training, other than as `Dropout` does."""
    home = type(layer).__module__
    if home.startswith("torch.nn."):
        by_number = isinstance(layer, nn.MultiheadAttention | nn.RNNBase) and layer.dropout > 0
        return by_number or isinstance(layer, RANDOM)
    return home.split(".")[0] != "titans_seq"


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seed PyTorch's global generators; at the end, also after an error, set them back."""
    # not Lightning's isolate_rng, which sets nothing back after an error
    with torch.random.fork_rng(range(torch.cuda.device_count()), device_type="cuda"):
        torch.manual_seed(seed)
        yield


class _Redirected(TorchDispatchMode):
    """Gives every random operation of this thread a generator: layers of PyTorch draw their weights without one."""

    def __init__(self, draws: Draws) -> None:
        super().__init__()
        self.draws = draws

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        given = (*args, *named.values())
        if torch.Tag.nondeterministic_seeded not in func.tags or any(isinstance(x, torch.Generator) for x in given):
            return func(*args, **named)
        tensors = (x.device for x in given if isinstance(x, Tensor))
        device = torch.device(named.get("device") or next(tensors, "cpu"))
        if device.type == "meta":  # nothing is drawn
            return func(*args, **named)
        seeded = _with_generator(func)
        if seeded is not None:
            return seeded(*args, **named | {"generator": self.draws.on(device)})
        seed = torch.randint(2**63 - 1, (), generator=self.draws.on("cpu"))
        with _global_seed(int(seed)):
            return func(*args, **named)


def _with_generator(func: Any) -> Any:
    """The overload with the same arguments and a generator, e.g. randn.generator for randn.default, or None."""
    wanted = {**_arguments(func), "generator": "Optional[Generator]"}
    overloads = (getattr(func.overloadpacket, name) for name in func.overloadpacket.overloads())
    return next((each for each in (func, *overloads) if _arguments(each) == wanted), None)


def _arguments(func: Any) -> dict[str, str]:
    """Their types by name."""
    return {argument.name: str(argument.type) for argument in func._schema.arguments}
