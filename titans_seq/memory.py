"""The neural long-term memory as a layer: `[B, T, D] -> [B, T, D]`, causal, with a state that can be carried.

Dimensions: B batch, T time, D model width, H heads, K key width = value width, L depth of the memory MLP, C chunk
    length.
Source: Titans (arXiv 2501.00663v1), sections 3.1, 3.2 and 4.4.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titans_seq.convolution import draw_taps, new_taps, tokens_of
from titans_seq.kernels import BACKENDS, MemoryState, neural_memory
from titans_seq.kernels.checks import check_cache, check_gate_per, check_max_surprise
from titans_seq.kernels.state import BatchState, whole_number
from titans_seq.mixer_base import Mixer, last_inputs, put_back, require_batch, results, to_front
from titans_seq.norms import GatedNorm, rms_norm
from titans_seq.places import take

# Forgetting at initialisation, and the least it can be. 100,000 constant tokens decay whatever they do not use by
# exp(-0.3): at 1e-5 a memory of depth 4 has lost too much to learn again (docs/LOG.md). The floor bounds the state.
FORGETTING = 3e-6
FORGETTING_FLOOR = 1e-6
# Values are at most this where updates are clipped, where only the direction of an error counts. A factor of the inner
# gradient is as large as the error times the weights of the layers above it, all of which may grow to thousands: at
# depth 4 values of 1e12 leave float32 within some thousand tokens.
LOUDEST_VALUE = 1e10


@dataclass(frozen=True)
class LayerState(BatchState):
    """What a `NeuralMemory` layer carries from one call to the next.

    memory: the weights, momentum and chunk place of the memory.
    inputs: [B, conv_size - 1, D], the last inputs, for the convolution.
    gate_input: [B, D], the first token of the current chunk, with `gate_per="chunk"`; else None.
    fingerprint: of the layer's shape; a layer refuses the state of another.
    """

    memory: MemoryState
    inputs: Tensor
    gate_input: Tensor | None
    fingerprint: str


class NeuralMemory(Mixer):
    """A sequence mixer whose weights are learned while the sequence is read.

        q, k, v = SiLU(conv(x W)), q and k of unit length;  alpha, eta, theta from linear maps of RMSNorm(x)
        y = memory(q, k, v, alpha, eta, theta);  out = (RMSNorm(y) * SiLU(x W_g)) W_o

    The block around it adds the residual. The gates see x divided by its root mean square:
    eta = sigmoid(.), starting at 1 - 1 / (1 + sqrt(C));
    theta = 2 sigmoid(.) (1 - eta) min(theta_scale / C, 1/2), starting at (1 - eta) theta_start / C, at most mid-range;
    alpha = 1e-6 + sigmoid(.)^4, starting at 3e-6. With `max_surprise` no update is longer than that, so
    ||S|| <= max_surprise min(2 theta_scale / C, 1), and ||M|| is bounded through the floor of alpha. For that, v is
    clipped at +-1e10: outputs, state and gradients are finite at any depth for tokens of a norm up to 1e18 (float32,
    bfloat16); the surprise may be infinite, and such a token writes nothing. The paper's plain form is
    `max_surprise=None`, without any of this.

    Args:
        dim: D.
        heads: H.
        head_dim: K; D / H if None.
        depth: L >= 1; 1 is the linear memory (eq. 32-33).
        expansion: hidden width of the memory MLP in units of K.
        chunk_size: C, tokens that share the point where the inner gradient is taken; 1 is the online recurrence.
        conv_size: taps of the causal depthwise convolution after the projections; 0 or 1: none.
        momentum: False sets eta to 0 (the paper's ablation).
        forgetting: False sets alpha to 0 (the paper's ablation).
        gate_per: "token", or "chunk": the gates of a whole chunk come from its first token (the paper's LTI form).
        max_surprise: theta_t is scaled by min(1, max_surprise / ||u_t||); None: never.
        theta_scale: how much a chunk may change the memory; the larger, the better a fact seen once is kept.
        theta_start: how much it does at first. 4 learns fastest from keys that differ. Where keys resemble each other,
            as after attention or in smooth data, steps of 4 overshoot: outputs stay bounded, but gradients of long
            sequences explode. Those of 1 do not on a random walk; slower streams may need 0.25 (docs/memory.md).
            Training may leave this start; with `theta_scale=1` steps at most double.
        num_persistent: learned tokens read before the first real token of a stream; their outputs are dropped.
        backend: see `titans_seq.kernels.neural_memory`; with "auto" and "native" compiled C also runs what lies around
            the memory, where it was built.

    Numerics: the memory runs in float32 (float64 under float64), also under autocast. Layers of float32, bfloat16 and
    float16 are supported, float64 by all backends but "triton". A float16 layer (`.half()`) computes its
    projections in float16, which ends at 65,504: give it tokens of a size of 1, as after a norm. From a size of about
    100 on gradients are infinite or NaN, from about 30,000 on outputs too; there is no error. Outputs in grad mode,
    `no_grad` and `inference_mode` are the same. There is no second derivative, except with backend="reference" and
    conv_size=0. A token that is NaN or infinite spoils its whole chunk and all after it.
    """

    state_type, has_memory = LayerState, True

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        depth: int = 2,
        expansion: int = 2,
        chunk_size: int = 64,
        conv_size: int = 4,
        momentum: bool = True,
        forgetting: bool = True,
        gate_per: str = "token",
        max_surprise: float | None = 1.0,
        theta_scale: float = 4.0,
        theta_start: float = 1.0,
        num_persistent: int = 0,
        head_dim: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_gate_per(gate_per)
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
        dim, heads, depth, expansion, chunk_size = (
            whole_number(name, value, 1)
            for name, value in (
                ("dim", dim), ("heads", heads), ("depth", depth), ("expansion", expansion), ("chunk_size", chunk_size)
            )
        )  # fmt: skip
        conv_size, num_persistent = (
            whole_number(name, value, 0)
            for name, value in (("conv_size", conv_size), ("num_persistent", num_persistent))
        )
        for name, value in (("momentum", momentum), ("forgetting", forgetting)):
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be True or False; got {value!r}")
        if head_dim is None and dim % heads:
            raise ValueError(f"dim must be a multiple of heads, or head_dim be given; got dim {dim} and heads {heads}")
        check_max_surprise(max_surprise)
        for name, theta in (("theta_scale", theta_scale), ("theta_start", theta_start)):
            if isinstance(theta, bool) or not isinstance(theta, int | float) or not 1e-6 <= theta < math.inf:
                raise ValueError(f"{name} must be a number of at least 1e-6; got {theta!r}")
        self.dim, self.heads, self.depth, self.chunk_size = dim, heads, depth, chunk_size
        self.head_dim = dim // heads if head_dim is None else whole_number("head_dim", head_dim, 1)
        self.conv_size = max(conv_size, 1)
        self.momentum, self.forgetting, self.gate_per = momentum, forgetting, gate_per
        self.max_surprise, self.theta_scale, self.theta_start = max_surprise, theta_scale, theta_start
        self.backend = backend
        self._largest_theta = 2 * min(theta_scale / chunk_size, 0.5)  # in parts of 1 - eta

        inner = heads * self.head_dim
        self.qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.conv = new_taps(self.conv_size, 3 * inner)
        self.gates = nn.Linear(dim, heads * (1 + momentum + forgetting))
        self.norm = GatedNorm(self.head_dim, eps=1e-6)
        self.out_gate = nn.Linear(dim, inner, bias=False)
        self.out = nn.Linear(inner, dim, bias=False)
        widths = [self.head_dim, *[expansion * self.head_dim] * (depth - 1), self.head_dim]
        self.memory = nn.ParameterList(nn.Parameter(torch.empty(heads, out, inp)) for inp, out in pairwise(widths))
        self.persistent = nn.Parameter(torch.empty(num_persistent, dim)) if num_persistent else None
        self.fingerprint = (
            f"NeuralMemory dim={dim} heads={heads} widths={widths} chunk_size={chunk_size} conv_size={self.conv_size} "
            f"gate_per={gate_per}"
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the learned initial memory and the persistent tokens anew, and set the gates to their start."""
        for weight in self.memory:
            nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
        if self.persistent is not None:
            nn.init.normal_(self.persistent, std=0.02)
        if self.conv is not None:
            draw_taps(self.conv)
        nn.init.normal_(self.gates.weight, std=0.02)
        starts = [_logit(min(self.theta_start / self.chunk_size / self._largest_theta, 0.5))]
        if self.momentum:
            starts.append(_logit(1 - 1 / (1 + math.sqrt(self.chunk_size))))
        if self.forgetting:
            # alpha = sigmoid(.)^4: a plain sigmoid would have to move its logit by 13 to forget at all, this one by 3
            starts.append(_logit((FORGETTING - FORGETTING_FLOOR) ** 0.25))
        with torch.no_grad():
            self.gates.bias.copy_(torch.tensor(starts).repeat_interleave(self.heads))

    def forward(
        self,
        x: Tensor,
        *,
        state: LayerState | None = None,
        mask: Tensor | None = None,
        return_state: bool = False,
        return_surprise: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Mix x [B, T, D] over time.

        Args:
            state: carry on from an earlier call; None starts a stream (persistent tokens first).
            mask: boolean [B, T], True = real token; masked positions change nothing and give zeros.

        Returns:
            y [B, T, D]; then the new `LayerState` with `return_state`; then the surprise [B, T, H] with
            `return_surprise`: the norm of the memory's gradient at each token, before any gate or clip.

        Raises:
            ValueError: x is not [B, T, D], the mask does not fit, or the state is that of another layer.
        """
        self.check(x, state, mask)
        new = 0
        if state is None:
            state = self.initial_state(x.shape[0], dtype=x.dtype)
            if self.persistent is not None:
                new = len(self.persistent)
                x = torch.cat([self.persistent.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)  # eq. 19
                mask = None if mask is None else F.pad(mask, (new, 0), value=True)
        x, mask, places = to_front(x, mask)  # the convolution sees real tokens side by side
        y, surprise, after = self._mix(x, state, mask, return_state)
        y, surprise = put_back(y, places)[:, new:], put_back(surprise, places)[:, new:]
        return results(y, after, surprise if return_surprise else None)

    def initial_state(self, batch_size: int, *, dtype: torch.dtype | None = None) -> LayerState:
        """The learned start of a stream, before any token (persistent tokens too). dtype: that of the inputs."""
        weight, batch_size = self.qkv.weight, whole_number("batch_size", batch_size, 0)
        dtype = weight.dtype if dtype is None else dtype
        if not dtype.is_floating_point:
            raise ValueError(f"dtype must be a floating one; got {dtype}")
        wide = torch.promote_types(dtype, torch.float32)
        weights = tuple(w.to(wide).expand(batch_size, *w.shape) for w in self.memory)
        memory = MemoryState.from_weights(weights)
        inputs = torch.zeros(batch_size, self.conv_size - 1, self.dim, dtype=dtype, device=weight.device)
        gate_input = None
        if self.gate_per == "chunk":
            gate_input = torch.zeros(batch_size, self.dim, dtype=dtype, device=weight.device)
        return LayerState(memory, inputs, gate_input, self.fingerprint)

    def initial_gates(self) -> tuple[Tensor, Tensor, Tensor]:
        """alpha, eta and theta [H] at a zero input."""
        return self._gates(torch.zeros(1, self.dim, dtype=self.gates.bias.dtype, device=self.gates.bias.device))

    def extra_repr(self) -> str:
        options = ("max_surprise", "theta_scale", "theta_start")
        return ", ".join([self.fingerprint, *(f"{name}={getattr(self, name)}" for name in options)])

    def _mix(
        self, x: Tensor, state: LayerState, mask: Tensor | None, return_state: bool
    ) -> tuple[Tensor, Tensor, LayerState | None]:
        """The layer on compacted tokens: outputs [B, T, D], surprise [B, T, H], new state if wanted."""
        history = torch.cat([state.inputs, x], dim=1)
        q, k, v = self._project(history)
        gates, gate_input = self._token_gates(x, state, mask)
        alpha, eta, theta = (gate.to(q.dtype) for gate in gates)
        y, *memory, surprise = neural_memory(
            q, k, v, alpha, eta, theta, state.memory,
            chunk_size=self.chunk_size, max_surprise=self.max_surprise, mask=mask, gate_per=self.gate_per,
            return_state=return_state, return_surprise=True, backend=self.backend,
        )  # fmt: skip
        y = self.out(self.norm(y, self.out_gate(x), self.backend))
        if mask is not None:
            y = y * mask[..., None]
        if not return_state:
            return y, surprise, None
        inputs = last_inputs(history, self.conv_size - 1, mask)
        return y, surprise, LayerState(memory[0], inputs, gate_input, self.fingerprint)

    def _project(self, history: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v [B, T, H, K] from the inputs [B, conv_size - 1 + T, D]."""
        bound = math.inf if self.max_surprise is None else LOUDEST_VALUE
        q, k, v = tokens_of(  # eq. 11
            self.qkv(history), self.conv, self.heads, parts=3, unit=2, loudest=bound, backend=self.backend
        )
        return q, k, v

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha, eta, theta [..., H]; the formulas are in the class docstring. Zeros for what is off: eq. 8-10."""
        # without the norm an input of 1e4 sets alpha to 1 and the weights to 0, which a deep memory never leaves
        gates = torch.sigmoid(self.gates(rms_norm(x, 1e-6, self.backend))).split(self.heads, dim=-1)
        theta = gates[0] * self._largest_theta
        eta = gates[1] if self.momentum else torch.zeros_like(theta)
        alpha = torch.zeros_like(theta)
        if self.forgetting:
            # to the power of 4 by squares: `**` takes twenty times as long
            alpha = FORGETTING_FLOOR + (1 - FORGETTING_FLOOR) * gates[-1].square().square()
        return alpha, eta, theta * (1 - eta)

    def _token_gates(
        self, x: Tensor, state: LayerState, mask: Tensor | None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor | None]:
        """alpha, eta and theta of all tokens [B, T, H], and the first token of the chunk the call ends in."""
        if state.gate_input is None:
            return self._gates(x), None
        position, tokens = state.memory.position, x.shape[1]
        slot = position[:, None] + torch.arange(tokens + 1, device=x.device)
        first = slot // self.chunk_size * self.chunk_size - position[:, None]  # of each token's chunk; < 0: before x
        candidates = torch.cat([state.gate_input[:, None], x], dim=1)
        made_from = (first[:, :-1] + 1).clamp(min=0)
        alpha, eta, theta = (take(gate, made_from) for gate in self._gates(candidates))
        count = torch.full_like(position, tokens) if mask is None else mask.sum(dim=1)
        last = first.gather(1, (count - 1).clamp(min=0)[:, None])  # chunk of the last real token
        kept = torch.where(count[:, None] > 0, last + 1, 0).clamp(min=0)
        return (alpha, eta, theta), take(candidates, kept)[:, 0]

    def check_state(self, x: Tensor, state: LayerState) -> None:
        require_batch(x, len(state.inputs))
        check_cache("state.inputs", state.inputs, (len(x), self.conv_size - 1, self.dim), x)
        if (state.gate_input is None) == (self.gate_per == "chunk"):
            raise ValueError(f"state.gate_input does not go with gate_per={self.gate_per!r}, which this layer has")
        if state.gate_input is not None:
            check_cache("state.gate_input", state.gate_input, (len(x), self.dim), x)


def _logit(p: float) -> float:
    return math.log(p / (1 - p))
