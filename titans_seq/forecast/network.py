"""A Simba-style forecaster: PatchTST's frame, blocks of a sequence mixer and EinFFT. One series per sample.

Dimensions: B batch, L lookback, H horizon, N patches, D model width, P raw numbers per forecast step; F future
covariates (known ahead), G past ones, E static ones.
Sources: PatchTST (arXiv 2211.14730) for RevIN, patches and head; SiMBA (arXiv 2403.15360) for the blocks; Titans (arXiv
2501.00663v1, section 5.6) for the memory in the mixer's place.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from titans_seq.blocks import ModelState
from titans_seq.draws import Dropout
from titans_seq.kernels.state import BatchState
from titans_seq.mixer_base import Mixer
from titans_seq.mixers import WITH_MEMORY, has_memory, make_mixer

FEW = 8  # observed steps: fewer say nothing of how far the next may lie
INPUTS = ("past_target", "past_observed_values", "past_features", "future_features", "static_features")

Forecast = tuple[Float[Tensor, "B H P"], Float[Tensor, "B 1"], Float[Tensor, "B 1"]]
Covariates = Float[Tensor, "B T K"] | None


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


class SimbaBlock(nn.Module):
    """x + mixer(norm(x)), then x + EinFFT(norm(x)); without a mixer only the second."""

    def __init__(self, dim: int, mixer: nn.Module | None, dropout: float) -> None:
        super().__init__()
        self.mixer = mixer
        self.mixer_norm = nn.Identity() if mixer is None else nn.LayerNorm(dim)
        self.channel_norm = nn.LayerNorm(dim)
        self.channels = EinFFT(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None = None) -> Float[Tensor, "B N D"]:
        """A `Mixer` does not read tokens where the mask is False; other modules do not know of it."""
        if self.mixer is None:
            return self._channels(x)
        masked = {"mask": mask} if isinstance(self.mixer, Mixer) else {}
        return self._channels(x + self.dropout(self.mixer(self.mixer_norm(x), **masked)))

    def carry(
        self, x: Tensor, mask: Tensor | None = None, state: BatchState | None = None
    ) -> tuple[Tensor, BatchState, Tensor]:
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
    """Forecast H steps of a series from its last L steps.

    The mean and deviation of the observed steps are removed (RevIN without a learned affine), patches with the end
    repeated are embedded with learned positions, the blocks mix them, and one linear head reads all patches. A missing
    step is the mean with a mark beside it, and patches without any observed step write nothing into the memory. Past
    covariates enter the patches, future ones also the steps of the forecast, static ones both.

    Args:
        lookback: L, at least patch_size.
        horizon: H, at least 1.
        outputs: P, raw numbers per step of the forecast.
        past_features: F + G covariates of the lookback.
        future_features: F covariates known over the horizon.
        static_features: E covariates of the series.
        min_scale: the least deviation a lookback is said to have, for targets of a size of about 1: without it a flat
            lookback makes whatever follows as large as its rounding is small. 0 for targets of any size.
        mixer: one of `titans_seq.mixers.MIXERS`, "none", or a callable that makes a `[B, N, D] -> [B, N, D]` module
            from D.
        dim: D, a multiple of 4.
        blocks: number of (mixer, EinFFT) pairs.
        patch_size: steps of a patch; None: 16, or half of a lookback below that.
        patch_stride: steps from one patch to the next, at most patch_size; None: half of it.
        dropout: inside the blocks.
        head_dropout: before the head.
        mixer_options: to the mixer, e.g. depth=3, heads=2, chunk_size=8 for the memory.
    """

    # Options of the mixers are the forecaster's too; these are for mixers that have them. A dozen patches would never
    # leave the first chunk of 64, or the first segment; attention sees the whole lookback.
    mixer_defaults: Mapping[str, Any] = {"chunk_size": 4, "segment": 4, "num_persistent": 4, "bidirectional": True}
    options: dict[str, Any]  # what it was made with

    def __init__(
        self,
        lookback: int = 96,
        horizon: int = 96,
        *,
        outputs: int = 1,
        past_features: int = 0,
        future_features: int = 0,
        static_features: int = 0,
        min_scale: float = 0.05,
        mixer: str | Callable[[int], nn.Module] = "memory",
        dim: int = 32,
        blocks: int = 1,
        patch_size: int | None = None,
        patch_stride: int | None = None,
        dropout: float = 0.2,
        head_dropout: float = 0.4,
        **mixer_options: Any,
    ) -> None:
        super().__init__()
        if patch_size is None:
            patch_size = 16 if lookback >= 16 else max(1, lookback // 2)
        patch_stride = max(1, patch_size // 2) if patch_stride is None else patch_stride
        self.options = {
            "lookback": lookback, "horizon": horizon, "outputs": outputs, "past_features": past_features,
            "future_features": future_features, "static_features": static_features, "min_scale": min_scale,
            "mixer": mixer, "dim": dim, "blocks": blocks, "patch_size": patch_size, "patch_stride": patch_stride,
            "dropout": dropout, "head_dropout": head_dropout, **mixer_options,
        }  # fmt: skip
        if not 1 <= patch_stride <= patch_size:  # beyond, steps would lie in no patch
            raise ValueError(
                f"patch_stride must be >= 1 and at most patch_size; got {patch_stride} and patch_size {patch_size}"
            )
        if lookback < patch_size:
            raise ValueError(
                f"lookback must be at least patch_size; got lookback {lookback} and patch_size {patch_size}: give a "
                "longer lookback (shorter series are padded), or a smaller patch_size and patch_stride"
            )
        if not isinstance(min_scale, int | float) or not 0 <= min_scale < torch.inf:
            raise ValueError(f"min_scale must be a number of at least 0; got {min_scale!r}")
        if horizon < 1 or outputs < 1:
            raise ValueError(f"horizon and outputs must be >= 1; got {horizon} and {outputs}")
        self.lookback, self.horizon, self.outputs = lookback, horizon, outputs
        self.past_features, self.future_features = past_features, future_features
        self.static_features, self.min_scale = static_features, min_scale
        self.patch_size, self.patch_stride = patch_size, patch_stride
        patches = (lookback - patch_size) // patch_stride + 2
        self.embed = nn.Linear(patch_size, dim)
        self.embed_more = nn.Linear(patch_size * (1 + past_features), dim, bias=False)  # 1: the mark of missing steps
        self.embed_static = nn.Linear(static_features, dim) if static_features else None
        self.position = nn.Parameter(0.02 * torch.randn(patches, dim))
        self.dropout = Dropout(dropout)
        made = (make_mixer(mixer, dim, self.mixer_defaults, optional=True, **mixer_options) for _ in range(blocks))
        self.blocks = nn.ModuleList(SimbaBlock(dim, each, dropout) for each in made)
        self.norm = nn.LayerNorm(dim)
        self.head_dropout = Dropout(head_dropout)
        self.head = nn.Linear(patches * dim, horizon * outputs)
        self.summary = nn.Linear(patches * dim, dim) if future_features else None
        steps = (nn.Linear(dim + future_features, 2 * dim), nn.GELU(), nn.Linear(2 * dim, outputs))
        self.steps = nn.Sequential(*steps) if future_features else None

    def forward(
        self,
        past_target: Float[Tensor, "B L"],
        past_observed_values: Float[Tensor, "B L"] | None = None,
        past_features: Covariates = None,
        future_features: Covariates = None,
        static_features: Float[Tensor, "B E"] | None = None,
    ) -> Forecast:
        """Raw numbers of the forecast, and what they are relative to.

        Args:
            past_target: finite; where not observed any number.
            past_observed_values: 1 where observed; None: everywhere.
            past_features: [B, L, F + G], None without.
            future_features: [B, H, F], None without.
            static_features: None without.

        Returns:
            raw numbers, mean and deviation of the observed steps. A series without any has 0 and 1.
        """
        inputs = (past_target, past_observed_values, past_features, future_features, static_features)
        x, mask, loc, scale = self._tokens(*inputs)
        for block in self.blocks:
            x = block(x, mask)
        return self._forecast(x, future_features), loc, scale

    def carry(
        self, *, state: ModelState | None = None, **inputs: Tensor
    ) -> tuple[Forecast, ModelState, Float[Tensor, "B L"]]:
        """As forward, with the memory's state from the blocks of the stream before this one; None begins a stream.

        Returns:
            what forward returns; the state after this block; the surprise of every step, the mean over blocks and
            heads: a patch's is spread over its steps, and where patches overlap their mean counts.

        Raises:
            ValueError: the mixer has no memory.
        """
        blocks, after = self._memory_blocks(), []
        x, mask, loc, scale = self._tokens(**inputs)
        total = x.new_zeros(x.shape[:2])
        for block, before in zip(blocks, state.blocks if state else [None] * len(blocks), strict=True):
            x, new, surprise = block.carry(x, mask, before)
            after.append(new)
            total = total + surprise
        patches = (total / len(blocks))[:, None].expand(-1, self.patch_size, -1)  # [B, patch_size, N]
        forecast = self._forecast(x, inputs.get("future_features")), loc, scale
        return forecast, ModelState(tuple(after)), self._overlap_mean(patches)

    def fresh(self, batch: int) -> ModelState:
        """The state at the beginning of `batch` streams: what is learned, and the persistent tokens read."""
        nothing = self.position.new_empty(batch, 0, self.position.shape[-1])
        mixers = [block.mixer for block in self._memory_blocks() if block.mixer is not None]
        return ModelState(tuple(mixer(nothing, return_state=True)[1] for mixer in mixers))

    @property
    def has_memory(self) -> bool:
        """Whether there is a state to carry, and a surprise to see."""
        return all(has_memory(block.mixer) for block in self.blocks)

    def _memory_blocks(self) -> list[SimbaBlock]:
        if not self.has_memory:
            raise ValueError(f"a carried state and surprise need a mixer with a memory: {', '.join(WITH_MEMORY)}")
        return [block for block in self.blocks if isinstance(block, SimbaBlock)]

    def _tokens(
        self,
        past_target: Tensor,
        past_observed_values: Tensor | None = None,
        past_features: Tensor | None = None,
        future_features: Tensor | None = None,
        static_features: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Patch tokens [B, N, D], which of them hold an observed step [B, N] (None: all), loc and scale [B, 1]."""
        observed, static = past_observed_values, static_features
        self._check(
            past_target=(past_target, self.lookback),
            past_observed_values=(past_target if observed is None else observed, self.lookback),
            past_features=(past_features, self.lookback, self.past_features),
            future_features=(future_features, self.horizon, self.future_features),
            static_features=(static, self.static_features),
        )
        seen = torch.ones_like(past_target) if observed is None else observed.to(past_target.dtype)
        x, loc, scale = masked_scaling(past_target, seen, self.min_scale)
        more = (1 - seen)[..., None]
        if past_features is not None:
            more = torch.cat([more, past_features], dim=-1)
        tokens = self.embed(self._patches(x[..., None])[:, :, 0]) + self.embed_more(self._patches(more).flatten(2))
        if self.embed_static is not None and static is not None:
            tokens = tokens + self.embed_static(static)[:, None]
        mask = None if observed is None else self._patches(seen[..., None])[:, :, 0].amax(dim=-1) > 0
        return self.dropout(tokens + self.position), mask, loc, scale

    def _patches(self, x: Tensor) -> Tensor:
        """[B, L, K] -> [B, N, K, patch_size], the last step repeated once more than a stride."""
        x = F.pad(x.mT, (0, self.patch_stride), mode="replicate")
        return x.unfold(-1, self.patch_size, self.patch_stride).transpose(1, 2)

    def _forecast(self, x: Tensor, future_features: Tensor | None) -> Tensor:
        """Tokens after the blocks [B, N, D] -> raw numbers [B, H, P]."""
        x = self.head_dropout(self.norm(x).flatten(1))
        raw = self.head(x).unflatten(-1, (self.horizon, self.outputs))
        if self.steps is None or self.summary is None or future_features is None:
            return raw
        summary = self.summary(x)[:, None].expand(-1, self.horizon, -1)
        return raw + self.steps(torch.cat([summary, future_features], dim=-1))

    def _overlap_mean(self, patches: Tensor) -> Tensor:
        """Values per step of every patch [B, patch_size, N] -> mean per step [B, L]."""
        length = (patches.shape[-1] - 1) * self.patch_stride + self.patch_size
        shape = {"output_size": (1, length), "kernel_size": (1, self.patch_size), "stride": (1, self.patch_stride)}
        total = F.fold(patches, **shape)
        return (total / F.fold(torch.ones_like(patches), **shape))[:, 0, 0, : self.lookback]

    def _check(self, **inputs: Any) -> None:
        """Refuse inputs of other shapes than [B, ...]; one of no features may be None."""
        batch = len(inputs["past_target"][0])
        for name, (given, *sizes) in inputs.items():
            if given is None and sizes[-1] == 0:
                continue
            if given is None or list(given.shape) != [batch, *sizes]:
                got = None if given is None else list(given.shape)
                raise ValueError(f"{name} must be {[batch, *sizes]}; got {got}")


