"""Models of DNA sequences and their training."""

from titans_seq.genomics.kmer import KmerClassifier
from titans_seq.genomics.model import DNAClassifier, DNAEncoder, DNALanguageModel
from titans_seq.genomics.module import DNAModule

__all__ = ["DNAClassifier", "DNAEncoder", "DNALanguageModel", "DNAModule", "KmerClassifier"]
