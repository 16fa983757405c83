"""Language models and their training."""

from titans_seq.datamodules.language.tokenizers import (
    ByteTokenizer,
    FileTokenizer,
    Tokenizer,
    read_tokenizer,
    train_bpe,
)
from titans_seq.language.generation import generate
from titans_seq.language.model import VARIANTS, LanguageModel
from titans_seq.language.module import LanguageModule
from titans_seq.language.saving import load_model, save_model

__all__ = [
    "VARIANTS",
    "ByteTokenizer",
    "FileTokenizer",
    "LanguageModel",
    "LanguageModule",
    "Tokenizer",
    "generate",
    "load_model",
    "read_tokenizer",
    "save_model",
    "train_bpe",
]
