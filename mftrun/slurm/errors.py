"""How a job of Slurm ends without a result."""

from __future__ import annotations

from mftrun.errors import MftrunError


class JobFailed(MftrunError):  # noqa: N818 - as RankFailed
    """A job failed; its text is what the user needs to know, a traceback included."""

    @classmethod
    def text_in(cls, trace: str) -> str:
        """The text of one in a traceback that was written down as text; else its last line."""
        _, found, text = trace.partition(f"{cls.__module__}.{cls.__qualname__}: ")
        return text.strip() if found else trace.strip().rpartition("\n")[2]
