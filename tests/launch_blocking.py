"""Imported by a fork server that is to be slow: waits until the test lets it go on."""

import os
from pathlib import Path

os.write(1, b"importing\n")
with Path(os.environ["LAUNCH_TEST_FIFO"]).open("rb", buffering=0) as fifo:
    fifo.read(1)
