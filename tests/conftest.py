"""Under pytest, and only there, the shapes in the annotations of the memory operation are checked at every call.

Without a GPU, Triton's interpreter runs the kernels. It must be chosen before they are imported, so for the whole
process.
"""

import os

import torch
from jaxtyping import install_import_hook

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# below the public edge, which answers wrong shapes with a ValueError of its own
MODULES = [f"titans_seq.kernels.{name}" for name in ("chunked", "gates", "groups", "layers", "reference", "slots")]
install_import_hook([*MODULES, "titans_seq.convolution"], "beartype.beartype")
