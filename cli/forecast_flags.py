"""The flags of `titans-seq fit|test|predict|surprise forecast` and `titans-seq report`."""

from titans_seq.cli.flags import (
    MODEL,
    QUIET,
    TRUST,
    Command,
    Flag,
    checkpoint_flags,
    file,
    levels,
    path,
    positive,
    share,
    text,
    training_flags,
)
from titans_seq.cli.table_flags import SPLIT, TABLE, columns

OUTPUTS = ("quantiles", "student_t", "normal", "negative_binomial", "mse", "mae", "huber")  # of --output-type
SEASON = Flag("--season N", "rows of a season (default: guessed from the dates)", type=positive)
_OTHER_SERIES = Flag("--csv FILE", "a file of your own instead of the run's series", type=file)

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
            "a file of your own: CSV, TSV, Excel or Parquet, also zipped; dates and numeric columns, or long with "
            "--id-column",
            "data=csv",
            "data.csv",
            "data.dataset",
            type=file,
        ),
        Flag(
            "--parquet PATH", "a Parquet file, or a folder of them", "data=csv", "data.csv", "data.dataset", type=file
        ),
        Flag("--lookback L", "rows the model sees", "data.lookback", type=positive),
        Flag("--horizon H", "rows it forecasts", "data.horizon", type=positive),
        Flag(
            "--output-type",
            "what a forecast is (default: quantiles); intervals are calibrated on the validation rows for all of them",
            "training.output",
            choices=OUTPUTS,
        ),
        SPLIT,
        Flag(
            "--transform",
            "of the target before it is standardised; forecasts are then never below 0",
            "data.transform",
            choices=("log1p", "softplus"),
        ),
        Flag(
            "--holidays CODES",
            "known in advance: of countries or their parts, such as DE or DE-BY,FR",
            "data.holidays",
            type=columns,
        ),
        Flag(
            "--seeds N",
            "train N networks, with this seed and the next ones, and average their forecasts; they share --max-minutes",
            "seeds",
            type=positive,
        ),
        Flag(
            "--sample-weight NAME",
            "column that weights the rows in training; metrics do not know of it",
            "data.sample_weight",
            type=text,
        ),
        *TABLE,
        *training_flags("runs/forecast/<dataset>-h<horizon>-<mixer>-s<seed>"),
    ),
    """examples:
  titans-seq fit forecast                                     the embedded series
  titans-seq fit forecast --dataset ETTh1 --horizon 96
  titans-seq fit forecast --csv my.csv --lookback 336
  titans-seq fit forecast --csv sales.csv --id-column store --target sales --future-covariates price,promotion
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
    "forecast_use:test_command",
    "Test the best checkpoint of a run on the test split of its series, or of --csv scaled by its own train split.",
    (*checkpoint_flags(MODEL), _OTHER_SERIES, SEASON, *TABLE),
    """examples:
  titans-seq test forecast --checkpoint runs/forecast/ETTh1-h96-memory-s0
  titans-seq test forecast --checkpoint RUN --csv my.csv""",
)

PREDICT = Command(
    "forecast_use:predict_command",
    "Forecast the rows after the last one, in original units: forecast.csv, forecast.png, surprise.png.",
    (
        *checkpoint_flags(MODEL),
        _OTHER_SERIES,
        Flag("--future FILE", "future covariates over the horizon: time, series and their columns", type=file),
        Flag("--future-frame FILE", "only write the rows that --future needs, to be filled in", type=path),
        Flag("--horizon H", "steps to forecast, at most those it was trained for", type=positive),
        Flag("--level P", "intervals, percentages with commas between them (default: 80,95)", type=levels),
        Flag("--samples N", "write N sample paths to samples.csv too", type=positive),
        Flag("--fitted", "write one-step forecasts of the known rows and their residuals to fitted.csv too"),
        Flag("--output PATH", "folder, or a file *.csv for the forecast alone (default: RUN/predict)", type=path),
        *TABLE,
    ),
    """examples:
  titans-seq predict forecast --checkpoint runs/forecast/ETTh1-h96-memory-s0
  titans-seq predict forecast --checkpoint RUN --csv my.csv --output DIR

Any columns will do. A column the run was trained on keeps the run's scale; any other is scaled by its own history.""",
)

SURPRISE = Command(
    "forecast_use:surprise_command",
    "Score every row of a series by how much it surprised the memory; write a CSV and a picture of the most "
    "surprising spans.",
    (
        *checkpoint_flags(MODEL),
        _OTHER_SERIES,
        Flag("--share X", "share of rows to mark as surprising (default: 0.01)", type=share, default=0.01),
        Flag("--output FILE", "(default: RUN/surprise-<series>.csv, then -2, ...)", type=path),
        *TABLE,
    ),
    """examples:
  titans-seq surprise forecast --checkpoint runs/forecast/ETTh1-h96-memory-s0
  titans-seq surprise forecast --checkpoint RUN --csv my.csv --share 0.005

The memory reads the series from its first row. The score of a row and column is the norm of the gradient that the
memory learns by. The first lookback is not marked: everything surprises a memory that has learned nothing yet.""",
)

IMPORTANCE = Command(
    "importance:importance_command",
    "Measure how much each covariate matters: how much the loss grows when windows exchange its values.",
    (
        *checkpoint_flags(MODEL),
        _OTHER_SERIES,
        Flag("--repeats N", "permutations whose mean is taken (default: 5)", type=positive, default=5),
        Flag("--output FILE", "(default: RUN/importance.csv, then -2, ...)", type=path),
        *TABLE,
    ),
    """examples:
  titans-seq importance forecast --checkpoint RUN

Measured on the test rows. Covariates that tell the same stand in for each other: each then seems to matter little.""",
)

BACKTEST = Command(
    "backtest:backtest_command",
    "Forecast past cutoffs as if each were now: forecasts.csv, scores per series and per cutoff, and a picture.",
    (
        *checkpoint_flags(MODEL),
        _OTHER_SERIES,
        Flag("--windows N", "cutoffs of each series (default: 3)", type=positive, default=3),
        Flag("--step N", "rows between cutoffs (default: the horizon); the last window ends with the series",
             type=positive),
        Flag("--refit", "train anew before each cutoff, on the rows before it alone"),
        SEASON,
        Flag("--level P", "intervals, percentages with commas between them (default: 80,95)", type=levels),
        Flag("--output DIR", "(default: RUN/backtest, then -2, ...)", type=path),
        *TABLE,
    ),
    """examples:
  titans-seq backtest forecast --checkpoint runs/forecast/ETTh1-h96-memory-s0 --windows 5
  titans-seq backtest forecast --checkpoint RUN --refit --windows 3 --step 24

Without --refit the weights of the run forecast, and no cutoff may lie before rows they were trained or chosen on.""",
)  # fmt: skip

REPORT = Command(
    "report:report_command",
    "Write a page about a trained forecaster, a run or a saved one: one HTML file for any browser.",
    (
        Flag("checkpoint RUN", MODEL, type=path),
        _OTHER_SERIES,
        SEASON,
        Flag("--output FILE", "(default: RUN/report.html, then -2, ...)", type=path),
        Flag("--scores FILE", "write the scores of all series too, as a CSV", type=path),
        *TABLE,
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
    help="write a page about a trained forecaster: one HTML file for any browser",
)
