"""Small FASTA files for tests: made-up bases, wrapped and written, and the letters of tokens."""

import numpy as np
import torch
from Bio import bgzf

from titans_seq.datamodules.genomics.alphabet import decode


def sequence(length, seed=0, letters="ACGT"):
    return "".join(np.random.default_rng(seed).choice(list(letters), length))


def as_fasta(records, width=7, newline="\n"):
    lines = []
    for name, text in records.items():
        lines += [f">{name} something else", *(text[i : i + width] for i in range(0, len(text), width))]
    return newline.join([*lines, ""])


def write(path, content):
    """Write FASTA text, with bgzip for .gz; also records, wrapped."""
    content = content if isinstance(content, str) else as_fasta(content)
    if path.suffix == ".gz":
        with bgzf.BgzfWriter(path, "wb") as file:
            file.write(content.encode())
    else:
        path.write_text(content, newline="")
    return path


def text_of(tokens):
    return decode(torch.from_numpy(tokens))


RECORDS = {"chr1": sequence(40), "chr2": sequence(14, 1), "chrM": "g", "x|y.2": sequence(30, 2, "acgtACGTnNRyU")}
