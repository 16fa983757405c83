"""Hostile saved models and forecasters, tokenizers and metrics: each ends in one line, or is taken."""

from collections.abc import Callable

import pytest
from hostile.corpus import FAMILIES


@pytest.mark.parametrize("family", [name for name in FAMILIES if name.startswith("models-")])
def test_every_input_ends_as_expected(family: str, campaign: Callable[[str], None]) -> None:
    campaign(family)
