"""Time the way from files to batches: `python benchmarks/data.py [--data DIR]`.

Prints how much faster tokenizing is than a loop over lines that encodes each turn with the same tokenizer
(everything included: reading, parsing, template, writing); how long a start with a warm cache takes; how long
packing takes and how full its rows are; and what collating takes beside training.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mftrun.data.cache import TokenCache
from mftrun.data.encoder import Encoded
from mftrun.data.files import Files
from mftrun.data.from_sources import FromSources
from mftrun.data.prepare import prepare
from mftrun.data.report import DataReport
from mftrun.data.rows import Packing
from mftrun.data.sample import Origin, Sample
from mftrun.data.settings import DataSettings, TaskSources
from mftrun.data.source import read
from mftrun.data.template import RoleTemplate
from mftrun.data.token_file import TokenFile
from mftrun.data.token_writer import block, token_writer
from mftrun.data.tokenize import tokenize
from mftrun.data.workers import Workers, worker_count
from mftrun.models.tokenizers import train_bpe

ROW = "{:<34}{:>12}{:>12}{:>12}{:>10}"
VOCABULARIES = (4096, 32_768)
MILLION = 1_000_000
TEMPLATE = RoleTemplate(
    system_prefix="<s>system\n",
    system_suffix="\n",
    user_prefix="<s>human\n",
    user_suffix="\n",
    assistant_prefix="<s>bot\n",
    assistant_suffix="\n",
    after_end="\n",
    control_tokens=("<s>",),
)


def seconds(work: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """Return the best time of several, and the last result."""
    times, result = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return min(times), result


def made_up(folder: Path, samples: int = 10_000) -> Path:
    """Conversations of words from a long-tailed vocabulary, where there is no data."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = ["".join(rng.choice(letters, size)) for size in rng.integers(1, 10, 50_000)]

    def text(length: int) -> str:
        picked = np.minimum(rng.zipf(1.2, length), len(words)) - 1
        return " ".join(words[number] + ("\n" if number % 13 == 0 else "") for number in picked)

    with (folder / "made_up.jsonl").open("w") as file:
        for _ in range(samples):
            rounds = [{"role": "human", "content": text(60)}, {"role": "bot", "content": text(180)}]
            file.write(json.dumps({"chat_rounds": rounds}) + "\n")
    return folder


def loop(source: Files, tokenizer: Any) -> int:
    """Tokens of all turns, line by line and turn by turn."""
    tokens = 0
    for file in source.files():
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                for turn in json.loads(line)["chat_rounds"]:
                    tokens += len(tokenizer.encode(turn["content"], add_special_tokens=False))
    return tokens


def texts(source: Files) -> Iterator[str]:
    for item in read(source):
        if isinstance(item, Sample):
            yield from (message.content for message in item.messages)


def tokenizing_table(source: Files, folder: Path) -> None:
    """Compare with the loop; the time of starting the workers is included."""
    processes = worker_count(None)
    print(ROW.format(f"tokenizing, {processes} processes", "MB/s", "loop s", "mftrun s", "ratio"))
    for vocabulary in VOCABULARIES:
        tokenizer = train_bpe(texts(source), vocabulary, TEMPLATE.required_tokens)
        encoder = TEMPLATE.encoder(tokenizer)

        def ours(encoder: Any = encoder, vocabulary: int = vocabulary) -> TokenFile:
            with Workers(processes) as workers:
                return tokenize(source, encoder, folder / str(vocabulary), workers=workers)

        slow, _ = seconds(lambda tokenizer=tokenizer: loop(source, tokenizer), 2)
        fast, file = seconds(ours)
        name = f"{vocabulary:,} entries, {file.meta.tokens / 1e6:.1f}M tokens"
        speed = f"{source.size() / 1e6 / fast:.1f}"
        print(ROW.format(name, speed, f"{slow:.2f}", f"{fast:.2f}", f"{slow / fast:.1f}x"))


