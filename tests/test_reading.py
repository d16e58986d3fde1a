"""A job refuses the parts of a command line that it would pass over; keys at the root are its own."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from mftrun.build import build
from mftrun.errors import ConfigError
from mftrun.jobs.reading import refuse_unread
from mftrun.schema import without_shorthands


@dataclass(frozen=True)
class Merge:
    adapter: str
    reads: ClassVar[frozenset[str]] = frozenset({"template", "data.on_bad"})


@pytest.mark.parametrize(
    "override", ["loss=mft", "loss.weighting=null", "++train.max_steps=3", "+experiment=quick"]
)
def test_what_a_job_does_not_read_is_refused(override):
    key = override.lstrip("+").partition("=")[0]
    with pytest.raises(ConfigError, match=rf"^{key}: .*{override.replace('+', '.')}.*leave it out"):
        refuse_unread(Merge("a"), ["job=merge", override])


@pytest.mark.parametrize(
    "override",
    [
        "job=merge",
        "job.adapter=b",
        "adapter=b",
        "template=chatml",
        "data.on_bad=skip",
        "rerun=runs/earlier",
        "+template.system=x",
        "output_dir=runs/m",
        "hydra.verbose=true",
    ],
)
def test_what_it_reads_is_not(override):
    refuse_unread(Merge("a"), [override])


@pytest.mark.parametrize(
    "override", ["data=files", "data.max_length=9", "++data.on_bad_too=1", "data@x=files"]
)
def test_of_a_group_only_the_keys_that_are_read_are_taken(override):
    with pytest.raises(ConfigError, match=r"would do nothing.*of data it reads data\.on_bad\); leave it out"):
        refuse_unread(Merge("a"), [override])


@pytest.mark.parametrize("override", ["data.max_length=9", "data=files", "model=llama"])
def test_generating_reads_two_keys_of_the_data(override):
    from mftrun.compose import compose

    job = build(compose(["job=generate", "path=a", "prompt=b"])["job"], object, "job")
    refuse_unread(job, ["data.on_bad=skip", "data.on_overlong=skip", "template=none", "seed=1", "path=b"])
    with pytest.raises(ConfigError, match="would do nothing"):
        refuse_unread(job, [override])


def test_a_job_that_does_not_say_reads_all():
    refuse_unread(object(), ["loss=mft"])


def test_a_job_takes_its_keys_from_the_root_and_they_are_saved_once():
    config = {"job": {"adapter": "a", "seed": 1}, "adapter": "a", "seed": 1, "unknown": 2}
    assert without_shorthands(config) == {"job": {"adapter": "a", "seed": 1}, "seed": 1, "unknown": 2}
