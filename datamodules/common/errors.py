"""The errors that all readers raise: one line, what, where, what to do."""

import re
from numbers import Integral

_HALF = 500  # characters of a message, before and after what is left out of the middle


class DataError(ValueError):
    """The user's data, or the place where it should be, is wrong. One line: what, where, what to do."""

    def __init__(self, message: str) -> None:
        if len(message) > 2 * _HALF:  # it quotes a cell or a header that is very long
            message = f"{message[:_HALF]}...{message[-_HALF:]}"
        super().__init__(re.sub(r"\s*[\r\n]+\s*", " ", message))  # a server's or a parser's words may hold more


def at_least(least: int, **arguments: int) -> None:
    """Raise a DataError unless all arguments are whole numbers of at least `least`."""
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise DataError(f"{name} must be a whole number; got {value!r}")
        if value < least:
            raise DataError(f"{name} must be at least {least}; got {value}")


class DataWarning(UserWarning):
    """The user's data can be used, but hold something that is probably not meant."""
