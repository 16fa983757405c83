"""The compiled C of `native/`: which build suits this processor, and its structures as ctypes sees them.

One shared library per instruction set lies beside this file when the install found a compiler. PyTorch tells which sets
the processor has (ATEN_CPU_CAPABILITY lowers it, for this library too).
"""

import ctypes
import itertools
import os
import sys
from ctypes import POINTER, Structure, byref, c_double, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

FOLDER = Path(__file__).parent
KERNELS, FUNCTIONS = ("lanes", "rows"), ("kept", "forward", "backward")
DEEPEST = 4  # layers of the memory MLP, as in memory.h
MOST_PARTS = 3  # q, k and v, as in convolution.c
DTYPES = {torch.float32: "float32", torch.float64: "float64"}
NUMBERS_OF_A_THREAD = 2**16  # of a pass over tokens; fewer cost less than another thread
# PyTorch's name of the instruction sets of a processor -> builds that run on it, the fastest first
BUILDS = {"AVX512": ("avx512", "avx2", "base"), "AVX2": ("avx2", "base")}


class Tokens(Structure):
    _fields_ = (("at", c_void_p), ("batch", c_int64), ("time", c_int64), ("head", c_int64))


class Layers(Structure):
    _fields_ = (("at", c_void_p), ("batch", c_int64), ("head", c_int64))


class State(Structure):
    _fields_ = tuple((name, Layers * DEEPEST) for name in ("weights", "momentum", "chunk_start"))


class Call(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("batch", "tokens", "heads", "depth", "chunk_size")),
        ("width", c_int64 * (DEEPEST + 1)),
        ("every", c_int64),
        ("gate_per_chunk", c_int64),
        ("max_surprise", c_double),
        *((name, c_void_p) for name in ("order", "count", "position")),
        *((name, Tokens) for name in ("q", "k", "v", "alpha", "eta", "theta")),
        ("state", State),
        ("y", Tokens),
        ("surprise", Tokens),
        ("final", State),
        ("kept", c_void_p),
    )


class Gradients(Structure):
    _fields_ = (
        ("y", Tokens),
        ("surprise", Tokens),
        ("final", State),
        *((name, Tokens) for name in ("q", "k", "v", "alpha", "eta", "theta")),
        ("state", State),
    )


class Convolution(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("batch", "tokens", "taps", "parts", "heads", "width", "unit")),
        ("loudest", c_double),
        *((name, c_int64) for name in ("batch_stride", "row_stride")),
        *((name, c_void_p) for name in ("z", "tap")),
        ("part", Tokens * MOST_PARTS),
        *((name, c_void_p) for name in ("d_z", "d_tap")),
    )


class Norm(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("rows", "width")),
        ("eps", c_double),
        *((name, c_void_p) for name in ("y", "w", "g", "out", "d_out", "d_y", "d_w", "d_g")),
    )


def library() -> ctypes.CDLL | None:
    """The build for this processor; None: no build that runs here, and `obstacle` says why."""
    return _found()[0]


AGAIN = "titans-seq again: pip install --force-reinstall --no-deps --no-cache-dir titans-seq (or . in its source tree)"


def obstacle() -> str:
    """One line: why there is no build, and what to do."""
    if sys.platform == "win32":
        return "the native kernels are not built on Windows"
    unusable = _found()[1]
    if unusable:
        return f"{unusable}: install {AGAIN}"
    if (FOLDER / "native").is_dir():  # the C lies beside the Python in a source tree only
        return (
            f"the native kernels were not built in the source tree {FOLDER.resolve().parent}, which Python imports "
            "here: run `pip install -e .` there, with a C compiler (gcc or clang), or start Python elsewhere"
        )
    return f"the native kernels were not built: install a C compiler (gcc or clang), then {AGAIN}"


@cache
def _found() -> tuple[ctypes.CDLL | None, str]:
    """The first build that can be loaded, and else why the last one cannot."""
    why = ""
    for name in BUILDS.get(torch.backends.cpu.get_cpu_capability(), ("base",)):
        if not (path := path_of(name)).is_file():
            continue
        try:
            return load(path), ""
        except (OSError, AttributeError) as error:  # what ctypes raises for a file, and for a function it lacks
            why = f"{path.name} cannot be loaded ({str(error).replace(chr(10), ' ')})"
    return None, why


def path_of(name: str) -> Path:
    """Where the install puts a build; the dot keeps it from being taken for a module."""
    return FOLDER / f"native.{name}.so"


def load(path: Path) -> ctypes.CDLL:
    """A build, with the types of its functions.

    Raises:
        OSError, AttributeError: no library for this machine, or of another version of the package.
    """
    build = ctypes.CDLL(str(path))
    build.titans_sizes.restype = c_int64
    if build.titans_sizes() != ctypes.sizeof(Call) + ctypes.sizeof(Gradients):
        raise OSError("of another version of titans-seq")
    for kernel, dtype in itertools.product(KERNELS, DTYPES.values()):
        getattr(build, f"titans_{kernel}_memories_{dtype}").restype = c_int64
        kept, forward, backward = (getattr(build, f"titans_{kernel}_{name}_{dtype}") for name in FUNCTIONS)
        kept.restype, kept.argtypes = c_int64, (POINTER(Call),)
        forward.argtypes = (POINTER(Call), c_int)
        backward.argtypes = (POINTER(Call), POINTER(Gradients), c_int)
    pool = c_void_p.in_dll(build, "titans_pool")
    pool.value = _pool()
    _pools.append(pool)
    passes = itertools.product((Convolution, Norm), ("forward", "backward"), DTYPES.values())
    for call, name, dtype in passes:
        getattr(build, f"titans_{call.__name__.lower()}_{name}_{dtype}").argtypes = (POINTER(call), c_int)
    return build


_pools: list[c_void_p] = []  # of all loaded builds


def _pool() -> int | None:
    """Where the function is that runs another in the threads of PyTorch's OpenMP; None: none is found in this process.

    It has this name in GCC's libgomp, which PyTorch's wheels for Linux bring and make visible to all.
    """
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, c_void_p).value
    except AttributeError:
        return None


def _leave_pools() -> None:
    for pool in _pools:
        pool.value = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_pools)  # its threads are not there


def run_pass(word: str, call: Convolution | Norm, x: Tensor) -> None:
    """One of the passes over tokens, "forward" or "backward", for numbers of the kind of x and about as many."""
    name = f"titans_{type(call).__name__.lower()}_{word}_{DTYPES[x.dtype]}"
    threads = min(torch.get_num_threads(), 1 + x.numel() // NUMBERS_OF_A_THREAD)
    if getattr(library(), name)(byref(call), threads):
        raise MemoryError("no memory for the buffers of a native pass")


def no_second_derivative(*_: object) -> None:
    raise RuntimeError(
        'backend="native" has no second derivative; backend="reference" has (a layer also needs conv_size=0)'
    )
