"""The flags of `titans-seq pretrain|fit|test|predict|embed|score|surprise dna`."""

from titans_seq.cli.flags import Command, Flag, checkpoint_flags, file, path, positive, training_flags

_RC = ("none", "average")
_STRANDS = Flag("--rc", "average: the mean of both strands", choices=_RC)
_INPUTS = (
    Flag("--csv FILE", "CSV or TSV with a column `sequence` and, optionally, `id`", type=file),
    Flag("--fasta FILE", "each record is one sequence", type=file),
)
_GENOME = "the genome, plain or bgzip"

FIT = Command(
    "dna:fit_command",
    "Train a classifier of DNA sequences, test its best epoch, and write metrics, pictures and checkpoints.",
    (
        Flag("--dataset NAME", "a data set of the genomic-benchmarks package, downloaded once", "data", "data.dataset"),
        Flag(
            "--csv FILE",
            "training sequences: CSV or TSV with columns sequence,label",
            "data=csv",
            "data.csv",
            type=file,
        ),
        Flag("--val-csv FILE", "with --csv: rows that choose the best epoch", "data.val_csv", type=file),
        Flag("--test-csv FILE", "with --csv: rows to test on", "data.test_csv", type=file),
        Flag("--bed FILE", "regions of --fasta, with their class in column 4", "data=bed", "data.bed", type=file),
        Flag("--fasta FILE", f"with --bed: {_GENOME}", "data.fasta", type=file),
        Flag("--model NAME", "memory (default), another name of titans_seq.mixers, or kmer", "model"),
        Flag("--from RUN", "a run of `pretrain dna` whose encoder to start from", "pretrained", "model", type=file),
        Flag("--rc", "average: test with the mean of both strands", "training.rc", choices=_RC),
        *training_flags("runs/dna/<data>-<model>-s<seed>"),
    ),
    """examples:
  titans-seq fit dna                                          sequences made on the spot, no download
  titans-seq fit dna --dataset human_nontata_promoters        a data set of GenomicBenchmarks
  titans-seq fit dna --csv train.csv --test-csv test.csv      your own: columns sequence,label
  titans-seq fit dna --bed regions.bed --fasta genome.fa      classes in column 4; overlapping regions stay together
  titans-seq fit dna --csv all.csv data.folds=5 data.fold=0   cross-validation, one fold per run
  titans-seq fit dna --csv train.csv --model kmer             the baseline: logistic regression on 4-mers
  titans-seq fit dna --csv train.csv --from runs/dna_lm/RUN   from a pretrained encoder
  titans-seq fit dna --csv train.csv data.stranded=true       do not train on reverse complements

Splits without a file are drawn by seed: a tenth for test, a tenth of the rest for validation. Equal sequences stay
together. KEY=VALUE overrides the configuration; RUN/config.yaml shows all keys.""",
    takes_overrides=True,
)

PRETRAIN = Command(
    "dna:pretrain_command",
    "Train a language model on a genome, and test it on held-out regions, in bits per base (2 is chance).",
    (
        Flag("--fasta FILE", _GENOME, "data.fasta", type=file),
        Flag("--bed FILE", "intervals with train, val or test in column 4", "data.bed", type=file),
        Flag("--length L", "bases per window", "data.length", type=positive),
        Flag("--carry N", "carry the state over N windows in a row (default: 1)", "data.carry", type=positive),
        Flag(
            "--objective",
            "the next base (default), or masked bases from both sides",
            "bidirectional",
            "model.bidirectional",
            choices=("next", "masked"),
        ),
        Flag("--model NAME", "memory (default) or another name of titans_seq.mixers", "model"),
        *training_flags("runs/dna_lm/<genome>-<objective>-<model>-s<seed>"),
    ),
    """examples:
  titans-seq pretrain dna --fasta genome.fa
  titans-seq pretrain dna --fasta genome.fa --objective masked --length 512
  titans-seq pretrain dna --fasta genome.fa --carry 64             to read whole records in one stream
  titans-seq pretrain dna --fasta genome.fa 'data.val_records=[chr8]' 'data.test_records=[chr9]'
  titans-seq pretrain dna --fasta genome.fa --bed splits.bed       train, val or test in column 4
  titans-seq pretrain dna --fasta genome.fa --devices 4            on four devices
  titans-seq pretrain dna --fasta genome.fa --epochs 20 --resume   continue an interrupted run

By default the last 5 % of every record are for test and the 5 % before them for validation.
KEY=VALUE overrides the configuration; RUN/config.yaml shows all keys.""",
    takes_overrides=True,
)

