"""The C of the memory operation, compiled once per instruction set; pyproject.toml says everything else.

Each build is a plain shared library that `titans_seq.kernels.native_library` loads with ctypes. All are optional: where
no compiler is found the install succeeds, and `titans-seq doctor` says what is missing. The libraries know nothing of
Python, so one wheel per platform serves every version.
"""

import platform
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

X86 = ("x86_64", "AMD64", "amd64")
# lanes: numbers in a vector register; 16 lanes compiled for AVX2 take three times as long as 8
BUILDS = {
    "avx512": (16, ["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"]),
    "avx2": (8, ["-mavx2", "-mfma"]),
    "base": (4, []),
}
# no -ffast-math: NaN and infinity keep their meaning; a product and a sum may be rounded once instead of twice
FLAGS = [
    "-std=gnu11",
    "-O3",
    "-Wno-psabi",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-strict-aliasing",
    "-ffp-contract=fast",
]


class BuildLibraries(build_ext):
    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = None  # all builds write their objects to the same files, one build after the other

    def get_ext_filename(self, fullname: str) -> str:
        """With a dot in its stem no import and no walk over modules takes the file for a module."""
        *package, name = fullname.split(".")
        return str(Path(*package, f"native.{name}.so"))


class Wheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


def native(name: str, lanes: int, flags: list[str]) -> Extension:
    parts = [path.name for path in Path("kernels/native").iterdir()]
    return Extension(
        f"titans_seq.kernels.{name}",
        sources=[
            "kernels/native/convolution.c",
            "kernels/native/convolution64.c",
            "kernels/native/lanes.c",
            "kernels/native/lanes64.c",
            "kernels/native/norm.c",
            "kernels/native/norm64.c",
            "kernels/native/rows.c",
            "kernels/native/rows64.c",
        ],
        depends=[f"kernels/native/{part}" for part in parts],
        define_macros=[("LANES_OF_FLOAT", str(lanes))],
        extra_compile_args=[*FLAGS, "-pthread", *flags],
        extra_link_args=["-pthread"],
        optional=True,
    )


x86 = platform.machine() in X86
builds = {name: build for name, build in BUILDS.items() if x86 or name == "base"}
setup(
    ext_modules=[] if sys.platform == "win32" else [native(name, *build) for name, build in builds.items()],
    cmdclass={"build_ext": BuildLibraries, "bdist_wheel": Wheel},
)
