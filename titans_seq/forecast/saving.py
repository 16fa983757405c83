"""What a saved forecaster says of its output, and how what a file says wrongly is told."""

from typing import Any

from gluonts.torch.distributions import Output

from titans_seq.forecast.outputs import OUTPUTS, output_arguments

# what building from values of wrong types, names or sizes raises
WRONG = (KeyError, TypeError, IndexError, ValueError, RuntimeError, AttributeError, OverflowError, AssertionError)


def plain_output(output: str | Output) -> Any:
    """An output as JSON holds it: its name, or the name of its class and plain arguments."""
    if isinstance(output, str):
        return output
    return {"class": type(output).__name__, "arguments": output_arguments(output)}


def output_of(saved: Any) -> str | Output:
    """What `plain_output` was given: nothing a file says is imported."""
    if not isinstance(saved, dict):
        return saved
    if saved.get("class") not in OUTPUTS:
        raise ValueError(f"the forecaster's output {saved.get('class')!r} is none of {', '.join(OUTPUTS)}")
    try:
        return OUTPUTS[saved["class"]](**saved["arguments"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"the forecaster's output has wrong arguments: {' '.join(str(error).split())}") from None


def first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
