"""What the benchmarks ask of their command lines."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

QUICK = "everything in a tiny size, to see that it runs; tables are printed, docs/ stays as it is"


def positive(text: str) -> int:
    """A whole number of at least 1; argparse makes one line of the error."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


@contextmanager
def one_line(*errors: type[Exception]) -> Iterator[None]:
    """What the user can put right ends the script with one line."""
    try:
        yield
    except errors as error:
        sys.exit(str(error))
