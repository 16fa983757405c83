"""The selective SSM against its recurrence. test_blocks.py holds what is true of every mixer."""

import torch
from accuracy import assert_equal_to
from torch import nn

from titans_seq.ssm import SelectiveSSM


def test_ssm_is_its_recurrence():
    """One channel and state at a time."""
    torch.manual_seed(0)
    layer = SelectiveSSM(4, states=3).double()
    x = torch.randn(1, 5, 4, dtype=torch.float64)
    inner, gate = layer.inp(x).chunk(2, dim=-1)
    padded = torch.cat([torch.zeros(1, 3, 8, dtype=torch.float64), inner], dim=1)
    conv = torch.stack([(padded[0, t : t + 4].T * layer.conv.weight[:, 0]).sum(-1) for t in range(5)]) + layer.conv.bias
    u = nn.functional.silu(conv)
    rank, b, c = layer.select(u).split([layer.rank, 3, 3], dim=-1)
    delta = nn.functional.softplus(layer.delta(rank))
    y = torch.empty(5, 8, dtype=torch.float64)
    for e in range(8):
        for t in range(5):
            y[t, e] = layer.skip[e] * u[t, e]
            for s in range(3):  # unrolled: what token i wrote, decayed by every step since
                for i in range(t + 1):
                    decay = torch.exp(-layer.log_a[e, s].exp() * delta[i + 1 : t + 1, e].sum())
                    y[t, e] += c[t, s] * decay * delta[i, e] * b[i, s] * u[i, e]
    assert_equal_to(layer(x)[0], layer.out(y * nn.functional.silu(gate[0])), name="y")
