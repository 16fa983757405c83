"""The flags of `titans-seq data list|check|download|describe|audit`."""

from titans_seq.cli.flags import QUIET, Command, Flag, path, positive
from titans_seq.cli.table_flags import SPLIT, TABLE

_PLACE = "Data sets lie in $TITANS_SEQ_DATA (default: the user cache folder), as forecast/<name>.csv or .csv.gz."

LIST = Command("data:list_command", _PLACE, help="list the named data sets, and which of them are here")

CHECK = Command(
    "data:check_command",
    _PLACE,
    (Flag("names NAME", "(default: every data set found)", nargs="*"),),
    """examples:
  titans-seq data check
  titans-seq data check ETTh1 Weather""",
    help="compare files with their checksums and shapes",
)

DOWNLOAD = Command(
    "data:download_command",
    _PLACE,
    (Flag("names NAME", "", nargs="+"), QUIET),
    """examples:
  titans-seq data download ETTh1 ETTh2
  titans-seq data download human_nontata_promoters""",
    help="download data sets once",
)

DESCRIBE = Command(
    "describe:describe_command",
    "Show what the reader understands of a file of series: how it is written, time and gaps, series, columns, the "
    "split into train, validation and test, and periods.",
    (
        Flag(
            "file FILE",
            "text (.csv, .tsv, .txt, as it is, .gz or .zip), Excel, or Parquet, a file or folder",
            type=path,
        ),
        *TABLE,
        SPLIT,
        Flag("--lookback L", "rows the model sees (default: 96)", type=positive, default=96),
        Flag("--horizon H", "rows it forecasts (default: 96)", type=positive, default=96),
        Flag("--output FILE", "the picture (default: <FILE>-described.png, then -2, ...)", type=path),
    ),
    """examples:
  titans-seq data describe my.csv
  titans-seq data describe sales.xlsx --sheet 2024 --id-column shop --target revenue
  titans-seq data describe german.csv --separator ";" --decimal , --day-first --lookback 336

Nothing is trained. What a fit would refuse is refused here in the same line, after the columns are shown.""",
    help="show what is understood of a file of series, with a picture",
)

AUDIT = Command(
    "audit:audit_command",
    "Measure the overlap of test with training intervals, and how well their length alone predicts the class.",
    (
        Flag("names NAME", "(default: every data set in the lists)", nargs="*"),
        Flag("--path PATH", "folder or .tar of interval lists", type=path),
        Flag("--train BED", "training intervals of your own", type=path),
        Flag("--test BED", "test intervals of your own", type=path),
    ),
    """examples:
  titans-seq data audit                                    the interval lists of GenomicBenchmarks
  titans-seq data audit human_nontata_promoters
  titans-seq data audit --path datasets/                   a folder, or .tar, of such lists
  titans-seq data audit --train train.bed --test test.bed  your own, class in column 4""",
    help="measure how far test intervals overlap training intervals",
)
