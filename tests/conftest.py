"""Under pytest, and only there, the shapes in the annotations of the memory operation are checked at every call."""

from jaxtyping import install_import_hook

# below the public edge, which answers wrong shapes with a ValueError of its own
install_import_hook(["titans_seq.kernels.chunked", "titans_seq.kernels.reference"], "beartype.beartype")
