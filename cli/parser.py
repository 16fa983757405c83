"""The words of the `titans-seq` command: verbs, tasks, flags. `arguments.run` is the "module:function" that does the
work.

PyTorch, Lightning and Hydra are imported by the verbs, not here: `--help` answers at once.
"""

import argparse
from typing import NoReturn

from titans_seq.cli.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, instead of printing the usage."""

    def __init__(self, **options: object) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message.splitlines()[0]} (see `{self.prog} --help`)")


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1; got {text}")
    return value


def _path(text: str) -> str:
    """What else can be wrong with a path, `user_path` says where it is used: nothing heavy is imported here."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"must be a path; got {text!r}")
    if "${" in text:  # OmegaConf offers no way to keep it as it is, from the command line to RUN/config.yaml
        raise argparse.ArgumentTypeError(f"{text!r} holds ${{, which a configuration takes for a reference; rename it")
    return text


def _positive(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 10**9:
        raise argparse.ArgumentTypeError(f"must be at least 1 and at most 10**9, got {value}")
    return value


def _length(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 2**24:  # samples are made in memory
        raise argparse.ArgumentTypeError(f"must be at least 1 and at most 2**24, got {value}")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be between 0 and 2**32 - 1, got {value}")
    return value


_positive.__name__ = _length.__name__ = _seed.__name__ = "whole number"  # argparse names the type in its error


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every verb."""
    parser = Parser(
        prog="titans-seq",
        description="Neural long-term memory for time series, genomes and text.",
        epilog="""examples:
  titans-seq fit forecast                                  the embedded series, no download
  titans-seq fit forecast --dataset ETTh1 --horizon 96
  titans-seq predict forecast --checkpoint RUN --csv FILE
  titans-seq report RUN                                    a page about a forecaster, to look at
  titans-seq fit dna --csv train.csv --test-csv test.csv   a classifier of DNA sequences
  titans-seq pretrain dna --fasta genome.fa                a language model of a genome
  titans-seq fit lm --variant mac --text book.txt          a language model of a text
  titans-seq VERB TASK --help                              every flag of a verb""",
    )
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    fit = _verb(verbs, "fit", "train a model")
    _fit_forecast(fit)
    _fit_dna(fit)
    _fit_lm(fit)
    _pretrain_dna(_verb(verbs, "pretrain", "train a language model, to start others from"))
    test = _verb(verbs, "test", "measure a trained model")
    _test_forecast(test)
    _test_dna(test)
    predict = _verb(verbs, "predict", "apply a trained model to new data")
    _predict_forecast(predict)
    _predict_dna(predict)
    _embed_dna(_verb(verbs, "embed", "write a model's features of sequences"))
    _score_dna(_verb(verbs, "score", "score variants by a language model"))
    surprise = _verb(verbs, "surprise", "write what surprised the memory of a series or a genome")
    _surprise_forecast(surprise)
    _surprise_dna(surprise)
    _report(verbs)
    _eval_lm(_verb(verbs, "eval", "measure a language model"))
    _generate_lm(_verb(verbs, "generate", "continue a text"))
    _lightning(verbs)
    _data(verbs)
    doctor = verbs.add_parser("doctor", help="versions, devices, data folder, and the backend `auto` would take")
    doctor.set_defaults(run="titans_seq.cli.doctor:doctor")
    return parser


def _verb(verbs: argparse._SubParsersAction, verb: str, help: str) -> argparse._SubParsersAction:
    parser = verbs.add_parser(verb, help=help, description=help)
    return parser.add_subparsers(title="tasks", dest="task", metavar="TASK", required=True)


def _task(tasks: argparse._SubParsersAction, task: str, run: str, description: str, epilog: str) -> Parser:
    parser: Parser = tasks.add_parser(task, help=description, description=description, epilog=epilog)
    parser.set_defaults(run=f"titans_seq.cli.{run}")
    return parser


def _training_flags(parser: Parser, folder: str) -> None:
    add = parser.add_argument
    add("--epochs", type=_positive, metavar="N", help="at most so many epochs")
    add("--seed", type=_seed, metavar="S", help="seed of weights, shuffling and dropout")
    add(
        "--devices",
        type=_positive,
        metavar="N",
        help="train on N GPUs, or in N processes where there is none, each with batches of data.batch_size (default 1)",
    )
    add(
        "--strategy",
        choices=("ddp", "fsdp"),
        help="of several devices: ddp, each holds the whole model (default); fsdp, each holds a share of the weights, "
        "gradients "
        "and moments, for models too large for one",
    )
    add("--output", type=_path, metavar="DIR", help=f"run folder (default: {folder})")
    add("--resume", action="store_true", help="continue the run in --output, or in the default folder of these flags")
    _trust(parser)
    _quiet(parser)
    add("-m", "--multirun", action="store_true", help="sweep over all comma-separated overrides")
    parser.set_defaults(takes_overrides=True)


def _quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no progress bar: only the results, and notes on odd data")


def _trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust",
        metavar="CLASS",
        action="append",
        default=[],
        help="a class of your own that the run's config.yaml names, package.module.Class; may be repeated",
    )


def _checkpoint(parser: Parser, what: str = "a run folder, or a checkpoint file in it") -> None:
    parser.add_argument("--checkpoint", type=_path, metavar="RUN", required=True, help=what)
    _trust(parser)
    _quiet(parser)


# forecasting ----------------------------------------------------------------------------------------------------------


def _series(parser: Parser, what: str) -> None:
    parser.add_argument("--csv", type=_path, metavar="FILE", help=what)
    parser.add_argument(
        "--fill",
        metavar="HOW",
        help="how empty cells in --csv are filled: ffill, zero or linear (without it, one is an error)",
    )


def _fit_forecast(tasks: argparse._SubParsersAction) -> None:
    parser = _task(
        tasks, "forecast", "forecast:fit_command",
        "Train a forecaster, test its best epoch, and write metrics, pictures and checkpoints to a run folder.",
        """examples:
  titans-seq fit forecast                                     the embedded series
  titans-seq fit forecast --dataset ETTh1 --horizon 96
  titans-seq fit forecast --csv my.csv --lookback 336 --fill ffill
  titans-seq fit forecast --dataset ETTh1 model=attention     another mixer: memory, attention, ssm, none
  titans-seq fit forecast model.depth=3 trainer.accelerator=gpu
  titans-seq fit forecast --dataset Traffic --devices 4 data.batch_size=8   four devices, 32 windows in a step
  titans-seq fit forecast --dataset ETTh1 experiment=memory_linear
  titans-seq fit forecast -m seed=0,1,2 model=memory,none     a sweep, one run folder per job
  titans-seq fit forecast --dataset ETTh1 --resume            go on with an interrupted run

KEY=VALUE overrides the configuration; RUN/config.yaml shows all keys.""",
    )  # fmt: skip
    add = parser.add_argument
    add("--dataset", metavar="NAME", help="a named data set, case ignored (see `titans-seq data list`)")
    _series(parser, "a series of your own: a date column and numeric columns")
    add("--lookback", type=_positive, metavar="L", help="rows the model sees")
    add("--horizon", type=_positive, metavar="H", help="rows it forecasts")
    _training_flags(parser, "runs/forecast/<dataset>-h<horizon>-<mixer>-s<seed>")


def _test_forecast(tasks: argparse._SubParsersAction) -> None:
    parser = _task(
        tasks, "forecast", "forecast:test_command",
        "Test the best checkpoint of a run on the test split of its series, or of --csv scaled by its own train split.",
        """examples:
  titans-seq test forecast --checkpoint runs/forecast/ETTh1-h96-memory-s0
  titans-seq test forecast --checkpoint RUN --csv my.csv""",
    )  # fmt: skip
    _checkpoint(parser)
    _series(parser, "a series of your own instead of the run's")


def _predict_forecast(tasks: argparse._SubParsersAction) -> None:
    parser = _task(
        tasks, "forecast", "forecast:predict_command",
        "Forecast the rows after the last one, in original units: forecast.csv, forecast.png, surprise.png.",
        """examples:
  titans-seq predict forecast --checkpoint runs/forecast/ETTh1-h96-memory-s0
  titans-seq predict forecast --checkpoint RUN --csv my.csv --output DIR

Any columns will do. A column the run was trained on keeps the run's scale; any other is scaled by its own history.""",
    )  # fmt: skip
    _checkpoint(parser)
    _series(parser, "a series of your own instead of the run's")
    parser.add_argument("--output", type=_path, metavar="DIR", help="where to write (default: RUN/predict)")


def _surprise_forecast(tasks: argparse._SubParsersAction) -> None:
    parser = _task(
        tasks, "forecast", "forecast:surprise_command",
        "Score every row of a series by how much it surprised the memory; write a CSV and a picture of the most "
        "surprising spans.",
        """examples:
  titans-seq surprise forecast --checkpoint runs/forecast/ETTh1-h96-memory-s0
  titans-seq surprise forecast --checkpoint RUN --csv my.csv --share 0.005

The memory reads the series from its first row on. The score is the norm of the gradient it learns by, of each column
for itself; the first lookback of rows, which surprise a memory that knows nothing yet, is not marked.""",
    )  # fmt: skip
    _checkpoint(parser)
    _series(parser, "a series of your own instead of the run's")
    parser.add_argument("--share", type=_share, default=0.01, help="of rows to call surprising (default: 0.01)")
    parser.add_argument("--output", type=_path, metavar="FILE", help="(default: RUN/surprise-<series>.csv, -2 ...)")


def _report(verbs: argparse._SubParsersAction) -> None:
    what = "write a page about a finished run of `fit forecast`: one HTML file to look at in any browser"
    parser = verbs.add_parser(
        "report",
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog="""examples:
  titans-seq report runs/forecast/ETTh1-h96-memory-s0
  titans-seq report RUN --output etth1.html
  titans-seq report RUN --season 168                      the seasonal naive repeats the last week, not the last day

Test metrics beside the last value and the last season, forecasts with intervals calibrated on the validation part,
errors by step and
by channel, the training, what surprised the memory. The file asks for nothing else, so that it can be sent or kept.""",
    )
    parser.add_argument("checkpoint", type=_path, metavar="RUN", help="a run folder, or a checkpoint file in it")
    parser.add_argument(
        "--season", type=_positive, metavar="N", help="rows of a season (default: a guess by the dates)"
    )
    parser.add_argument(
        "--output", type=_path, metavar="FILE", help="(default: RUN/report.html, -2 and so on if it is there)"
    )
    _trust(parser)
    _quiet(parser)
    # csv, fill: it is about the run's own series
    parser.set_defaults(run="titans_seq.cli.report:report_command", csv=None, fill=None)


# DNA ------------------------------------------------------------------------------------------------------------------


def _fit_dna(tasks: argparse._SubParsersAction) -> None:
    parser = _task(
        tasks, "dna", "dna:fit_command",
        "Train a classifier of DNA sequences, test its best epoch, and write metrics, pictures and checkpoints.",
        """examples:
  titans-seq fit dna                                          sequences made on the spot, no download
  titans-seq fit dna --dataset human_nontata_promoters        a data set of GenomicBenchmarks
  titans-seq fit dna --csv train.csv --test-csv test.csv      your own: columns sequence,label
  titans-seq fit dna --bed regions.bed --fasta genome.fa      classes in column 4; overlapping regions stay together
  titans-seq fit dna --csv all.csv data.folds=5 data.fold=0   cross-validation, one fold per run
  titans-seq fit dna --csv train.csv --model kmer             the floor: logistic regression on 4-mers
  titans-seq fit dna --csv train.csv --from runs/dna_lm/RUN   from a pretrained encoder
  titans-seq fit dna --csv train.csv data.stranded=true       the other strand is no further example

Parts without a file are drawn by seed: a tenth for test, a tenth of the rest for validation. Equal sequences stay
together. KEY=VALUE overrides the configuration; RUN/config.yaml shows all keys.""",
    )  # fmt: skip
    add = parser.add_argument
    add("--dataset", metavar="NAME", help="a data set of the genomic-benchmarks package, downloaded once")
    add("--csv", type=_path, metavar="FILE", help="sequences of your own, CSV or TSV with sequence,label; for training")
    add("--val-csv", type=_path, metavar="FILE", help="with --csv: rows that choose the best epoch")
    add("--test-csv", type=_path, metavar="FILE", help="with --csv: rows to test on")
    add("--bed", type=_path, metavar="FILE", help="regions of --fasta, their class in column 4")
    add("--fasta", type=_path, metavar="FILE", help="with --bed: the genome, plain or bgzip")
    add("--model", metavar="NAME", help="memory (default), mac, mag, mal, attention, or kmer")
    add("--from", type=_path, metavar="RUN", help="a run of `pretrain dna` whose encoder to start from")
    add("--rc", choices=("none", "average"), help="average: test with the mean of both strands")
    _training_flags(parser, "runs/dna/<data>-<model>-s<seed>")


def _pretrain_dna(tasks: argparse._SubParsersAction) -> None:
    parser = _task(
        tasks, "dna", "dna:pretrain_command",
        "Train a language model on a genome, and test it on parts held out, in bits per base (2 is chance).",
        """examples:
  titans-seq pretrain dna --fasta genome.fa
  titans-seq pretrain dna --fasta genome.fa --objective masked --length 512
  titans-seq pretrain dna --fasta genome.fa --carry 64             for reading whole records in one stream
  titans-seq pretrain dna --fasta genome.fa 'data.val_records=[chr8]' 'data.test_records=[chr9]'
  titans-seq pretrain dna --fasta genome.fa --bed splits.bed       train, val or test in column 4
  titans-seq pretrain dna --fasta genome.fa --devices 4            on four devices
  titans-seq pretrain dna --fasta genome.fa --epochs 20 --resume   go on with an interrupted run

By default the last 5 % of every record are test and the 5 % before them validation.
KEY=VALUE overrides the configuration; RUN/config.yaml shows all keys.""",
    )  # fmt: skip
    add = parser.add_argument
    add("--fasta", type=_path, metavar="FILE", help="the genome, plain or bgzip")
    add("--bed", type=_path, metavar="FILE", help="intervals with train, val or test in column 4")
    add("--length", type=_positive, metavar="L", help="bases per window")
    add(
        "--carry",
        type=_positive,
        metavar="N",
        help="train on streams: N windows in a row with the memory carried on (default 1: each for itself)",
    )
    add("--objective", choices=("next", "masked"), help="next base (default), or masked bases seen from both sides")
    add("--model", metavar="NAME", help="memory (default), mac, mag, mal or attention")
    _training_flags(parser, "runs/dna_lm/<genome>-<objective>-<model>-s<seed>")


def _test_dna(tasks: argparse._SubParsersAction) -> None:
    parser = _task(
        tasks, "dna", "dna:test_command",
        "Test the best checkpoint of a run on its test part, or on a file of your own.",
        """examples:
  titans-seq test dna --checkpoint runs/dna/train-memory-s0
  titans-seq test dna --checkpoint RUN --csv other.csv --rc average
  titans-seq test dna --checkpoint runs/dna_lm/RUN --fasta other.fa""",
    )  # fmt: skip
    _checkpoint(parser)
    parser.add_argument(
        "--csv", type=_path, metavar="FILE", help="labelled sequences instead of the run's (classifier)"
    )
    parser.add_argument("--fasta", type=_path, metavar="FILE", help="a genome instead of the run's (language model)")
    parser.add_argument("--rc", choices=("none", "average"), help="average: the mean of both strands")


def _sequences(parser: Parser) -> None:
    parser.add_argument(
        "--csv", type=_path, metavar="FILE", help="CSV or TSV with a column sequence and, if you like, id"
    )
    parser.add_argument("--fasta", type=_path, metavar="FILE", help="each record is one sequence")


def _predict_dna(tasks: argparse._SubParsersAction) -> None:
    parser = _task(
        tasks, "dna", "dna_tools:predict_command",
        "Write the probabilities of the classes of each sequence to a CSV file.",
        """examples:
  titans-seq predict dna --checkpoint runs/dna/train-memory-s0 --csv new.csv
  titans-seq predict dna --checkpoint RUN --fasta new.fa --output new_probabilities.csv""",
    )  # fmt: skip
    _checkpoint(parser)
    _sequences(parser)
    parser.add_argument("--rc", choices=("none", "average"), help="average: the mean of both strands")
    parser.add_argument(
        "--output",
        type=_path,
        metavar="FILE",
        help="(default: RUN/predictions-<input>.csv, -2 and so on if it is there)",
    )


def _embed_dna(tasks: argparse._SubParsersAction) -> None:
    parser = _task(
        tasks, "dna", "dna_tools:embed_command",
        "Write features of each sequence to an .npz file: `embeddings` and `ids`.",
        """examples:
  titans-seq embed dna --checkpoint runs/dna_lm/RUN --fasta regions.fa
  titans-seq embed dna --checkpoint RUN --csv new.csv --layer 1 --pooling max
  titans-seq embed dna --checkpoint RUN --fasta regions.fa --pooling none   one row per base, with `offsets`""",
    )  # fmt: skip
    _checkpoint(parser)
    _sequences(parser)
    parser.add_argument(
        "--layer", type=_positive, metavar="N", help="after block N, counted from 1 (default: the last, normalised)"
    )
    parser.add_argument(
        "--pooling", choices=("mean", "max", "last", "none"), default="mean", help="over real bases (default: mean)"
    )
    parser.add_argument("--output", type=_path, metavar="FILE", help="(default: RUN/embeddings-<input>.npz, -2 ...)")


def _score_dna(tasks: argparse._SubParsersAction) -> None:
    parser = _task(
        tasks, "dna", "dna_tools:score_command",
        "Score variants without training on any: log-likelihood of the alternative minus the reference allele, in "
        "nats.",
        """examples:
  titans-seq score dna --checkpoint runs/dna_lm/RUN --fasta genome.fa --vcf variants.vcf
  titans-seq score dna --checkpoint RUN --fasta genome.fa --csv variants.csv --window 2048

A CSV has the columns record (or chrom), position (1-based, as in VCF; or position0), ref and alt; `row` of the output
is its line. Both strands are scored and averaged; the likelihood of an allele that is longer or shorter is taken per
base.""",
    )  # fmt: skip
    _checkpoint(parser)
    add = parser.add_argument
    add("--fasta", type=_path, metavar="FILE", required=True, help="the genome the variants belong to, plain or bgzip")
    add("--vcf", type=_path, metavar="FILE", help="variants as VCF, also .gz")
    add("--csv", type=_path, metavar="FILE", help="variants as CSV or TSV")
    add("--window", type=_positive, default=1024, metavar="L", help="bases read around a variant (default: 1024)")
    add("--output", type=_path, metavar="FILE", help="(default: RUN/scores-<input>.csv, -2 ...)")


def _surprise_dna(tasks: argparse._SubParsersAction) -> None:
    parser = _task(
        tasks, "dna", "dna_tools:surprise_command",
        "Read each record of a genome in one stream and write how surprised the memory was, for a genome browser.",
        """examples:
  titans-seq surprise dna --checkpoint runs/dna_lm/RUN --fasta genome.fa --bedgraph surprise.bedgraph
  titans-seq surprise dna --checkpoint RUN --fasta genome.fa --bedgraph chr1.bedgraph --record chr1 --bin 100 \\
      --track bits

The memory is carried from the first base to the last at constant size; a picture of each track lies beside the
file.""",
    )  # fmt: skip
    _checkpoint(parser)
    add = parser.add_argument
    add("--fasta", type=_path, metavar="FILE", required=True, help="plain or bgzip")
    add("--bedgraph", type=_path, metavar="FILE", required=True, help="where to write")
    add("--record", metavar="NAME", help="only this record (default: all)")
    add("--bin", type=_positive, default=10, metavar="W", help="bases per value (default: 10)")
    add("--track", choices=("surprise", "bits"), default="surprise", help="bits: how unlikely each base was, in bits")


# text -----------------------------------------------------------------------------------------------------------------


def _fit_lm(tasks: argparse._SubParsersAction) -> None:
    parser = _task(
        tasks, "lm", "lm:fit_command",
        "Train a language model on a text or on a task with answers, test its best epoch, and write it to a run "
        "folder.",
        """examples:
  titans-seq fit lm --text book.txt                                a MAC of bytes
  titans-seq fit lm --variant lmm --text book.txt --length 1024
  titans-seq fit lm --text book.txt --vocab-size 4096              byte pairs learned from the text
  titans-seq fit lm --text book.txt --tokenizer tokenizer.json     of the Hugging Face library tokenizers
  titans-seq fit lm --task passkey --variant mag --length 512      a number hidden in noise; see `eval lm`
  titans-seq fit lm --text book.txt model.segment=128 model.depth=1 data.steps_per_epoch=250
  titans-seq fit lm --variant mag --size 170m --text corpus.txt --tokenizer tokenizer.json --devices 8 \\
      trainer.accumulate_grad_batches=4
  titans-seq fit lm --variant mac --size 760m --text corpus.txt --devices 8 --strategy fsdp \\
      trainer.accumulate_grad_batches=4
  titans-seq fit lm --text book.txt --resume                       go on with an interrupted run

The first 90 % of the text train, the next 5 % choose the epoch, the last 5 % test.
KEY=VALUE overrides the configuration; RUN/config.yaml shows all keys.""",
    )  # fmt: skip
    add = parser.add_argument
    add("--text", type=_path, metavar="FILE", help="a text in UTF-8")
    add(
        "--task",
        dest="task_name",
        metavar="NAME",
        help="instead of a text: passkey, number, uuid, recall, one_fact, two_facts, permutations, swaps or parity",
    )
    add("--variant", metavar="NAME", help="lmm, mac (default), mag, mal, or transformer")
    add(
        "--size",
        metavar="SIZE",
        help="of the paper, with its recipe for one device: 170m, 340m, 400m or 760m (at a vocabulary of 32,000)",
    )
    add("--length", type=_positive, metavar="T", help="tokens per sample (default 256)")
    add(
        "--carry",
        type=_positive,
        metavar="N",
        help="train on streams of the text: N samples in a row with the state carried on (default 1: each for itself)",
    )
    add("--tokenizer", type=_path, metavar="FILE", help="a tokenizer.json (default: bytes)")
    add(
        "--vocab-size",
        type=_positive,
        metavar="V",
        help="learn byte pairs from the text, so many tokens; pip install 'titans-seq[lm]'",
    )
    _training_flags(parser, "runs/lm/<text or task>-<variant>-s<seed>")


def _eval_lm(tasks: argparse._SubParsersAction) -> None:
    parser = _task(
        tasks, "lm", "lm:eval_command",
        "Measure a language model: the perplexity of a text in one stream, its accuracy in tasks by length, or tasks "
        "of "
        "lm-evaluation-harness.",
        """examples:
  titans-seq eval lm --checkpoint runs/lm/book-mac-s0 --text other.txt
  titans-seq eval lm --checkpoint runs/lm/passkey-mac-s0 --tasks passkey --lengths 512 2048 8192
  titans-seq eval lm --checkpoint RUN --tasks wikitext piqa        tasks of lm-evaluation-harness (extra [harness])
  titans-seq eval lm --checkpoint RUN --tasks paper                all that the paper reports
  titans-seq eval lm --checkpoint RUN --tasks mine --include DIR   a task file of your own in DIR""",
    )  # fmt: skip
    _checkpoint(parser, "a run folder, or the folder of a model that was saved")
    add = parser.add_argument
    add(
        "--text",
        type=_path,
        metavar="FILE",
        help="read in one stream, with the state carried from its first token to its last",
    )
    add(
        "--tasks",
        nargs="+",
        metavar="NAME",
        help="those of `titans-seq fit lm --help`, of the harness, or paper: nine of them",
    )
    add("--lengths", type=_length, nargs="+", metavar="T", help="tokens per sample (default: 256 512 1024 2048 4096)")
    add("--samples", type=_positive, metavar="N", help="per length (default 128)")
    add("--include", type=_path, metavar="DIR", help="where task files of your own lie")
    add("--limit", type=_positive, metavar="N", help="at most so many documents of each task of the harness")
    add("--seed", type=_seed, metavar="S", help="of the samples (default 0)")
    add(
        "--output",
        type=_path,
        metavar="PATH",
        help="--text: a JSON file to write; --tasks: a folder (default: RUN/eval)",
    )


def _generate_lm(tasks: argparse._SubParsersAction) -> None:
    parser = _task(
        tasks, "lm", "lm:generate_command",
        "Continue a text. The state can be kept and given again: the model goes on from what it has read.",
        """examples:
  titans-seq generate lm --checkpoint runs/lm/book-mac-s0 --prompt 'Once upon a time'
  titans-seq generate lm --checkpoint RUN --prompt 'To be' --tokens 500 --temperature 0.8 --top-p 0.95 --seed 1
  titans-seq generate lm --checkpoint RUN --prompt 'Hello' --save-state talk.state
  titans-seq generate lm --checkpoint RUN --prompt ' Well?' --state talk.state""",
    )  # fmt: skip
    _checkpoint(parser, "a run folder, or the folder of a model that was saved")
    add = parser.add_argument
    add("--prompt", required=True, metavar="TEXT", help="what to continue")
    add("--tokens", type=_positive, default=200, metavar="N", help="how many to draw (default 200)")
    add("--temperature", type=float, default=1.0, metavar="X", help="0: always the most likely (default 1)")
    add("--top-k", type=_positive, metavar="K", help="draw among the K most likely")
    add("--top-p", type=float, metavar="P", help="draw among the fewest that have this share of the probability")
    add("--seed", type=_seed, default=0, metavar="S", help="of the draws (default 0)")
    add("--state", type=_path, metavar="FILE", help="go on from a state that was saved")
    add("--save-state", type=_path, metavar="FILE", help="keep the state after all that was printed")


# the rest -------------------------------------------------------------------------------------------------------------


def _lightning(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "lightning",
        add_help=False,
        help="LightningCLI over the same modules: fit, validate, test, predict",
    )
    parser.set_defaults(run="titans_seq.cli.lightning_cli:lightning_command", takes_everything=True)


def _data(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser("data", help="list, check, download and audit data sets")
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    place = "Data sets lie in $TITANS_SEQ_DATA (default: the user cache folder), as forecast/<name>.csv or .csv.gz."
    listing = actions.add_parser("list", help="the named data sets, and which of them are here", description=place)
    listing.set_defaults(run="titans_seq.cli.data:list_command")
    check = actions.add_parser(
        "check", help="compare files with their checksums and shapes", description=place,
        epilog="examples:\n  titans-seq data check\n  titans-seq data check ETTh1 Weather",
    )  # fmt: skip
    check.add_argument("names", nargs="*", metavar="NAME", help="default: every data set found")
    check.set_defaults(run="titans_seq.cli.data:check_command")
    download = actions.add_parser(
        "download", help="download data sets once", description=place,
        epilog="examples:\n  titans-seq data download ETTh1 ETTh2\n  titans-seq data download human_nontata_promoters",
    )  # fmt: skip
    download.add_argument("names", nargs="+", metavar="NAME")
    download.add_argument("--quiet", action="store_true", help="no progress bar")
    download.set_defaults(run="titans_seq.cli.data:download_command")
    _audit(actions)


def _audit(actions: argparse._SubParsersAction) -> None:
    parser = actions.add_parser(
        "audit",
        help="how far test intervals overlap training intervals",
        description="Measure the overlap of test with training intervals, and what their length alone tells of the "
                    "class.",
        epilog="""examples:
  titans-seq data audit                                    the interval lists of GenomicBenchmarks
  titans-seq data audit human_nontata_promoters
  titans-seq data audit --path datasets/                   a folder, or .tar, of such lists
  titans-seq data audit --train train.bed --test test.bed  your own, class in column 4""",
    )  # fmt: skip
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="default: every data set in the lists")
    add("--path", type=_path, metavar="PATH", help="folder or .tar of interval lists")
    add("--train", type=_path, metavar="BED", help="training intervals of your own")
    add("--test", type=_path, metavar="BED", help="test intervals of your own")
    parser.set_defaults(run="titans_seq.cli.audit:audit_command")
