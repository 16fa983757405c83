"""Under pytest, and only there, the shapes in the annotations of the memory operation are checked at every call.

Without a GPU, Triton's interpreter runs the kernels. It must be chosen before they are imported, so for the whole
process.
"""

import os
import sys

import torch
from jaxtyping import install_import_hook

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# below the public edge, which answers wrong shapes with a ValueError of its own
MODULES = [f"titans_seq.kernels.{name}" for name in ("chunked", "gates", "groups", "layers", "reference", "slots")]
install_import_hook([*MODULES, "titans_seq.convolution"], "beartype.beartype")

# limits of resources, links and signals of POSIX
if sys.platform == "win32":
    collect_ignore = [
        "hostile", "cli/test_checkpoints.py", "cli/test_errors.py", "cli/test_fit.py", "cli/test_lm.py",
        "cli/test_resume.py", "cli/test_signals.py", "datamodules/forecast/test_download.py",
        "datamodules/genomics/test_benchmarks.py", "titans_seq/test_files.py", "titans_seq/test_forecaster.py",
        "titans_seq/test_tensor_files.py",
    ]  # fmt: skip
