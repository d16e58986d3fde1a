from __future__ import annotations

import logging

import pytest

from mftrun.data.progress import LINE_EVERY, progress


@pytest.mark.parametrize(("total", "line"), [(200, "reading: 75%"), (0, "reading: 150 done")])
def test_a_line_now_and_then(caplog: pytest.LogCaptureFixture, total: int, line: str) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0

    with progress("reading", total, clock=lambda: now) as advance:
        advance(100)
        now = LINE_EVERY
        advance(50)
        advance(50)

    assert caplog.messages == ["reading", line]
