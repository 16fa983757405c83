"""The compiled passes over tokens around the memory, each build: values and every gradient against plain PyTorch, and
what only compiled code can get wrong. Sanitizers run over them in `test_native.py`.
"""

import pytest
import torch
from accuracy import assert_as_accurate_as
from native_builds import BUILDS, needs_build
from native_passes import CASES, WIDTHS, assert_right, convolution, everything, gated_norm

from titans_seq.convolution import tokens_of
from titans_seq.kernels import native_convolution, native_library, native_norm, support
from titans_seq.norms import GatedNorm, rms_norm

pytestmark = needs_build
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
PASSES = {"convolution": convolution, "norm": gated_norm}
every_pass = pytest.mark.parametrize("make", PASSES.values(), ids=PASSES)


@pytest.fixture(params=BUILDS)
def build(request, monkeypatch) -> str:
    """Each build for this processor, in turn the one that runs."""
    loaded = native_library.load(native_library.path_of(request.param))
    monkeypatch.setattr(native_library, "library", lambda: loaded)
    return request.param


@pytest.fixture
def poisoned():
    """What is allocated and not written is NaN."""
    assert torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@every_case
def test_values_and_gradients(build, poisoned, case):
    assert_right(case())


@every_pass
@pytest.mark.parametrize("K", WIDTHS)
def test_every_remainder_of_a_vector(build, K, make):
    assert_right(make(H=1, K=K))
    assert_right(make(H=3, K=K))


@every_case
def test_as_accurate_as_plain_operations_in_float32(build, case):
    exact = everything(case(), "reference")
    got, plain = (everything(case(), backend, torch.float32) for backend in ("native", "reference"))
    for name, value in exact.items():
        if value.numel() == 0:
            continue
        scale = max(1.0, value.abs().max().item())
        assert_as_accurate_as(
            got[name].double() / scale, plain[name].double() / scale, value / scale, name=name, atol=1e-6
        )