def masked_scaling(
    x: Float[Tensor, "B L"], observed: Float[Tensor, "B L"], least: float = 0.0
) -> tuple[Float[Tensor, "B L"], Float[Tensor, "B 1"], Float[Tensor, "B 1"]]:
    """(x - loc) / scale with 0 where not observed, loc, scale.

    The scale is never below `least` (1 where fewer than 8 steps were observed), nor 1e-4 of the mean's size, so that a
    constant series is not blown up by rounding, nor 1e-5.
    """
    count = observed.sum(dim=1, keepdim=True)
    loc = torch.where(observed > 0, x, 0).sum(dim=1, keepdim=True) / count.clamp(min=1)
    centred = torch.where(observed > 0, x - loc, 0)
    variance = centred.square().sum(dim=1, keepdim=True) / count.clamp(min=1)
    scale = torch.sqrt(variance + (1e-4 * loc).square() + 1e-10)
    if least > 0:
        scale = torch.maximum(scale, torch.where(count < FEW, 1.0, least))
    scale = torch.where(count > 0, scale, torch.ones_like(scale))
    return centred / scale, loc, scale


def blocks_of(batch: dict[str, Tensor], lookback: int, horizon: int) -> list[dict[str, Tensor]]:
    """Cut a past of n lookbacks into n batches, each with the horizon that followed it."""
    length = batch["past_target"].shape[1]
    if length == lookback:
        return [batch]
    if length % lookback:
        raise ValueError(f"past_target must be of whole blocks of {lookback} steps; got {length}")
    whole = {
        name: torch.cat([batch[f"past_{name}"], batch[f"future_{name}"]], dim=1)
        for name in ("target", "observed_values", "weights") if f"future_{name}" in batch
    }  # fmt: skip
    if "future_features" in batch:
        known = batch["past_features"][..., : batch["future_features"].shape[-1]]
        whole["features"] = torch.cat([known, batch["future_features"]], dim=1)
    parts = []
    for begin in range(0, length, lookback):
        end = begin + lookback
        past = {name: value[:, begin:end] for name, value in batch.items() if name.startswith("past_")}
        future = {f"future_{name}": value[:, end : end + horizon] for name, value in whole.items()}
        parts.append({name: batch[name] for name in ("static_features", "unit") if name in batch} | past | future)
    return parts


def inputs_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the network takes of a batch."""
    return {name: batch[name] for name in INPUTS if name in batch}


def on_device(batch: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The batch where the network is, and at its precision."""
    weight = next(network.parameters())
    return {
        name: value.to(weight) if value.is_floating_point() else value.to(weight.device)
        for name, value in batch.items()
    }
