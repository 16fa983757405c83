"""Results for people: rich tables on stdout."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from titans_seq.printable import printable

MAX_WIDTH = 200  # of a table, in characters


def show_record(title: str, record: Mapping[str, Any]) -> None:
    """Print names and values, one per line."""
    table = Table(title=_cell(title), title_justify="left", show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in record.items():
        table.add_row(_cell(name), _cell(value))
    Console().print(table)


def show_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, marked: Collection[tuple[int, int]] = ()
) -> None:
    """Print a table with a head; numbers stand right.

    Args:
        marked: row and column of cells that stand out, bold and with an asterisk.
    """
    table = Table(title=_cell(title), title_justify="left")
    for i, name in enumerate(columns):
        numeric = any(isinstance(row[i], (int, float)) and not isinstance(row[i], bool) for row in rows)
        table.add_column(_cell(name), justify="right" if numeric else "left", overflow="fold", no_wrap=i == 0)
    for i, row in enumerate(rows):
        table.add_row(*(_marked(cell) if (i, j) in marked else _cell(cell) for j, cell in enumerate(row)))
    console = Console()
    # a table wider than the terminal is cut or scrolls; folded numbers could not be read at all
    wanted = Measurement.get(console, console.options.update(max_width=MAX_WIDTH), table).maximum
    Console(width=max(console.width, wanted)).print(table)


def show_paths(title: str, paths: Sequence[Path]) -> None:
    """Print paths whole, one per line, so that they can be copied."""
    for i, path in enumerate(paths):
        print(f"{title if i == 0 else '':<8} {printable(str(path), most=None)}")


def shown(value: Any) -> str:
    """Return a value as a table shows it: numbers with a point to 4 digits behind it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) and abs(value) > 9999 else str(value)


def _marked(value: Any) -> Text:
    return Text("* ", style="bold green").append_text(_cell(value))


def _cell(value: Any) -> Text:
    """A value as text: a plain string would be read for rich's markup, such as [red]."""
    return Text(printable(shown(value)))
