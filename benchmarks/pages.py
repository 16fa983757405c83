"""Pages whose tables are written by a script and whose prose is written by hand."""

from pathlib import Path


def replace_part(page: Path, name: str, text: str) -> None:
    """Put text between the lines `<!-- name -->` and `<!-- /name -->` of a page; all else stays as it is."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, rest = page.read_text().split(begin)
    _, after = rest.split(end)
    page.write_text(f"{before}{begin}\n{text.strip()}\n\n{end}{after}")


def row(*entries: object) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(map(str, entries)) + " |"


def line(columns: int) -> str:
    """The line under the head of a Markdown table."""
    return "|" + "---|" * columns
