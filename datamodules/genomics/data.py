"""Data modules of the DNA tasks: labelled sequences for a classifier, windows of a genome for a language model.

B batch, T time (bases). A batch is {"tokens": int64 [B, T], padded behind with PAD to its longest sequence, "mask":
bool [B, T], True = base, only where something is padded, "label": int64 [B] of labelled sequences, "goes_on": bool [B],
True = the row follows on the same row of the batch before, only where streams are trained}.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from jaxtyping import Int, UInt8
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from titans_seq.datamodules.common.errors import DataError, at_least
from titans_seq.datamodules.common.files import EMBEDDED
from titans_seq.datamodules.common.loaders import EpochShuffle, dealt
from titans_seq.datamodules.common.stretches import Reading, StretchBatches, require_rows, stretches_of
from titans_seq.datamodules.genomics.alphabet import BASES, PAD, other_strand
from titans_seq.datamodules.genomics.benchmarks import download_benchmark, find_benchmark, is_stranded, read_benchmark
from titans_seq.datamodules.genomics.embedded import embedded_dna
from titans_seq.datamodules.genomics.genome import Genome
from titans_seq.datamodules.genomics.intervals import Interval, overlap_clusters, read_bed
from titans_seq.datamodules.genomics.labelled import Labelled, labelled_from_bed, read_labelled_csv
from titans_seq.datamodules.genomics.splits import GenomeWindows, bed_splits, contiguous_splits, record_splits

Batch = dict[str, Tensor]
SPLITS = ("train", "val", "test")
PROTOCOLS = ("caduceus_cv", "hyena_testselect")
Groups = Int[np.ndarray, " S"]


class TokenDataset(Dataset[Batch]):
    """Sequences of tokens, with labels or without, as the loaders want them."""

    def __init__(
        self, sequences: Sequence[UInt8[np.ndarray, " _"]] | GenomeWindows, labels: Int[np.ndarray, " S"] | None = None
    ) -> None:
        self.sequences, self.labels = sequences, labels

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> Batch:
        item = {"tokens": torch.from_numpy(self.sequences[index].astype(np.int64))}
        return item if self.labels is None else item | {"label": torch.tensor(self.labels[index])}


class StreamDataset(Dataset[Batch]):
    """The windows that a `StretchBatches` asks for."""

    def __init__(self, windows: GenomeWindows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, reading: Reading) -> Batch:
        tokens = self.windows[reading.window]
        tokens = other_strand(tokens) if reading.turned else tokens
        return {"tokens": torch.from_numpy(tokens.astype(np.int64)), "goes_on": torch.tensor(reading.goes_on)}


def collate(items: Sequence[Batch]) -> Batch:
    """Pad behind, to the longest of the batch."""
    sequences = [item["tokens"] for item in items]
    batch = {"tokens": torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=PAD)}
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    if (lengths < batch["tokens"].shape[1]).any():
        batch["mask"] = torch.arange(batch["tokens"].shape[1]) < lengths[:, None]
    for name in ("label", "goes_on"):
        if name in items[0]:
            batch[name] = torch.stack([item[name] for item in items])
    return batch


class _SequenceData(lightning.LightningDataModule):
    """Loaders over `self.sets`, which `setup` fills."""

    def __init__(self, batch_size: int, eval_batch_size: int, seed: int, num_workers: int) -> None:
        super().__init__()
        at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size)
        at_least(0, seed=seed, num_workers=num_workers)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.seed, self.num_workers = seed, num_workers
        self.sets: dict[str, Dataset[Batch]] = {}

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader("train", self.batch_size, dealt(EpochShuffle(self.sets["train"], self.seed)))

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader("val", self.eval_batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader("test", self.eval_batch_size)

    def _loader(self, split: str, batch_size: int, sampler: Sampler[int] | None = None) -> DataLoader[Batch]:
        return self._load(self.sets[split], batch_size=batch_size, sampler=sampler)

    def _load(self, dataset: Dataset[Batch], **order: Any) -> DataLoader[Batch]:
        return DataLoader(
            dataset,
            **order,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=collate,
        )


class DNAClassData(_SequenceData):
    """Labelled sequences in train, validation and test.

    Sources, one of: a data set of the genomic-benchmarks package by name (downloaded once by the package); a CSV or TSV
    with `sequence,label`, and if they exist one for validation and one for test; a BED file with classes in column 4
    beside a FASTA; nothing: 2,000 sequences made on the spot.

    Where a split has no file of its own it is drawn, by seed, stratified by class: equal sequences, of either strand,
    stay together, and so do intervals that overlap. A test part of 10 % if there is none, then a validation part of 10
    % of the rest. With `folds`, test is part `fold` of so many instead.

    Args:
        protocol: of named data sets. "caduceus_cv": validation is a tenth of the official train part.
            "hyena_testselect": validation IS the official test part, as HyenaDNA's code does; only to compare with such
            numbers.
        whole: all rows of csv are test: to measure a finished model on other data.
        stranded: the class belongs to the strand that is given, so the other strand is no further example of it. None:
            as the table of data sets says; False for own data.
        max_length: longer sequences are refused; None: no limit.
        class_names: of a run that is tested; a class that it did not know is refused.
        batch_size: of training; eval_batch_size: of validation and test. seed: of splits and shuffles.

    Attributes, after `setup`: splits: Labelled per split. class_names. protocol_text: how the splits came about.

    Raises:
        DataError: contradictory arguments at construction; missing or damaged data at `prepare_data` or `setup`.
    """

    def __init__(
        self,
        dataset: str | None = None,
        *,
        csv: str | None = None,
        val_csv: str | None = None,
        test_csv: str | None = None,
        fasta: str | None = None,
        bed: str | None = None,
        protocol: str = "caduceus_cv",
        folds: int = 0,
        fold: int = 0,
        whole: bool = False,
        stranded: bool | None = None,
        max_length: int | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        data_root: str | None = None,
        seed: int = 0,
        num_workers: int = 0,
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed, num_workers)
        own = [name for name, value in (("csv", csv), ("bed", bed), ("dataset", dataset)) if value is not None]
        if len(own) > 1:
            raise DataError(f"give one of csv, bed and dataset; got {' and '.join(own)}")
        if (bed is None) != (fasta is None):
            raise DataError("a BED file of classes and a FASTA file go together: give bed and fasta")
        if csv is None and (val_csv is not None or test_csv is not None):
            raise DataError("val_csv and test_csv go with csv")
        if protocol not in PROTOCOLS:
            raise DataError(f"protocol must be one of {', '.join(PROTOCOLS)}; got {protocol!r}")
        if fold and not folds:
            raise DataError(f"fold {fold} of how many? give folds too")
        if whole and (csv is None or folds or val_csv is not None or test_csv is not None):
            raise DataError("whole goes with csv alone")
        if folds and not (2 <= folds and 0 <= fold < folds):
            raise DataError(f"folds must be at least 2 and fold in [0, folds); got folds {folds} and fold {fold}")
        embedded = not own or (dataset is not None and dataset.lower() == EMBEDDED)
        self.spec = None if embedded or dataset is None else find_benchmark(dataset)
        if protocol != PROTOCOLS[0] and self.spec is None:
            raise DataError(f"protocol {protocol!r} is for a named data set, whose official test part it means")
        if folds and (test_csv is not None or self.spec is not None):
            raise DataError("folds makes the test part itself; give neither a test file nor a named data set with it")
        self.csv, self.val_csv, self.test_csv, self.fasta, self.bed = csv, val_csv, test_csv, fasta, bed
        self.protocol, self.folds, self.fold, self.max_length = protocol, folds, fold, max_length
        self.whole = whole
        self.stranded = is_stranded(self.dataset_name) if stranded is None else stranded
        self.data_root = data_root
        self.class_names = None if class_names is None else tuple(class_names)
        self.splits: dict[str, Labelled] = {}
        self.protocol_text = ""

    @property
    def dataset_name(self) -> str:
        """Of the data set, as results call it."""
        if self.spec is not None:
            return self.spec.name
        source = self.csv or self.bed
        return EMBEDDED if source is None else Path(source).name.removesuffix(".gz").rsplit(".", 1)[0]

    def prepare_data(self, quiet: bool = True) -> None:
        """Download the named data set if it is not at hand."""
        if self.spec is not None and not self.splits:
            download_benchmark(self.spec.name, data_root=self.data_root, quiet=quiet)

    def setup(self, stage: str | None = None) -> None:
        """Read and split; a repeated call does nothing."""
        if self.splits:
            return
        if self.whole:
            assert self.csv is not None
            test = read_labelled_csv(self.csv, self.class_names)
            self.class_names, self.protocol_text = test.class_names, "all rows of the file"
            splits = {"test": test}
        else:
            splits = self._split()
        for name, part in splits.items():
            self._check(name, part)
            self.sets[name] = TokenDataset(part.tokens, part.labels)
        self.splits = splits  # last: what is refused once is refused again

    def _split(self) -> dict[str, Labelled]:
        given, groups = self._read()
        self.class_names = given["train"].class_names
        said = []
        if "test" not in given:
            parts = self.folds or 10
            rest, test = _fold(given["train"], groups, parts, self.fold, self.seed)
            given["test"], given["train"], groups = (
                given["train"].subset(test),
                given["train"].subset(rest),
                groups[rest],
            )
            said.append(
                f"test: fold {self.fold} of {self.folds}" if self.folds else "test: a tenth of the rows by seed"
            )
        else:
            said.append("test: as given")
        if self.spec is not None and self.protocol == "hyena_testselect":
            given["val"] = given["test"]
            said.append("validation: THE TEST PART (hyena_testselect)")
        elif "val" not in given:
            rest, val = _fold(given["train"], groups, 10, 0, self.seed)
            given["val"], given["train"] = given["train"].subset(val), given["train"].subset(rest)
            said.append("validation: a tenth of the training rows by seed")
        else:
            said.append("validation: as given")
        self.protocol_text = "; ".join(said)
        return {name: given[name] for name in SPLITS}

    def _read(self) -> tuple[dict[str, Labelled], Groups]:
        """The parts that are given, and for each training row the group that must stay together."""
        known = self.class_names
        if self.csv is not None:
            train = read_labelled_csv(self.csv, known)
            given = {"train": train}
            files = (("val", self.val_csv), ("test", self.test_csv))
            given |= {name: read_labelled_csv(file, train.class_names) for name, file in files if file is not None}
            return given, _same_sequence(train)
        if self.bed is not None:
            assert self.fasta is not None
            genome, intervals = Genome(self.fasta), read_bed(self.bed)
            train = labelled_from_bed(genome, intervals, known)
            return {"train": train}, _joined(overlap_clusters(intervals), _same_sequence(train))
        if self.spec is not None:
            given = {name: read_benchmark(self.spec.name, name, self.data_root) for name in ("train", "test")}
            return given, _same_sequence(given["train"])
        train = embedded_dna()
        return {"train": train}, _same_sequence(train)

    def _check(self, name: str, part: Labelled) -> None:
        if not len(part.tokens) and self.whole:
            raise DataError(f"{self.csv} has no rows")
        if not len(part.tokens):
            raise DataError(f"{self.dataset_name}: the {name} part is empty; give more rows or fewer folds")
        longest = int(part.lengths.max())
        if self.max_length is not None and longest > self.max_length:
            row = int(part.lengths.argmax())
            raise DataError(
                f"{self.dataset_name}, {name}: sequence {row + 1} has {longest} bases, max_length is "
                f"{self.max_length}; cut the "
                "sequences or raise max_length"
            )

    def leak(self, train: Labelled | None = None) -> int:
        """How many test sequences stand in a training part too, on either strand; None: in that of these data."""
        seen = {_canonical(tokens) for tokens in (train or self.splits["train"]).tokens}
        return sum(_canonical(tokens) in seen for tokens in self.splits["test"].tokens)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the class names, in the order of the logits, and the alphabet."""
        return {"class_names": list(self.class_names or ()), "bases": BASES, "stranded": self.stranded}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse data whose classes are not those of the checkpoint."""
        names, _ = classes_of(state_dict)
        if names and self.class_names is not None and names != self.class_names:
            raise DataError(
                f"{self.dataset_name} has the classes {', '.join(self.class_names)}, the checkpoint {', '.join(names)}"
            )
        self.class_names = names or self.class_names


def classes_of(state: Any) -> tuple[tuple[str, ...], bool]:
    """Class names and whether strands differ, of a `DNAClassData.state_dict`.

    Raises:
        DataError: it is none, or of another alphabet.
    """
    state = state if isinstance(state, dict) else {}
    names, stranded = state.get("class_names"), state.get("stranded")
    named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not named or not isinstance(stranded, bool) or state.get("bases") != BASES:
        raise DataError("the checkpoint is damaged: it does not say which classes it tells apart")
    return tuple(names), stranded


class GenomeData(_SequenceData):
    """Windows of a FASTA file, for a language model.

    Args:
        fasta: plain or bgzip.
        length: bases per window; the windows of a split do not overlap.
        bed: intervals with train, val and test in column 4; or
        val_records, test_records: whole records (chromosomes, contigs) held out. With neither, the last 5 % of every
            record are test and the 5 % before validation.
        whole: everything is test: to measure a model on another genome.
        max_unknown: windows with a greater share of N are left out.
        carry: 1: training windows come in any order, each for itself. n: every row of a batch follows on the row of the
            batch before, for n windows in a row where the genome has them, see `StretchBatches`.
        both_strands: with carry > 1, read a stretch of windows from either strand by chance.

    Raises:
        DataError: as `Genome`, and where a split has no window.
    """

    def __init__(
        self,
        fasta: str,
        *,
        length: int = 1024,
        bed: str | None = None,
        val_records: Sequence[str] = (),
        test_records: Sequence[str] = (),
        whole: bool = False,
        max_unknown: float = 0.5,
        carry: int = 1,
        both_strands: bool = True,
        batch_size: int = 16,
        eval_batch_size: int = 32,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed, num_workers)
        at_least(2, length=length)
        at_least(1, carry=carry)
        if bool(val_records) != bool(test_records):
            raise DataError("val_records and test_records go together: name the records to hold out for each")
        if bed is not None and val_records:
            raise DataError("give bed or val_records and test_records, not both")
        self.fasta, self.length, self.bed, self.max_unknown = fasta, length, bed, max_unknown
        self.val_records, self.test_records = tuple(val_records), tuple(test_records)
        self.carry, self.both_strands = carry, both_strands
        self.whole, self.protocol_text = whole, ""

    @property
    def dataset_name(self) -> str:
        """Of the genome, as results call it."""
        return Path(self.fasta).name.removesuffix(".gz").removesuffix(".bgz").rsplit(".", 1)[0]

    def setup(self, stage: str | None = None) -> None:
        """Index, check and cut the genome; a repeated call does nothing."""
        if self.sets:
            return
        self.genome = Genome(self.fasta)
        if self.whole:
            everything = [Interval(name, 0, self.genome.lengths[name]) for name in self.genome.names]
            splits, self.protocol_text = {"test": everything}, "the whole file"
        elif self.bed is not None:
            splits, self.protocol_text = bed_splits(self.genome, self.bed), "intervals of a BED file"
        elif self.val_records:
            splits = record_splits(self.genome, val=self.val_records, test=self.test_records)
            self.protocol_text = "whole records held out"
        else:
            splits = contiguous_splits(self.genome)
            self.protocol_text = "of every record the last 5 % test, the 5 % before validation"
        longest = max((part.end - part.begin for part in splits.get("train", [])), default=self.length)
        if longest < self.length:
            raise DataError(
                f"{self.fasta}: length is {self.length}, but the longest stretch for training has {longest} bases; "
                "make "
                "length smaller"
            )
        self.sets = {name: TokenDataset(self._windows(name, intervals)) for name, intervals in splits.items()}
        if self.carry > 1 and not self.whole:
            require_rows(len(self._windows_of("train")), self.batch_size)

    def train_dataloader(self) -> DataLoader[Batch]:
        if self.carry == 1:
            return super().train_dataloader()
        return self._load(StreamDataset(self._windows_of("train")), batch_sampler=self._stretches())

    def _stretches(self) -> StretchBatches:
        windows = self._windows_of("train")
        return StretchBatches(
            stretches_of([windows.places(i) for i in range(len(windows))], self.carry),
            batch_size=self.batch_size,
            both_strands=self.both_strands,
            seed=self.seed,
        )

    def _windows_of(self, split: str) -> GenomeWindows:
        windows = self.sets[split]
        assert isinstance(windows, TokenDataset) and isinstance(windows.sequences, GenomeWindows)
        return windows.sequences

    def _windows(self, name: str, intervals: Sequence[Interval]) -> GenomeWindows:
        windows = GenomeWindows(self.genome, intervals, length=self.length, max_unknown=self.max_unknown)
        if not len(windows):
            raise DataError(f"{self.fasta}: no window for {name}; give a longer genome or other intervals")
        return windows

    def bases(self, split: str) -> int:
        """How many bases the windows of a split hold."""
        windows = self._windows_of(split)
        places = (windows.places(i) for i in range(len(windows)))
        return sum(end - begin for _, begin, end in places)


def _canonical(tokens: UInt8[np.ndarray, " T"]) -> bytes:
    """The same for a sequence and its reverse complement."""
    return min(tokens.tobytes(), other_strand(tokens).tobytes())


def _same_sequence(part: Labelled) -> Groups:
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(_canonical(tokens), len(seen)) for tokens in part.tokens], dtype=np.int64)


def _joined(first: Groups, second: Groups) -> Groups:
    """Rows that share a group of either kind, also through others, in one group."""
    kinds = int(first.max(initial=0)) + 1
    size = kinds + int(second.max(initial=0)) + 1
    links = coo_array((np.ones(len(first)), (first, second + kinds)), shape=(size, size))
    return connected_components(links, directed=False)[1][first].astype(np.int64)


def _fold(part: Labelled, groups: Groups, parts: int, fold: int, seed: int) -> tuple[Groups, Groups]:
    """Rows outside and inside of one fold."""
    for label, name in enumerate(part.class_names):
        distinct = len(np.unique(groups[part.labels == label]))
        if 0 < distinct < parts:  # none: a class of the run that these data do not have
            raise DataError(
                f"{part.name}: class {name} has {distinct} different rows, too few to split in {parts}; give more (12 "
                "are "
                "enough for a test and a validation part), or the parts as files"
            )
    folds = StratifiedGroupKFold(parts, shuffle=True, random_state=seed).split(part.labels, part.labels, groups)
    return next(pair for i, pair in enumerate(folds) if i == fold)
