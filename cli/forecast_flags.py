"""The flags of `titans-seq fit|test|predict|surprise forecast` and `titans-seq report`."""

from titans_seq.cli.flags import (
    QUIET,
    RUN,
    TRUST,
    Command,
    Flag,
    checkpoint_flags,
    file,
    path,
    positive,
    share,
    training_flags,
)

_OTHER_SERIES = Flag("--csv FILE", "a series of your own instead of the run's", type=file)

FIT = Command(
    "forecast:fit_command",
    "Train a forecaster, test its best epoch, and write metrics, pictures and checkpoints to a run folder.",
    (
        Flag(
            "--dataset NAME",
            "a named data set, in any case (see `titans-seq data list`)",
            "data",
            "data.dataset",
            "data.csv",
        ),
        Flag(
            "--csv FILE",
            "a series of your own: dates and numeric columns",
            "data=csv",
            "data.csv",
            "data.dataset",
            type=file,
        ),
        Flag("--lookback L", "rows the model sees", "data.lookback", type=positive),
        Flag("--horizon H", "rows it forecasts", "data.horizon", type=positive),
        *training_flags("runs/forecast/<dataset>-h<horizon>-<mixer>-s<seed>"),
    ),
    """examples:
  titans-seq fit forecast                                     the embedded series
  titans-seq fit forecast --dataset ETTh1 --horizon 96
  titans-seq fit forecast --csv my.csv --lookback 336
  titans-seq fit forecast --dataset ETTh1 model=attention     another mixer: memory, mac, mag, mal, none, ...
  titans-seq fit forecast model.depth=3 trainer.accelerator=gpu
  titans-seq fit forecast --dataset Traffic --devices 4 data.batch_size=8   four devices, 32 windows per step
  titans-seq fit forecast --dataset ETTh1 experiment=memory_linear
  titans-seq fit forecast -m seed=0,1,2 model=memory,none     a sweep, one run folder per job
  titans-seq fit forecast --dataset ETTh1 --resume            continue an interrupted run

KEY=VALUE overrides the configuration; RUN/config.yaml shows all keys.""",
    takes_overrides=True,
)

TEST = Command(
    "forecast:test_command",
    "Test the best checkpoint of a run on the test split of its series, or of --csv scaled by its own train split.",
    (*checkpoint_flags(), _OTHER_SERIES),
    """examples:
  titans-seq test forecast --checkpoint runs/forecast/ETTh1-h96-memory-s0
  titans-seq test forecast --checkpoint RUN --csv my.csv""",
)

PREDICT = Command(
    "forecast:predict_command",
    "Forecast the rows after the last one, in original units: forecast.csv, forecast.png, surprise.png.",
    (
        *checkpoint_flags(),
        _OTHER_SERIES,
        Flag("--output PATH", "folder, or a file *.csv for the forecast alone (default: RUN/predict)", type=path),
    ),
    """examples:
  titans-seq predict forecast --checkpoint runs/forecast/ETTh1-h96-memory-s0
  titans-seq predict forecast --checkpoint RUN --csv my.csv --output DIR

Any columns will do. A column the run was trained on keeps the run's scale; any other is scaled by its own history.""",
)

SURPRISE = Command(
    "forecast:surprise_command",
    "Score every row of a series by how much it surprised the memory; write a CSV and a picture of the most "
    "surprising spans.",
    (
        *checkpoint_flags(),
        _OTHER_SERIES,
        Flag("--share X", "share of rows to mark as surprising (default: 0.01)", type=share, default=0.01),
        Flag("--output FILE", "(default: RUN/surprise-<series>.csv, then -2, ...)", type=path),
    ),
    """examples:
  titans-seq surprise forecast --checkpoint runs/forecast/ETTh1-h96-memory-s0
  titans-seq surprise forecast --checkpoint RUN --csv my.csv --share 0.005

The memory reads the series from its first row. The score of a row and column is the norm of the gradient that the
memory learns by. The first lookback is not marked: everything surprises a memory that has learned nothing yet.""",
)

REPORT = Command(
    "report:report_command",
    "Write a page about a finished run of `fit forecast`: one HTML file for any browser.",
    (
        Flag("checkpoint RUN", RUN, type=path),
        Flag("--season N", "rows of a season (default: guessed from the dates)", type=positive),
        Flag("--output FILE", "(default: RUN/report.html, then -2, ...)", type=path),
        TRUST,
        QUIET,
    ),
    """examples:
  titans-seq report runs/forecast/ETTh1-h96-memory-s0
  titans-seq report RUN --output etth1.html
  titans-seq report RUN --season 168                      the seasonal naive repeats the last week, not the last day

The page has test metrics beside those of the last value and the last season, forecasts with intervals calibrated on
the validation split, errors by step and by channel, the training, and what surprised the memory. It loads nothing from
elsewhere, so it can be sent or kept.""",
    help="write a page about a finished run of `fit forecast`: one HTML file for any browser",
)
