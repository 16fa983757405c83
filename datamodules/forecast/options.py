"""How messages name what a reader can be told: by the flag of the command and by the argument in Python."""

from typing import Any

_FLAGS = {
    "id_col": "--id-column",
    "time_col": "--time-column",
    "target_col": "--target",
    "freq": "--freq",
    "separator": "--separator",
    "decimal": "--decimal",
    "thousands": "--thousands",
    "encoding": "--encoding",
    "sheet": "--sheet",
}


def option(argument: str, value: Any = None) -> str:
    """An argument in the words of both faces, such as "--id-column COLUMN (id_col= in Python)".

    Args:
        argument: its name in Python.
        value: what to give; None leaves it open.
    """
    word = ("COLUMN" if argument.endswith("_col") else "VALUE") if value is None else value
    return f"{_FLAGS[argument]} {word} ({argument}={'' if value is None else repr(value)} in Python)"
