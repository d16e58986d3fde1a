from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_scan import Words

from mftrun.data.encoder import Encoded
from mftrun.data.sample import Sample
from mftrun.data.scan import scan
from mftrun.data.template import RoleTemplate
from mftrun.data.token_file import TokenFile
from mftrun.data.tokenize import Chosen, Identity, tokenize
from mftrun.data.workers import Workers
from mftrun.errors import ConfigError, DataError


@dataclass(frozen=True)
class Letters:
    """An encoder whose tokens are letters; the answer is trained."""

    refused: str = "refused"

    def encode_all(self, samples: Sequence[Sample]) -> list[Encoded | str]:
        return [self._one(sample) for sample in samples]

    def encode(self, messages: Any, tools: str = "") -> Encoded:
        raise NotImplementedError

    def _one(self, sample: Sample) -> Encoded | str:
        question, answer = (message.content for message in sample.messages)
        if question == self.refused:
            return "cannot be rendered"
        if question == "raise":
            raise ConfigError("template", "does not fit")
        if question == "empty":
            return Encoded(np.zeros(0, np.int32), np.zeros(0, np.float32))
        ids = np.array([ord(letter) for letter in question + answer], np.int32)
        return Encoded(ids, np.repeat(np.float32([0, 1]), len(question)))


MANY = tuple(f"w{number}" if number % 7 else "bad" for number in range(100))


def _text(file: TokenFile, sample: int) -> str:
    return "".join(map(chr, file.ids(sample)))


@pytest.mark.parametrize("processes", [1, 2])
def test_samples_keep_their_order_and_places(tmp_path: Path, processes: int) -> None:
    with Workers(processes, spare=0) as workers:
        file = tokenize(Words(MANY), Letters(), tmp_path / "f", workers=workers)

    good = [(line, word) for line, word in enumerate(MANY, start=1) if word != "bad"]
    assert [_text(file, sample) for sample in range(file.num_samples)] == [w + w.upper() for _, w in good]
    assert file.origin_line.tolist() == [line for line, _ in good]
    assert file.weights(0).tolist() == [0, 0, 1, 1]
    assert (file.meta.good, file.meta.bad, file.meta.formats["3 letters"]) == (85, 15, 77)


def test_the_file_is_the_same_whatever_the_number_of_workers(tmp_path: Path) -> None:
    files = []
    for processes in (1, 2, 3):
        with Workers(processes, spare=0) as workers:
            files.append(tokenize(Words(MANY), Letters(), tmp_path / str(processes), workers=workers))

    assert len({file.path.read_bytes() for file in files}) == 1
    assert len({(file.folder / "meta.json").read_bytes() for file in files}) == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_what_cannot_be_rendered_is_a_bad_sample_with_its_place(tmp_path: Path, processes: int) -> None:
    words = ("a", "bad", "refused", "b", "empty", "c")
    with Workers(processes, spare=0) as workers:
        file = tokenize(Words(words, 2), Letters(), tmp_path / "f", workers=workers)

    assert (file.meta.good, file.meta.bad, file.meta.unrendered) == (3, 3, 2)
    assert [str(error) for error in file.meta.bad_examples] == [
        *("words:2: is bad", "words:3: cannot be rendered", "words:5: the sample gives no token")
    ]


@pytest.mark.parametrize("processes", [1, 2])
def test_only_chosen_samples_are_encoded(tmp_path: Path, processes: int) -> None:
    words = ("a", "bad", "refused", "b", "raise", "c", "d")
    with Workers(processes, spare=0) as workers:
        counts = scan(Words(words, 3), workers).counts
        chosen = Chosen(np.array([True, False, True, False, False, True]), counts)
        file = tokenize(Words(words, 3), Letters(), tmp_path / "f", workers=workers, chosen=chosen)

    assert [_text(file, sample) for sample in range(file.num_samples)] == ["aA", "bB", "dD"]
    assert (file.meta.bad, file.meta.unrendered) == (1, 0)


@pytest.mark.parametrize(
    "after", [("a",), ("a", "b", "c", "d"), ("a", "bad", "c"), ("a", "b", "c", "d", "e")]
)
def test_a_source_that_changes_between_the_passes_is_noticed(tmp_path: Path, after: Sequence[str]) -> None:
    chosen = Chosen(np.ones(3, np.bool_), scan(Words(("a", "b", "c"), 2), 1).counts)

    with pytest.raises(DataError, match="changed while it was read; start again"):
        tokenize(Words(tuple(after), 2), Letters(), tmp_path / "f", workers=1, chosen=chosen)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("word", "error"), [("stop", DataError), ("raise", ConfigError)])
def test_an_error_leaves_nothing_behind(
    tmp_path: Path, processes: int, word: str, error: type[Exception]
) -> None:
    with Workers(processes, spare=0) as workers, pytest.raises(error):
        tokenize(Words((*MANY, word)), Letters(), tmp_path / "f", workers=workers)

    assert list(tmp_path.iterdir()) == []


def test_the_page_says_what_it_was_made_from(tmp_path: Path) -> None:
    identity = Identity("all", "tokenizer", {"kind": "letters"})

    meta = tokenize(Words(("a",)), Letters(), tmp_path / "f", workers=1, identity=identity).meta

    assert (meta.fingerprint, meta.tokenizer, meta.template) == ("all", "tokenizer", {"kind": "letters"})


def test_a_real_template_gives_the_same_in_workers(tmp_path: Path, make_tokenizer: Any) -> None:
    template = RoleTemplate(
        system_prefix="<s>system\n", user_prefix="<s>human\n", assistant_prefix="<s>bot\n"
    )
    encoder = template.encoder(make_tokenizer())
    files = []
    for processes in (1, 2):
        with Workers(processes, spare=0) as workers:
            files.append(tokenize(Words(MANY), encoder, tmp_path / str(processes), workers=workers))

    assert files[0].path.read_bytes() == files[1].path.read_bytes()
    assert files[0].num_samples == 85
