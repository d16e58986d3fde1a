"""A source that kills the process that reads it far enough, unless that is the one that started the run."""

import os
import signal
import sys
from dataclasses import dataclass

from mftrun.data.chunks import MadeChunk
from mftrun.data.sample import Message, Origin, Sample


@dataclass(frozen=True)
class Deadly:
    samples: int
    deadly: int

    location = "deadly"

    def size(self):
        return self.samples

    def chunks(self):
        for number in range(self.samples):
            if number == self.deadly:
                assert "pytest" not in sys.modules, "read beyond what was to be read"
                os.kill(os.getpid(), signal.SIGKILL)
            messages = (Message("user", f"question {number}"), Message("assistant", f"answer {number}"))
            yield MadeChunk((Sample(messages, Origin("made", number + 1)),))

    def fingerprint(self):
        return {"samples": self.samples}
