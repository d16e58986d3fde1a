"""A job refuses the parts of a command line that it would pass over; keys at the root are its own."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from mftrun.errors import ConfigError
from mftrun.jobs.reading import refuse_unread
from mftrun.schema import without_shorthands


@dataclass(frozen=True)
class Merge:
    adapter: str
    reads: ClassVar[frozenset[str]] = frozenset({"template"})


@pytest.mark.parametrize(
    "override", ["loss=mft", "loss.weighting=null", "++train.max_steps=3", "+experiment=quick"]
)
def test_what_a_job_does_not_read_is_refused(override):
    key = override.lstrip("+").partition("=")[0].partition(".")[0]
    with pytest.raises(ConfigError, match=rf"^{key}: .*{override.replace('+', '.')}.*leave it out"):
        refuse_unread(Merge("a"), ["job=merge", override])


@pytest.mark.parametrize(
    "override",
    [
        "job=merge",
        "job.adapter=b",
        "adapter=b",
        "template=chatml",
        "+template.system=x",
        "output_dir=runs/m",
        "hydra.verbose=true",
    ],
)
def test_what_it_reads_is_not(override):
    refuse_unread(Merge("a"), [override])


def test_a_job_that_does_not_say_reads_all():
    refuse_unread(object(), ["loss=mft"])


def test_a_job_takes_its_keys_from_the_root_and_they_are_saved_once():
    config = {"job": {"adapter": "a", "seed": 1}, "adapter": "a", "seed": 1, "unknown": 2}
    assert without_shorthands(config) == {"job": {"adapter": "a", "seed": 1}, "seed": 1, "unknown": 2}
