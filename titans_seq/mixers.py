"""The sequence mixers by name, for forecasting, DNA and language alike.

A new one is a subclass of `Mixer`, a line in `MIXERS`, and a yaml in configs/model.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from titans_seq.attention import Attention
from titans_seq.gated_deltanet import GatedDeltaNet
from titans_seq.memory import NeuralMemory
from titans_seq.mixer_base import Mixer
from titans_seq.ssm import SelectiveSSM
from titans_seq.variants import MAC, MAG, MAL

MIXERS: dict[str, type[Mixer]] = {
    "memory": NeuralMemory,  # LMM, eq. 19
    "mac": MAC,
    "mag": MAG,
    "mal": MAL,
    "attention": Attention,
    "ssm": SelectiveSSM,
    "gated_deltanet": GatedDeltaNet,
}
WITH_MEMORY = tuple(name for name, mixer in MIXERS.items() if mixer.has_memory)


def makers(mixer: str) -> list[type[Mixer]]:
    """The classes that take the options of a mixer, the one that decides last."""
    own = MIXERS[mixer]
    return [own] if own.options_to is None else [own.options_to, own]


def options_of(mixer: str) -> dict[str, inspect.Parameter]:
    """The options of a mixer by name."""
    found = {name: option for make in makers(mixer) for name, option in inspect.signature(make).parameters.items()}
    return {name: option for name, option in found.items() if option.kind is option.KEYWORD_ONLY}


def make_mixer(
    mixer: str | Callable[..., nn.Module],
    dim: int,
    defaults: Mapping[str, Any] | None = None,
    *,
    optional: bool = False,
    **options: Any,
) -> nn.Module | None:
    """Make a mixer of width D.

    Args:
        mixer: a name in `MIXERS`, or a callable that makes a module `[B, T, D] -> [B, T, D]` from D.
        dim: D.
        defaults: options of the field, for mixers that take them.
        optional: "none" is a name too, and gives None.
        options: of the mixer; they go before the defaults.

    Raises:
        ValueError: no such name, or options for none.
        TypeError: an option that the mixer does not take.
    """
    if not isinstance(mixer, str):
        return mixer(dim, **options)
    if optional and mixer == "none":
        if options:
            raise ValueError(f'mixer="none" takes no options; got {", ".join(options)}')
        return None
    if mixer not in MIXERS:
        names = ", ".join([*MIXERS, *(["none"] if optional else [])])
        raise ValueError(f"mixer must be one of {names} or a callable; got {mixer!r}")
    known = options_of(mixer)
    usual = {name: value for name, value in (defaults or {}).items() if name in known}
    return MIXERS[mixer](dim, **{**usual, **options})


def has_memory(module: object) -> bool:
    """Whether a mixer can tell its surprise; modules of users cannot."""
    return isinstance(module, Mixer) and module.has_memory
