"""Under pytest, and only there, the shapes in the annotations of the memory operation are checked at every call."""

from jaxtyping import install_import_hook

# below the public edge, which answers wrong shapes with a ValueError of its own
MODULES = [f"titans_seq.kernels.{name}" for name in ("chunked", "gates", "groups", "layers", "reference", "slots")]
install_import_hook([*MODULES, "titans_seq.convolution"], "beartype.beartype")