class Own:
    """A model that brings its tokenizer."""

    tokenizer_recipe = None

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def tokenizer(self, texts: Any, control_tokens: Any = ()) -> Any:
        return self._tokenizer


def starting_table(source: Files, folder: Path) -> None:
    """All that a run does with its data before there are ranks: scan, tokenize, split, write its tables."""
    print()
    print(ROW.format("start of a run", "samples", "tokens", "", "seconds"))
    tokenizer = train_bpe(texts(source), VOCABULARIES[0], TEMPLATE.required_tokens)
    settings = DataSettings(max_length=1024, on_overlong="truncate")
    cache = TokenCache(folder / "cache")

    def start() -> DataReport:
        supply = FromSources({"all": TaskSources(source)}, settings, TEMPLATE, Own(tokenizer), cache, 0)
        places = {"directory": folder / "data", "tokenizer_folder": folder / "tokenizer"}
        return prepare(supply, settings, TEMPLATE, seed=0, **places)

    for name, repeats in (("empty cache", 1), ("warm cache", 3)):
        took, report = seconds(start, repeats)
        (task,) = report.tasks.values()
        samples, tokens = (
            getattr(task.train, which) + getattr(task.valid, which) for which in ("samples", "tokens")
        )
        print(ROW.format(name, f"{samples:,}", f"{tokens:,}", "", f"{took:.3f}"))


def opening_table(folder: Path) -> None:
    """Find an entry of the cache with a million samples and map it."""
    print()
    print(ROW.format("opening tokens", "samples", "tokens", "MB", "seconds"))
    cache = TokenCache(folder / "cache")

    def write_large(target: Path) -> None:
        rng = np.random.default_rng(0)
        some = [
            Encoded(rng.integers(0, 32_000, size, np.int32), (np.arange(size) > size // 2).astype(np.float32))
            for size in rng.integers(50, 350, 1000)
        ]
        part = block(some, [Origin("made.jsonl", line) for line in range(1, 1001)])
        with token_writer(target) as writer:
            for _ in range(MILLION // 1000):
                writer.append(part)

    def start() -> TokenFile:
        return TokenFile.open(cache.get_or_make({"name": "million"}, write_large))

    start()
    took, file = seconds(start)
    size = f"{file.path.stat().st_size / 1e6:,.0f}"
    print(ROW.format("", f"{file.num_samples:,}", f"{file.meta.tokens:,}", size, f"{took:.3f}"))


def packing_table() -> None:
    """Pack 100,000 lengths into rows of 4,096."""
    print()
    print(ROW.format("packing 100,000 into 4,096", "longest", "rows", "fill %", "seconds"))
    rng = np.random.default_rng(0)
    for longest in (4096, 1024):
        lengths = np.clip(rng.lognormal(6.0, 1.0, 100_000).astype(np.int64), 8, longest)
        order = rng.permutation(len(lengths))
        took, plan = seconds(lambda lengths=lengths, order=order: Packing().plan(lengths, order, 4096))
        fill = 100 * lengths.sum() / (plan.num_rows * 4096)
        print(ROW.format("lognormal", longest, plan.num_rows, f"{fill:.2f}", f"{took:.3f}"))


def collating_table() -> None:
    """See `benchmarks/collating.py`."""
    from collating import main as collating

    print()
    collating()


def main() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the loop encodes one text at a time anyway
    parser = argparse.ArgumentParser(description="Time the way from files to batches.")
    parser.add_argument("--data", type=Path, help="files with chat_rounds; made up where absent")
    parser.add_argument("--no-training", action="store_true", help="leave out collating, which needs torch")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = options.data
        if data is None or not data.exists():
            print(f"no data at {data}: made up", file=sys.stderr)
            data = made_up(folder / "data")
        tokenizing_table(Files(str(data)), folder / "tokens")
        starting_table(Files(str(data)), folder)
        opening_table(folder)
    packing_table()
    if not options.no_training:
        collating_table()


if __name__ == "__main__":
    main()
