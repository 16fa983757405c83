"""The chunked memory outside of compiled graphs. Imports PyTorch's compiler, so it is itself imported when called."""

import torch

from titans_seq.kernels import chunked

# traced, its loops over chunks and groups would be compiled anew for every length
chunked_memory = torch.compiler.disable(chunked.chunked_memory, reason="the chunked memory is not traced")
