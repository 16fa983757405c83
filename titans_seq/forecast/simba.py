"""A Simba-style forecaster: PatchTST's frame, blocks of a sequence mixer and EinFFT.

Dimensions: B batch, L lookback, H horizon, C channels, N patches, D model width. Every channel is a series of its own.
Sources: PatchTST (arXiv 2211.14730) for RevIN, patches and head; SiMBA (arXiv 2403.15360) for the blocks; Titans (arXiv
2501.00663v1, section 5.6) for the memory in the mixer's place.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titans_seq.blocks import ModelState
from titans_seq.draws import Dropout
from titans_seq.forecast.mixers import MIXERS
from titans_seq.memory import LayerState, NeuralMemory


class EinFFT(nn.Module):
    """Channel mixing in the frequency domain: FFT over the sequence, two complex block-diagonal layers, inverse FFT.

    ReLU on real and imaginary part after the first layer, soft shrinkage after the second. NOT causal: every output
    depends on the whole sequence, so it belongs in an encoder over the lookback only. `blocks` must divide `dim`.
    Source: SiMBA, section 3.1; like the paper, and unlike its code, the transform runs over the sequence alone.
    """

    def __init__(self, dim: int, *, blocks: int = 4, shrink: float = 0.01) -> None:
        super().__init__()
        if dim % blocks:
            raise ValueError(f"dim must be a multiple of the EinFFT blocks; got dim {dim} and blocks {blocks}")
        width = dim // blocks
        self.blocks, self.shrink = blocks, shrink
        # last dimension: real and imaginary part
        self.weight = nn.Parameter(0.02 * torch.randn(2, blocks, width, width, 2))
        self.bias = nn.Parameter(0.02 * torch.randn(2, blocks, 1, width, 2))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        tokens = x.shape[1]
        spectrum = torch.fft.rfft(x, dim=1, norm="ortho")  # [B, F, D]
        # the blocks first: one product per block, where [B, blocks, F, width] would be one per block and sample
        blocked = spectrum.reshape(-1, self.blocks, x.shape[2] // self.blocks).transpose(0, 1)  # [blocks, B F, width]
        weight, bias = torch.view_as_complex(self.weight), torch.view_as_complex(self.bias)
        hidden = torch.view_as_real(torch.baddbmm(bias[0], blocked, weight[0]))
        hidden = torch.view_as_complex(F.relu(hidden))
        mixed = torch.view_as_real(torch.baddbmm(bias[1], hidden, weight[1]))
        mixed = torch.view_as_complex(F.softshrink(mixed, self.shrink))
        return torch.fft.irfft(mixed.transpose(0, 1).reshape(spectrum.shape), n=tokens, dim=1, norm="ortho")


class Block(nn.Module):
    """x + mixer(norm(x)), then x + EinFFT(norm(x)); without a mixer only the second."""

    def __init__(self, dim: int, mixer: nn.Module | None, dropout: float) -> None:
        super().__init__()
        self.mixer = mixer
        self.mixer_norm = nn.Identity() if mixer is None else nn.LayerNorm(dim)
        self.channel_norm = nn.LayerNorm(dim)
        self.channels = EinFFT(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, D] -> [B, N, D]; tokens where the mask [B, N] is False write nothing into a memory."""
        if self.mixer is None:
            return self._channels(x)
        masked = {"mask": mask} if isinstance(self.mixer, NeuralMemory) else {}
        return self._channels(x + self.dropout(self.mixer(self.mixer_norm(x), **masked)))

    def carry(
        self, x: Tensor, mask: Tensor | None = None, state: LayerState | None = None
    ) -> tuple[Tensor, LayerState, Tensor]:
        """As forward, from a state of the memory; also the state after it, and the surprise [B, N], the mean over
        heads.
        """
        assert self.mixer is not None
        more = {"return_state": True, "return_surprise": True}
        mixed, state, surprise = self.mixer(self.mixer_norm(x), state=state, mask=mask, **more)
        assert state is not None
        return self._channels(x + self.dropout(mixed)), state, surprise.mean(dim=-1)

    def _channels(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.channels(self.channel_norm(x)))


