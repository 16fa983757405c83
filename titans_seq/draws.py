"""The random numbers of one training, apart from the global ones: threads may train side by side."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class Dropout(nn.Dropout):
    """`nn.Dropout`; while `Draws.dropping` lasts, its masks come from those draws."""

    draws: "Draws | None" = None

    def forward(self, input: Tensor) -> Tensor:
        if self.draws is None or not self.training or not 0 < self.p < 1:
            return super().forward(input)
        # PyTorch's own formula on a CPU, so with an equal generator its own masks
        keep = 1 - self.p
        return input * torch.empty_like(input).bernoulli_(keep, generator=self.draws.on(input.device)).div_(keep)


class Draws:
    """Generators of one training, one per device, all from one seed. The global ones are neither read nor changed.

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
            self._generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[device]

    @contextmanager
    def building(self) -> Iterator[None]:
        """Whatever this thread draws in the block, initial weights for one, is drawn from here."""
        with _Redirected(self):
            yield

    @contextmanager
    def dropping(self, module: nn.Module) -> Iterator[None]:
        """All `Dropout` in the module draws from here; at the end it draws from the global generator again."""
        layers = [layer for layer in module.modules() if isinstance(layer, Dropout)]
        for layer in layers:
            layer.draws = self
        try:
            yield
        finally:
            for layer in layers:
                del layer.draws


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
        if torch.Tag.nondeterministic_seeded in func.tags and named.get("generator") is None:
            if not any(argument.name == "generator" for argument in func._schema.arguments):
                func = _with_generator(func)
            device = next((x.device for x in args if isinstance(x, Tensor)), named.get("device") or "cpu")
            named["generator"] = self.draws.on(device)
        return func(*args, **named)


def _with_generator(func: Any) -> Any:
    """The overload of the same arguments that takes a generator too, e.g. randn.generator for randn.default."""
    name = "generator" if func._overloadname == "default" else f"{func._overloadname}_generator"
    if name not in func.overloadpacket.overloads():
        raise RuntimeError(f"{func} draws random numbers and takes no generator")
    return getattr(func.overloadpacket, name)
