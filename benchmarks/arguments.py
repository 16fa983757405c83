"""What the benchmarks ask of their command lines."""


def positive(text: str) -> int:
    """A whole number of at least 1; argparse makes one line of the error."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number
