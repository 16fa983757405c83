"""Data modules of the DNA tasks: labelled sequences for a classifier, windows of a genome for a language model.

What a batch holds: see `batches`.
"""

from collections.abc import Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset

from titans_seq.datamodules.common.data import SplitData
from titans_seq.datamodules.common.errors import DataError, at_least
from titans_seq.datamodules.common.files import EMBEDDED, base_name
from titans_seq.datamodules.common.loaders import SPLITS, Batch
from titans_seq.datamodules.common.stretches import require_rows
from titans_seq.datamodules.genomics.alphabet import BASES
from titans_seq.datamodules.genomics.batches import TokenDataset, collate, turn
from titans_seq.datamodules.genomics.benchmarks import download_benchmark, find_benchmark, is_stranded, read_benchmark
from titans_seq.datamodules.genomics.embedded import embedded_dna
from titans_seq.datamodules.genomics.folds import Groups, count_leaks, draw_fold, join_groups, same_sequence
from titans_seq.datamodules.genomics.genome import Genome
from titans_seq.datamodules.genomics.intervals import Interval, overlap_clusters, read_bed
from titans_seq.datamodules.genomics.labelled import Labelled, labelled_from_bed, read_labelled_csv
from titans_seq.datamodules.genomics.splits import GenomeWindows, bed_splits, contiguous_splits, record_splits

PROTOCOLS = ("caduceus_cv", "hyena_testselect")


class DNAClassData(SplitData):
    """Labelled sequences in train, validation and test.

    The source is one of: a data set of the genomic-benchmarks package by name (downloaded once by the package); a CSV
    or TSV with `sequence,label`, with or without files for validation and test; a BED file with classes in column 4 and
    a FASTA; nothing: 2,000 sequences made on the spot.

    A split without a file of its own is drawn by seed, stratified by class: first a tenth for test, then a tenth of the
    rest for validation. Equal sequences, of either strand, stay together, and so do intervals that overlap.

    Args:
        dataset: Name of a data set, or "embedded".
        csv: File to train on.
        val_csv: File for validation.
        test_csv: File for test.
        fasta: Genome of `bed`.
        bed: Intervals with their classes.
        protocol: Of a named data set. "caduceus_cv": validation is a tenth of the official train split.
            "hyena_testselect": validation IS the official test split, as in HyenaDNA's code; only to compare with such
            numbers.
        folds: Number of folds, one of which is test; 0: test is a tenth.
        fold: Which fold is test, from 0.
        whole: All rows of csv are test: to measure a finished model on other data.
        stranded: Whether the class belongs to the strand that is given, so that the other strand is not another example
            of it. None: as the table of data sets says; False for own data.
        max_length: Longer sequences raise DataError; None: no limit.
        batch_size: Samples per training batch.
        eval_batch_size: Samples per batch of validation and test.
        data_root: Folder of named data sets; None: $TITANS_SEQ_DATA or the user's cache.
        seed: Of splits and shuffles.
        num_workers: Processes that load batches.
        class_names: Classes of a run that is tested; another class raises DataError.

    Attributes:
        splits: Labelled of each split, after `setup`.
        class_names: In the order of the labels, after `setup`.
        protocol_text: How the splits came about, after `setup`.

    Raises:
        DataError: Arguments contradict each other; at `prepare_data` or `setup`, data are missing or damaged.
    """

    collate_fn = staticmethod(collate)

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
            raise DataError(f"protocol {protocol!r} is for a named data set, whose official test split it means")
        if folds and (test_csv is not None or self.spec is not None):
            raise DataError("folds makes the test split itself; give neither a test file nor a named data set with it")
        self.csv, self.val_csv, self.test_csv, self.fasta, self.bed = csv, val_csv, test_csv, fasta, bed
        self.protocol, self.folds, self.fold, self.max_length = protocol, folds, fold, max_length
        self.whole = whole
        self.stranded = is_stranded(self.dataset_name) if stranded is None else stranded
        self.data_root = data_root
        self.class_names = None if class_names is None else tuple(class_names)
        self.splits: dict[str, Labelled]
        self.protocol_text = ""

    @property
    def dataset_name(self) -> str:
        """Of the data set, as results call it."""
        if self.spec is not None:
            return self.spec.name
        source = self.csv or self.bed
        return EMBEDDED if source is None else base_name(source)

    def prepare_data(self, quiet: bool = True) -> None:
        """Download the named data set unless it is here."""
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
        for name, rows in splits.items():
            self._check(name, rows)
        self.splits = splits  # last: what is refused once is refused again

    def dataset_for(self, split: str) -> Dataset[Batch]:
        rows = self.splits[split]
        return TokenDataset(rows.tokens, rows.labels)

    def _split(self) -> dict[str, Labelled]:
        given, groups = self._read()
        self.class_names = given["train"].class_names
        test, val = "as given", "as given"
        if "test" not in given:
            groups = self._hold_out("test", given, groups, self.folds or 10, self.fold)
            test = f"fold {self.fold} of {self.folds}" if self.folds else "a tenth of the rows by seed"
        if self.spec is not None and self.protocol == "hyena_testselect":
            given["val"] = given["test"]
            val = "THE TEST SPLIT (hyena_testselect)"
        elif "val" not in given:
            self._hold_out("val", given, groups, 10, 0)
            val = "a tenth of the training rows by seed"
        self.protocol_text = f"test: {test}; validation: {val}"
        return {name: given[name] for name in SPLITS}

    def _hold_out(self, name: str, given: dict[str, Labelled], groups: Groups, folds: int, fold: int) -> Groups:
        """Move one fold of the training rows to a split; return the groups of the rows that stay."""
        train = given["train"]
        rest, held = draw_fold(train, groups, folds, fold, self.seed)
        given[name], given["train"] = train.subset(held), train.subset(rest)
        return groups[rest]

    def _read(self) -> tuple[dict[str, Labelled], Groups]:
        """The splits that are given, and for each training row the group that must stay together."""
        known = self.class_names
        if self.csv is not None:
            train = read_labelled_csv(self.csv, known)
            given = {"train": train}
            files = (("val", self.val_csv), ("test", self.test_csv))
            given |= {name: read_labelled_csv(file, train.class_names) for name, file in files if file is not None}
            return given, same_sequence(train)
        if self.bed is not None:
            assert self.fasta is not None
            intervals = read_bed(self.bed)
            train = labelled_from_bed(Genome(self.fasta), intervals, known)
            return {"train": train}, join_groups(overlap_clusters(intervals), same_sequence(train))
        if self.spec is not None:
            given = {name: read_benchmark(self.spec.name, name, self.data_root) for name in ("train", "test")}
            return given, same_sequence(given["train"])
        train = embedded_dna()
        return {"train": train}, same_sequence(train)

    def _check(self, split: str, rows: Labelled) -> None:
        if not len(rows.tokens) and self.whole:
            raise DataError(f"{self.csv} has no rows")
        if not len(rows.tokens):
            raise DataError(f"{self.dataset_name}: the {split} split is empty; give more rows or fewer folds")
        longest = int(rows.lengths.max())
        if self.max_length is not None and longest > self.max_length:
            raise DataError(
                f"{self.dataset_name}, {split}: sequence {int(rows.lengths.argmax()) + 1} has {longest} bases, "
                f"max_length is {self.max_length}; cut the sequences or raise max_length"
            )

    def leak(self, train: Labelled | None = None) -> int:
        """How many test sequences are in the training data too, on either strand; train: None: those of these data."""
        return count_leaks(train or self.splits["train"], self.splits["test"])

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