@pytest.mark.parametrize("alone", [0, 1, 2])
def test_parts_that_nobody_reads(build, alone):
    case = convolution()
    leaves = {name: x.clone().requires_grad_() for name, x in case.inputs.items()}
    got, exact = (
        torch.autograd.grad(case.run(leaves, backend)[alone].square().sum(), list(leaves.values()))
        for backend in ("native", "reference")
    )
    for a, b in zip(got, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@every_pass
def test_results_do_not_depend_on_the_number_of_threads(make, monkeypatch):
    monkeypatch.setattr(native_library, "NUMBERS_OF_A_THREAD", 1)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        for B, T in ((1, 3000), (90, 7)):
            results.append(everything(make(B=B, T=T, K=8), "native", torch.float32))
    torch.set_num_threads(before)
    for i, other in enumerate(results[2:]):
        assert all(torch.equal(other[name], value) for name, value in results[i % 2].items())


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_poison_stays_in_its_window_and_channel(build, poison):
    case, R, t = convolution(T=30, R=4, H=2, K=5), 4, 12
    clean = everything(case, "native")
    case.inputs["z"][1, t, 3] = poison  # of the first head of q
    case.inputs["z"][1, t, 23] = poison  # of the first head of v
    got = everything(case, "native")
    window = slice(t - R + 1, t + 1)
    for i, (head, channels) in enumerate(((0, slice(0, 5)), (None, None), (0, slice(3, 4)))):
        y, expected = got[f"result {i}"], clean[f"result {i}"].clone()
        if head is not None:
            expected[1, window, head, channels] = y[1, window, head, channels]
        assert_same(y, expected)
    d_z, expected = got["gradient of z"], clean["gradient of z"].clone()
    reach = slice(t - R + 1, t + R)
    for channels in (slice(0, 5), slice(23, 24)):
        expected[1, reach, channels] = d_z[1, reach, channels]
    assert_same(d_z, expected)
    assert got["gradient of taps"][:, [*range(5, 23), *range(24, 30)]].isfinite().all()


@pytest.mark.parametrize("scale", [-1e30, -3e37, 1e20, 1e30, 3e37])
def test_what_overflows_gives_what_plain_operations_give(build, scale):
    """Squares beyond float32: the length is infinite, the token 0. SiLU of large negative numbers is 0."""
    for case, name in ((convolution(R=0, loudest=1e10), "z"), (gated_norm(), "y"), (gated_norm(), "gate")):
        case.inputs[name] = scale * (case.inputs[name].abs() + 0.1).clamp(max=3)
        got, plain = (everything(case, backend, torch.float32) for backend in ("native", "reference"))
        for key, value in plain.items():
            torch.testing.assert_close(got[key], value, rtol=1e-4, atol=1e-4)


def test_tokens_are_read_where_they_lie(build):
    """Slices and transposes; also gradients with strides, expanded ones and of ones."""
    case = convolution(B=3, T=20)
    wide = torch.cat([case.inputs["z"], case.inputs["z"]], dim=2).transpose(0, 1).contiguous().transpose(0, 1)
    strided = wide[..., : case.inputs["z"].shape[2]]
    assert not strided.is_contiguous()
    gradients = []
    for given in (strided, strided.contiguous()):
        z = given.detach().requires_grad_()
        q, k, v = case.run({"z": z, "taps": case.inputs["taps"]}, "native")
        weight = torch.arange(q.numel(), dtype=q.dtype).view(q.mT.shape).mT  # its last dimension is not contiguous
        (q.sum() + (k * weight).sum() + v.transpose(0, 1)[::2].square().sum()).backward()
        gradients.append([q, k, v, z.grad])
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("T", [0, 1, 9])
def test_the_operators_are_what_pytorch_expects(T):
    z, taps = (x.requires_grad_() for x in convolution(T=T).inputs.values())
    torch.library.opcheck(native_convolution.convolution_forward, (z, taps, 3, 2, 2, 0.5))
    parts = [torch.randn(2, T, 2, 5, dtype=torch.float64), None, torch.randn(2, T, 2, 5, dtype=torch.float64)]
    torch.library.opcheck(native_convolution.convolution_backward, (parts, z.detach(), taps.detach(), 2, 2, 0.5))
    y, weight, gate = (x.requires_grad_() for x in gated_norm(T=T).inputs.values())
    for given in ((y, weight, gate), (y, None, None)):
        torch.library.opcheck(native_norm.norm_forward, (*given, 1e-6))
        detached = (None if x is None else x.detach() for x in given)
        torch.library.opcheck(native_norm.norm_backward, (torch.ones_like(y), *detached, 1e-6))


@every_pass
def test_a_second_derivative_is_refused(make):
    case = make()
    inputs = [x.requires_grad_() for x in case.inputs.values()]
    (y, *_) = case.run(dict(zip(case.inputs, inputs, strict=True)), "native")
    gradients = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative.*reference"):
        sum(d.sum() for d in gradients).backward()


@every_pass
def test_forward_mode_is_refused(make):
    case = make()
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="forward-mode"):
        case.run(case.inputs, "native")


@pytest.mark.parametrize(
    ("backend", "dtype", "built"),
    [("chunked", torch.float32, True), ("reference", torch.float64, True), ("auto", torch.float32, False),
     ("auto", torch.bfloat16, True), ("auto", torch.float16, True)],
)  # fmt: skip
def test_where_plain_operations_run(backend, dtype, built, monkeypatch):
    """A backend that is not compiled, no build, numbers the C does not know."""
    monkeypatch.setattr(support, "library", native_library.library if built else lambda: None)
    monkeypatch.setattr(native_convolution, "convolution_forward", None)
    monkeypatch.setattr(native_norm, "norm_forward", None)
    z = torch.randn(2, 8, 12).to(dtype)
    parts = tokens_of(z, torch.randn(4, 12).to(dtype), 2, parts=3, unit=2, backend=backend)
    assert [x.dtype for x in parts] == [dtype] * 3
    assert GatedNorm(2, eps=1e-6).to(dtype)(parts[2], z[:, :5, :4], backend).dtype == dtype
    assert rms_norm(z, 1e-6, backend).dtype == dtype


def test_gates_of_autocast_are_narrower():
    """Then plain operations run, at the precision of the weight."""
    case = gated_norm()
    y, weight, gate = (x.float() for x in case.inputs.values())
    narrow = {"y": y, "weight": weight, "gate": gate.bfloat16()}
    (got,), (wide,) = (case.run(given, "native") for given in (narrow, narrow | {"gate": narrow["gate"].float()}))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wide, rtol=2e-2, atol=2e-2)
