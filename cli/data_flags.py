"""The flags of `titans-seq data list|check|download|audit`."""

from titans_seq.cli.flags import QUIET, Command, Flag, path

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