class GenomeData(SplitData):
    """Windows of a FASTA file, for a language model.

    Args:
        fasta: Plain or bgzip.
        length: Bases per window; the windows of a split do not overlap.
        bed: Intervals with train, val and test in column 4. With neither `bed` nor records, the last 5 % of every
            record are test and the 5 % before validation.
        val_records: Whole records (chromosomes, contigs) held out for validation.
        test_records: Whole records held out for test.
        whole: Everything is test: to measure a model on another genome.
        max_unknown: Windows with a greater share of N are left out.
        carry: 1: training windows come in any order, each for itself. n: every row of a batch follows on the row of the
            batch before, for n windows in a row where the genome has them, see `StretchBatches`.
        both_strands: With carry > 1, read a stretch of windows from either strand by chance.
        batch_size: Windows per training batch.
        eval_batch_size: Windows per batch of validation and test.
        seed: Of the order of the windows.
        num_workers: Processes that load batches.

    Attributes:
        splits: GenomeWindows of each split, after `setup`.
        protocol_text: How the splits came about, after `setup`.

    Raises:
        DataError: Arguments contradict each other; at `setup`, as `Genome`, or a split has no window.
    """

    collate_fn = staticmethod(collate)

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
        self.splits: dict[str, GenomeWindows]

    @property
    def dataset_name(self) -> str:
        """Of the genome, as results call it."""
        return base_name(self.fasta)

    def setup(self, stage: str | None = None) -> None:
        """Index, check and cut the genome; a repeated call does nothing."""
        if self.splits:
            return
        genome = Genome(self.fasta)
        if self.whole:
            everything = [Interval(name, 0, length) for name, length in genome.lengths.items()]
            intervals, self.protocol_text = {"test": everything}, "the whole file"
        elif self.bed is not None:
            intervals, self.protocol_text = bed_splits(genome, self.bed), "intervals of a BED file"
        elif self.val_records:
            intervals = record_splits(genome, val=self.val_records, test=self.test_records)
            self.protocol_text = "whole records held out"
        else:
            intervals = contiguous_splits(genome)
            self.protocol_text = "of every record the last 5 % test, the 5 % before validation"
        longest = max((each.end - each.begin for each in intervals.get("train", [])), default=self.length)
        if longest < self.length:
            raise DataError(
                f"{self.fasta}: length is {self.length}, but the longest stretch for training has {longest} bases; "
                "make length smaller"
            )
        splits = {
            name: GenomeWindows(genome, each, length=self.length, max_unknown=self.max_unknown)
            for name, each in intervals.items()
        }
        for name, windows in splits.items():
            if not len(windows):
                raise DataError(f"{self.fasta}: no window for {name}; give a longer genome or other intervals")
        if self.carry > 1 and not self.whole:
            require_rows(len(splits["train"]), self.batch_size)
        self.splits = splits  # last: what is refused once is refused again

    def dataset_for(self, split: str) -> Dataset[Batch]:
        return TokenDataset(self.splits[split])

    def train_dataloader(self) -> DataLoader[Batch]:
        if self.carry == 1:
            return super().train_dataloader()
        return self.stream_dataloader(self._places("train"), self.carry, turn if self.both_strands else None)

    def bases(self, split: str) -> int:
        """How many bases the windows of a split hold."""
        return sum(end - begin for _, begin, end in self._places(split))

    def _places(self, split: str) -> list[tuple[str, int, int]]:
        windows = self.splits[split]
        return [windows.places(i) for i in range(len(windows))]
