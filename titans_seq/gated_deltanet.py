"""Gated DeltaNet in plain PyTorch: a linear memory with a closed-form write, a control for the neural one.

Dimensions: B batch, T time, D model width, H heads, K key width, V value width, N chunks, C tokens of a chunk, R taps.
Source: Gated Delta Networks (arXiv 2412.06464), section 3; the delta rule as in Titans (arXiv 2501.00663v1), eq. 34.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from titans_seq.convolution import draw_taps, new_taps, tokens_of
from titans_seq.kernels.state import whole_number
from titans_seq.norms import GatedNorm
from titans_seq.recurrent import Recurrent

CHUNK = 64  # tokens per pass; the result does not depend on it


def gated_delta_rule(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    log_alpha: Float[Tensor, "B T H"],
    beta: Float[Tensor, "B T H"],
    state: Float[Tensor, "B H V K"],
    *,
    chunk_size: int = CHUNK,
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H V K"]]:
    """Write every token into the matrix S and read it (eq. 34 of Titans, with a decay):

        S_t = S_{t-1} (alpha_t (I - beta_t k_t k_t^T)) + beta_t v_t k_t^T,     o_t = S_t q_t

    S_t = alpha_t S_{t-1} + u_t k_t^T with u_t = beta_t (v_t - alpha_t S_{t-1} k_t), so in a chunk that starts from S_0,
    with g(t) = prod_{j<=t} alpha_j, the u are the solution of one triangular system (the WY representation):

        u_t + beta_t sum_{i<t} (g(t) / g(i)) (k_i . k_t) u_i = beta_t (v_t - g(t) S_0 k_t)

    Only S_0 goes from chunk to chunk.

    Args:
        q, k: queries and keys; k of unit length, or S may grow without bound.
        v: values.
        log_alpha: log of the decay, <= 0; 0 where nothing is forgotten.
        beta: strength of the write in [0, 1]; 0 writes nothing.
        state: S before the first token.
        chunk_size: C; the result does not depend on it.

    Returns:
        o, and S after the last token, at the precision of the arguments, also under autocast.
    """
    tokens = q.shape[1]
    if not tokens:
        return v, state
    size = min(chunk_size, tokens)  # C
    count = -(-tokens // size)  # N
    pad = count * size - tokens  # tokens with beta 0 and alpha 1 change nothing

    def chunks(x: Tensor) -> Tensor:  # [B, T, H, ...] -> [B, H, N, C, ...]
        return F.pad(x, (0, 0) * (x.ndim - 2) + (0, pad)).unflatten(1, (count, size)).movedim(3, 1)

    with torch.autocast(q.device.type, enabled=False):
        q, k, v, beta = chunks(q), chunks(k), chunks(v), chunks(beta)[..., None]
        log_g = chunks(log_alpha).cumsum(dim=-1)  # [B, H, N, C]
        lower = torch.ones(size, size, dtype=torch.bool, device=q.device).tril()
        # differences of logs, masked before exp: quotients of products would divide by 0
        ratio = (log_g[..., :, None] - log_g[..., None, :]).masked_fill(~lower, -math.inf).exp()  # [B, H, N, C, C]
        g = log_g.exp()[..., None]
        system = beta * (ratio * (k @ k.mT)).tril(-1)
        right = torch.cat([beta * v, beta * g * k], dim=-1)
        solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
        written, erased = solved.split([v.shape[-1], k.shape[-1]], dim=-1)  # u = written - erased S_0^T
        scores, reading = ratio * (q @ k.mT), g * q
        leaving = (log_g[..., -1:] - log_g).exp()[..., None] * k
        outputs = []
        for n in range(count):
            u = written[:, :, n] - erased[:, :, n] @ state.mT  # [B, H, C, V]
            outputs.append(reading[:, :, n] @ state.mT + scores[:, :, n] @ u)
            state = g[:, :, n, -1:] * state + u.mT @ leaving[:, :, n]
    return torch.stack(outputs, dim=2).movedim(1, 3).flatten(1, 2)[:, :tokens], state


class GatedDeltaNet(Recurrent):
    """A layer of Gated DeltaNet, `[B, T, D] -> [B, T, D]`, causal.

        q, k, v = SiLU(conv(x W)), q and k of unit length;  o = gated_delta_rule(q, k, v, log alpha, beta)
        log alpha = -exp(a) softplus(x W_a + b_a);  beta = sigmoid(x W_b + b_b);  out = (RMSNorm(o) * SiLU(x W_g)) W_o

    Deviations: values are as wide as keys (the paper's are twice as wide), beta has a bias, and the convolution is
    shared with `NeuralMemory`, also its start.

    Args:
        dim: D.
        heads: H.
        head_dim: K = V; D / H if None.
        conv_size: R, taps of the causal depthwise convolution; 0 or 1: none.

    Numerics: S is float32 (float64 under float64), also under autocast; memory grows with T (C + K). A token that is
    NaN or infinite spoils its whole chunk of 64 and all after it.
    """

    def __init__(self, dim: int, *, heads: int = 4, head_dim: int | None = None, conv_size: int = 4) -> None:
        super().__init__()
        dim, heads = whole_number("dim", dim, 1), whole_number("heads", heads, 1)
        if head_dim is None and dim % heads:
            raise ValueError(f"dim must be a multiple of heads, or head_dim be given; got dim {dim} and heads {heads}")
        self.dim, self.heads = dim, heads
        self.head_dim = dim // heads if head_dim is None else whole_number("head_dim", head_dim, 1)
        self.hidden_shape = heads, self.head_dim, self.head_dim  # S
        self.kept = max(whole_number("conv_size", conv_size, 0), 1) - 1
        inner = heads * self.head_dim
        self.qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.conv = new_taps(self.kept + 1, 3 * inner)
        self.gates = nn.Linear(dim, 2 * heads)
        self.log_a = nn.Parameter(torch.empty(heads))
        self.norm = GatedNorm(self.head_dim, eps=1e-6)
        self.out_gate = nn.Linear(dim, inner, bias=False)
        self.out = nn.Linear(inner, dim, bias=False)
        self.fingerprint = f"GatedDeltaNet dim={dim} heads={heads} head_dim={self.head_dim} conv_size={self.kept + 1}"
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the taps and the start of the gates anew: as in Mamba2, exp(a) from [1, 16], softplus(b_a) log-uniform
        in [1e-3, 1e-1].
        """
        if self.conv is not None:
            draw_taps(self.conv)
        start = torch.empty_like(self.log_a).uniform_(-6.9, -2.3).exp()
        with torch.no_grad():
            self.log_a.uniform_(1, 16).log_()
            self.gates.bias.copy_(torch.cat([start + torch.log(-torch.expm1(-start)), torch.zeros_like(start)]))

    def read(self, history: Tensor, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        x, wide = history[:, self.kept :], hidden.dtype
        q, k, v = (z.to(wide) for z in tokens_of(self.qkv(history), self.conv, self.heads, parts=3, unit=2))
        decay, beta = self.gates(x).to(wide).split(self.heads, dim=-1)
        log_alpha, beta = -self.log_a.to(wide).exp() * F.softplus(decay), torch.sigmoid(beta)
        if mask is not None:  # nothing decays, nothing is written
            log_alpha, beta = log_alpha * mask[..., None], beta * mask[..., None]
        y, hidden = gated_delta_rule(q, k, v, log_alpha, beta, hidden)
        return self.out(self.norm(y, self.out_gate(x))), hidden
