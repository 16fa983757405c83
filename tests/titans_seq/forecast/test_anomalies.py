"""The spans in which surprise stands out."""

import numpy as np
import pytest

from titans_seq.forecast.anomalies import Span, spans


def test_spans_join_what_is_close_and_come_by_their_peaks():
    surprise = np.zeros((100, 2))
    surprise[10:13, 0], surprise[15, 0], surprise[99, 0], surprise[40:43, 1] = 5, 9, 6, 7
    found = spans(surprise, share=0.05, join=3)
    assert found == [Span(0, 10, 16, 9.0), Span(1, 40, 43, 7.0), Span(0, 99, 100, 6.0)]
    apart = [(s.begin, s.end) for s in spans(surprise, share=0.05, join=2) if s.channel == 0]
    assert apart == [(15, 16), (99, 100), (10, 13)]
    with pytest.raises(ValueError, match="share must lie between 0 and 1; got 1"):
        spans(surprise, share=1)
