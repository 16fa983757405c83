"""`titans-seq importance forecast`: how much covariates matter."""

import argparse

from titans_seq.cli import runs
from titans_seq.cli.errors import UsageError
from titans_seq.cli.pictures import draw
from titans_seq.cli.tables import show_paths, show_table
from titans_seq.cli.trained import open_trained
from titans_seq.datamodules.common.files import user_path
from titans_seq.files import replacing
from titans_seq.forecast.importance import importance
from titans_seq.forecast.pictures import plot_importance


def importance_command(arguments: argparse.Namespace) -> None:
    """Measure on the test rows, write and draw."""
    trained = open_trained(arguments, "test")
    data = trained.series
    if not any(data.sizes.values()):
        raise UsageError(f"{trained.folder} was trained without covariates, so there is nothing to measure")
    table = importance(trained.fitted, [data.windows("test")], repeats=arguments.repeats)
    default = trained.folder / "importance.csv"
    path = runs.free(user_path(arguments.output) if arguments.output else default)
    runs.make_folder(path.parent)
    with replacing(path) as part:
        table.to_csv(part, index=False)
    columns = list(table.columns)
    show_table(f"{trained.name}: increase of the loss", columns, table.to_numpy().tolist())
    show_paths("files", [path, *draw(plot_importance, table, path.with_suffix(".png"), title=str(trained.name))])
