"""Text from files and data, made fit to be shown. Nothing heavy is imported here."""


def printable(text: str, most: int | None = 300) -> str:
    r"""Return text that a terminal or a picture can show as it is.

    What is not printable (control characters, ANSI escapes, bytes of a file name that are not UTF-8, marks that change
    the direction of writing) is written as Python writes it in a string, such as `\x1b` or `\udcff`.

    Args:
        most: longest result, counted before the escapes; a longer text loses its middle. None: no limit.
    """
    if most is not None and len(text) > most:
        tail = most // 3
        text = f"{text[: most - tail - 3]}...{text[-tail:]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