TEST = Command(
    "dna_tools:test_command",
    "Test the best checkpoint of a run on its test split, or on a file of your own.",
    (
        *checkpoint_flags(),
        Flag("--csv FILE", "labelled sequences instead of the run's (classifier)", type=file),
        Flag("--fasta FILE", "a genome instead of the run's (language model)", type=file),
        _STRANDS,
    ),
    """examples:
  titans-seq test dna --checkpoint runs/dna/train-memory-s0
  titans-seq test dna --checkpoint RUN --csv other.csv --rc average
  titans-seq test dna --checkpoint runs/dna_lm/RUN --fasta other.fa""",
)

PREDICT = Command(
    "dna_tools:predict_command",
    "Write the class probabilities of each sequence to a CSV file.",
    (
        *checkpoint_flags(),
        *_INPUTS,
        _STRANDS,
        Flag("--output FILE", "(default: RUN/predictions-<input>.csv, then -2, ...)", type=path),
    ),
    """examples:
  titans-seq predict dna --checkpoint runs/dna/train-memory-s0 --csv new.csv
  titans-seq predict dna --checkpoint RUN --fasta new.fa --output new_probabilities.csv""",
)

EMBED = Command(
    "dna_tools:embed_command",
    "Write features of each sequence to an .npz file: `embeddings` and `ids`.",
    (
        *checkpoint_flags(),
        *_INPUTS,
        Flag("--layer N", "after block N, counted from 1 (default: after the last, normalised)", type=positive),
        Flag(
            "--pooling",
            "over the bases of a sequence (default: mean)",
            choices=("mean", "max", "last", "none"),
            default="mean",
        ),
        Flag("--output FILE", "(default: RUN/embeddings-<input>.npz, then -2, ...)", type=path),
    ),
    """examples:
  titans-seq embed dna --checkpoint runs/dna_lm/RUN --fasta regions.fa
  titans-seq embed dna --checkpoint RUN --csv new.csv --layer 1 --pooling max
  titans-seq embed dna --checkpoint RUN --fasta regions.fa --pooling none   one row per base, with `offsets`""",
)

SCORE = Command(
    "dna_tools:score_command",
    "Score variants without training on any: log-likelihood of the alternative minus the reference allele, in nats.",
    (
        *checkpoint_flags(),
        Flag("--fasta FILE", "the genome of the variants, plain or bgzip", type=file, required=True),
        Flag("--vcf FILE", "variants as VCF, also .gz", type=file),
        Flag("--csv FILE", "variants as CSV or TSV", type=file),
        Flag("--window L", "bases read around a variant (default: 1024)", type=positive, default=1024),
        Flag("--output FILE", "(default: RUN/scores-<input>.csv, then -2, ...)", type=path),
    ),
    """examples:
  titans-seq score dna --checkpoint runs/dna_lm/RUN --fasta genome.fa --vcf variants.vcf
  titans-seq score dna --checkpoint RUN --fasta genome.fa --csv variants.csv --window 2048

A CSV has the columns record (or chrom), position (1-based, as in VCF; or position0), ref and alt; `row` in the output
is its line. The score is the mean of both strands. The likelihood of a longer or shorter allele is per base.""",
)

SURPRISE = Command(
    "dna_tools:surprise_command",
    "Read each record of a genome in one stream and write how surprised the memory was, for a genome browser.",
    (
        *checkpoint_flags(),
        Flag("--fasta FILE", "plain or bgzip", type=file, required=True),
        Flag("--bedgraph FILE", "file to write", type=path, required=True),
        Flag("--record NAME", "only this record (default: all)"),
        Flag("--bin W", "bases per value (default: 10)", type=positive, default=10),
        Flag(
            "--track",
            "surprise (default), or bits: how unlikely each base was",
            choices=("surprise", "bits"),
            default="surprise",
        ),
    ),
    """examples:
  titans-seq surprise dna --checkpoint runs/dna_lm/RUN --fasta genome.fa --bedgraph surprise.bedgraph
  titans-seq surprise dna --checkpoint RUN --fasta genome.fa --bedgraph chr1.bedgraph --record chr1 --bin 100 \\
      --track bits

The memory is carried from the first base to the last at constant size. A picture of each track lies beside the
file.""",
)
