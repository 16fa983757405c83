"""The flags of `titans-seq compare`."""

from titans_seq.cli.flags import TRUST, Command, Flag, path

COMPARE = Command(
    "compare:compare_command",
    "Show the metrics of finished runs of one task beside each other, the best value marked, and what differs in "
    "their configurations.",
    (
        Flag("runs RUN", "run folders, or folders of sweeps", nargs="+", type=path),
        Flag("--csv FILE", "write every metric and every difference to a table too", type=path),
        Flag("--output FILE", "the picture (default: compare.png, then -2, ...)", type=path),
        TRUST,
    ),
    """examples:
  titans-seq compare runs/forecast/ETTh1-h96-memory-s0 runs/forecast/ETTh1-h96-none-s0
  titans-seq compare runs/forecast/* --csv compared.csv
  titans-seq compare runs/forecast/sweep-2026-01-31_12-00-00      every job of a sweep

Only runs on the same data, read the same way and tested on the same windows can be compared: all others are shown
apart, with the best of each group. The loss is marked where it is the same loss in all tasks' runs: the training loss
of a forecaster depends on training.output.""",
    help="show the metrics of finished runs beside each other",
)