class SimbaForecaster(nn.Module):
    """Forecast H steps of every channel from its last L steps.

    RevIN (statistics of the lookback, no learned affine), patches with the end repeated, a linear embedding with
    learned positions, the blocks, one linear head over all patches. Channels share all weights and never see each
    other.

    Args:
        lookback: L >= patch_size. horizon: H.
        mixer: "memory", "attention", "ssm", "none", or a callable that makes a `[B, N, D] -> [B, N, D]` module from D.
        dim: D, a multiple of 4. blocks: number of (mixer, EinFFT) pairs.
        patch_size, patch_stride: steps of a patch and between patches.
        dropout: inside the blocks. head_dropout: before the head.
        mixer_options: to the mixer, e.g. depth=3, heads=2, chunk_size=8 for the memory.
    """

    mixers = MIXERS  # by name; their options are the forecaster's too

    def __init__(
        self,
        lookback: int = 96,
        horizon: int = 96,
        *,
        mixer: str | Callable[[int], nn.Module] = "memory",
        dim: int = 32,
        blocks: int = 1,
        patch_size: int = 16,
        patch_stride: int = 8,
        dropout: float = 0.2,
        head_dropout: float = 0.4,
        **mixer_options: Any,
    ) -> None:
        super().__init__()
        if not 1 <= patch_stride <= patch_size:  # beyond, steps would lie in no patch
            raise ValueError(
                f"patch_stride must be >= 1 and at most patch_size; got {patch_stride} and patch_size {patch_size}"
            )
        if lookback < patch_size:
            raise ValueError(
                f"lookback must be at least patch_size; got lookback {lookback} and patch_size {patch_size}"
            )
        if horizon < 1:
            raise ValueError(f"horizon must be >= 1; got {horizon}")
        make = _mixer_maker(mixer, mixer_options)
        self.lookback, self.horizon = lookback, horizon
        self.patch_size, self.patch_stride = patch_size, patch_stride
        patches = (lookback - patch_size) // patch_stride + 2
        self.embed = nn.Linear(patch_size, dim)
        self.position = nn.Parameter(0.02 * torch.randn(patches, dim))
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(Block(dim, make(dim) if make else None, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)
        self.head_dropout = Dropout(head_dropout)
        self.head = nn.Linear(patches * dim, horizon)

    def forward(self, past_target: Tensor) -> Tensor:
        """past_target [B, L, C] -> forecast [B, H, C], on the scale of the input."""
        x, mean, std = self._normalise(past_target)
        x = self._tokens(x)
        for block in self.blocks:
            x = block(x)
        x = self.head(self.head_dropout(self.norm(x).flatten(1)))  # [B * C, H]
        return x.unflatten(0, (len(past_target), -1)).mT * std + mean

    def surprise(self, past_target: Tensor) -> Tensor:
        """How much every step of the input surprised the memory: [B, L, C], the mean over blocks and heads.

        A patch's surprise is spread over its steps; where patches overlap, their mean counts.
        """
        return self.read(past_target)[0]

    def read(self, past_target: Tensor, states: ModelState | None = None) -> tuple[Tensor, ModelState]:
        """As `surprise`, from the memory's states after the L steps before; also the states after these."""
        _, after, steps = self._carried(self._tokens(self._normalise(past_target)[0]), None, states, "surprise")
        return steps.unflatten(0, (len(past_target), -1)).mT, after

    def _carried(
        self, x: Tensor, mask: Tensor | None, states: ModelState | None, what: str
    ) -> tuple[Tensor, ModelState, Tensor]:
        """Tokens [G, N, D] through the blocks from the memory's states: tokens, states after them, surprise of every
        step [G, L].

        what: needs the memory, for the error where there is none.
        """
        blocks, after = self._memory_blocks(what), []
        total = x.new_zeros(x.shape[:2])
        for block, state in zip(blocks, states.blocks if states else [None] * len(blocks), strict=True):
            assert state is None or isinstance(state, LayerState)
            x, new, surprise = block.carry(x, mask, state)
            after.append(new)
            total = total + surprise
        patches = (total / len(blocks))[:, None].expand(-1, self.patch_size, -1)  # [G, P, N]
        return x, ModelState(tuple(after)), self._overlap_mean(patches)

    def _memory_blocks(self, what: str) -> list[Block]:
        blocks = [block for block in self.blocks if isinstance(block, Block) and isinstance(block.mixer, NeuralMemory)]
        if len(blocks) < len(self.blocks):
            raise ValueError(f'{what} needs a forecaster with mixer="memory"')
        return blocks

    def _normalise(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if x.ndim != 3 or x.shape[1] != self.lookback:
            raise ValueError(f"past_target must be [B, {self.lookback}, C]; got {tuple(x.shape)}")
        mean = x.mean(dim=1, keepdim=True)
        std = torch.sqrt(x.var(dim=1, keepdim=True, unbiased=False) + 1e-5)
        return (x - mean) / std, mean, std

    def _tokens(self, x: Tensor) -> Tensor:
        """[B, L, C] -> patch tokens [B * C, N, D]."""
        x = F.pad(x.mT.flatten(0, 1)[:, None], (0, self.patch_stride), mode="replicate")[:, 0]
        patches = x.unfold(-1, self.patch_size, self.patch_stride)  # [B * C, N, P]
        return self.dropout(self.embed(patches) + self.position)

    def _overlap_mean(self, patches: Tensor) -> Tensor:
        """Values per step of every patch [G, P, N] -> mean per step [G, L]."""
        length = (patches.shape[-1] - 1) * self.patch_stride + self.patch_size
        shape = {"output_size": (1, length), "kernel_size": (1, self.patch_size), "stride": (1, self.patch_stride)}
        total = F.fold(patches, **shape)
        return (total / F.fold(torch.ones_like(patches), **shape))[:, 0, 0, : self.lookback]


def _mixer_maker(mixer: str | Callable[[int], nn.Module], options: dict[str, Any]) -> Callable[[int], nn.Module] | None:
    if isinstance(mixer, str):
        if mixer not in MIXERS:
            raise ValueError(f"mixer must be one of {', '.join(MIXERS)} or a callable; got {mixer!r}")
        make = MIXERS[mixer]
        if make is None and options:
            raise ValueError(f'mixer="none" takes no options; got {", ".join(options)}')
        return make and (lambda dim: make(dim, **options))
    return lambda dim: mixer(dim, **options)
