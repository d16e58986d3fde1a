from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mftrun.data.encoder import Encoded
from mftrun.data.sample import Origin
from mftrun.data.token_file import META, TOKENS, TokenFile
from mftrun.data.token_writer import block, token_writer
from mftrun.errors import DataError

WEIGHTS = st.lists(st.sampled_from([0.0, 1.0, 1.0, 0.5]), min_size=1, max_size=12)


def _encoded(weights: list[float], seed: int = 0) -> Encoded:
    ids = np.random.default_rng(seed).integers(0, 2**31 - 1, len(weights))
    return Encoded(ids.astype(np.int32), np.array(weights, np.float32))


def _write(folder: Path, blocks: list[list[Encoded]]) -> TokenFile:
    with token_writer(folder) as writer:
        for number, samples in enumerate(blocks):
            origins = [Origin(f"{number % 2}.jsonl", line) for line in range(1, len(samples) + 1)]
            writer.append(block(samples, origins))
        writer.finish(fingerprint="f", bad=1, bad_examples=[DataError("a", 3, "why")], formats={"text": 2})
    return TokenFile.open(folder)


def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    @settings(max_examples=40, deadline=None, database=None)
    @given(st.lists(st.lists(WEIGHTS, max_size=4), max_size=4))
    def check(blocks: list[list[list[float]]]) -> None:
        folder = tmp_path_factory.mktemp("tokens") / "file"
        samples = [[_encoded(weights, seed) for seed, weights in enumerate(some)] for some in blocks]

        file = _write(folder, samples)

        everything = [sample for some in samples for sample in some]
        assert file.num_samples == file.meta.good == len(everything)
        assert file.meta.tokens == sum(len(sample.ids) for sample in everything)
        for number, sample in enumerate(everything):
            assert file.ids(number).tolist() == sample.ids.tolist()
            assert file.weights(number).tolist() == [0.0, *sample.weights[1:].tolist()]

    check()


def test_spans_are_as_long_as_they_can_be(tmp_path: Path) -> None:
    samples = [_encoded([1, 1, 1, 0, 0.5, 0.5, 1]), _encoded([0, 0]), _encoded([1]), _encoded([0, 1])]

    file = _write(tmp_path / "f", [samples])

    assert file.span_ptr.tolist() == [0, 3, 3, 3, 4]
    assert file.span_start.tolist() == [1, 4, 6, 1]
    assert file.span_length.tolist() == [2, 2, 1, 1]
    assert file.span_weight.tolist() == [1.0, 0.5, 1.0, 1.0]


def test_places_and_page(tmp_path: Path) -> None:
    file = _write(tmp_path / "f", [[_encoded([0, 1])], [_encoded([0, 1])] * 2, [_encoded([0, 1, 1])]])

    assert [str(file.origin(sample)) for sample in range(4)] == [
        *("0.jsonl:1", "1.jsonl:1", "1.jsonl:2", "0.jsonl:1")
    ]
    assert file.folder == tmp_path / "f"
    assert (file.meta.longest, file.meta.tokens, file.meta.bad) == (3, 9, 1)
    assert str(file.meta.bad_examples[0]) == "a:3: why"
    assert file.meta.formats == {"text": 2}


def test_tokens_are_mapped_not_read(tmp_path: Path) -> None:
    file = _write(tmp_path / "f", [[_encoded([0] * 5000)]])

    assert isinstance(file.values, np.memmap)
    assert not file.values.flags.writeable


def test_any_arrow_reader_reads_it(tmp_path: Path) -> None:
    import pyarrow as pa

    sample = _encoded([0, 1, 1])
    file = _write(tmp_path / "f", [[sample]])

    table = pa.ipc.open_file(str(file.path)).read_all()

    row = {
        "input_ids": sample.ids.tolist(),
        "target_start": [1],
        "target_length": [2],
        "target_weight": [1.0],
    }
    assert table.to_pylist() == [{**row, "file": 0, "line": 1}]


def test_nothing_appears_when_writing_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with token_writer(tmp_path / "f") as writer:
            writer.append(block([_encoded([0, 1])], [Origin("a", 1)]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def _cut_end(folder: Path) -> None:
    data = (folder / TOKENS).read_bytes()
    (folder / TOKENS).write_bytes(data[: len(data) // 2])


def _empty(folder: Path) -> None:
    (folder / TOKENS).write_bytes(b"")


def _other_count(folder: Path) -> None:
    page = json.loads((folder / META).read_text())
    (folder / META).write_text(json.dumps({**page, "good": page["good"] + 1}))


def _other_version(folder: Path) -> None:
    page = json.loads((folder / META).read_text())
    (folder / META).write_text(json.dumps({**page, "version": 99}))


def _wild_span(folder: Path) -> None:
    data = (folder / TOKENS).read_bytes()
    span = np.array([777], "<i4").tobytes()  # the start of the only span
    assert data.count(span) == 1
    (folder / TOKENS).write_bytes(data.replace(span, np.array([7777], "<i4").tobytes()))


def _other_columns(folder: Path) -> None:
    import pyarrow as pa

    table = pa.table({"text": ["a"]})
    with pa.ipc.new_file(str(folder / TOKENS), table.schema) as stream:
        stream.write_table(table)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (_cut_end, "damaged"),
        (_empty, "damaged"),
        (lambda folder: (folder / TOKENS).unlink(), "damaged"),
        (lambda folder: (folder / META).write_text("{"), "no readable tokens"),
        (lambda folder: (folder / META).write_text("[]"), "no readable tokens"),
        (lambda folder: (folder / META).unlink(), "no readable tokens"),
        (_other_count, "1 of 2 samples"),
        (_other_version, "of version 99"),
        (_other_columns, "columns are not"),
        (_wild_span, "point outside"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: object, why: str) -> None:
    folder = tmp_path / "f"
    _write(folder, [[Encoded(np.zeros(800, np.int32), (np.arange(800) >= 777).astype(np.float32))]])
    damage(folder)  # type: ignore[operator]

    with pytest.raises(DataError, match=why) as caught:
        TokenFile.open(folder)

    assert "delete this folder" in str(caught.value)
