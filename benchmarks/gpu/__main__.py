"""`bash benchmarks/gpu.sh`: tests on the GPU, then a table of speed, memory and utilisation against TRL."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import ours
import theirs
from flops import mean_context, training_flops, utilisation
from hardware import peak_tflops, versions
from material import read_samples, token_ids
from measured import NOT_INSTALLED, OUT_OF_MEMORY, Case, FailedError, Speed, environment, run
from shapes import METHODS, SHAPES

HEADER = ("model", "method", "trainer", "recompute", "tokens/s", "peak GiB", "MFU", "")
_NONE = "-"
_SPARE_ROWS = 4  # more than the steps need: rows of what validation takes, and of packing that is not perfect


def main() -> int:
    """Returns the exit code: 1 when a test failed, or a run of mftrun for another reason than memory."""
    options = _options()
    work = options.work.resolve()
    failed = options.device == "cuda" and not options.skip_tests and not _tests_pass()
    table = list(_table(options, work))
    device = json.loads((work / options.shape[0] / "device.json").read_text(encoding="utf-8"))
    print(f"\n{device}; {versions()}; Python {sys.version.split()[0]}.")
    print(f"`bash benchmarks/gpu.sh {' '.join(sys.argv[1:])}`; {_explained(options)}\n")
    for cells in (HEADER, ("---",) * len(HEADER), *table):
        print(f"| {' | '.join(cells)} |")
    return int(failed or any(cells[2] == "mftrun" and not _excused(cells[-1]) for cells in table))


def _excused(note: str) -> bool:
    """Whether a line without numbers is the machine's doing."""
    return note in ("", OUT_OF_MEMORY) or note.startswith(NOT_INSTALLED)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/gpu.sh", description=__doc__)
    shapes, methods = _names(SHAPES), _names(METHODS)
    parser.add_argument(
        "--shape", type=shapes, default="qwen-1.5b,llama-8b", help=f"any of {','.join(SHAPES)}"
    )
    parser.add_argument(
        "--method", type=methods, default=",".join(METHODS), help=f"any of {','.join(METHODS)}"
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--attention", help="default: flash_attention_2 where it is installed, else sdpa")
    parser.add_argument("--recompute", choices=["auto", "on", "off"], default="auto", help="of activations")
    parser.add_argument("--warmup", type=int, default=5, help="steps that do not count")
    parser.add_argument("--steps", type=int, default=15, help="steps that count")
    parser.add_argument("--limit", type=float, default=900, help="seconds that one run may take")
    parser.add_argument("--peak-tflops", type=float, help="of this device, dense bf16; default: by its name")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu"), help="for models, runs and logs")
    parser.add_argument("--skip-tests", action="store_true")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="more for mftrun's runs")
    options = parser.parse_intermixed_args()
    if options.device == "cuda" and options.attention is None:
        flash = importlib.util.find_spec("flash_attn") is not None
        options.attention = "flash_attention_2" if flash else "sdpa"
    options.attention = options.attention or "sdpa"
    return options


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Reads names with commas between them."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := sorted(set(names) - set(known)):
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(known)}")
        return names

    return read


def _tests_pass() -> bool:
    if importlib.util.find_spec("pytest") is None:
        print("tests: pytest is not installed")
        return True
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"], cwd=ours.REPOSITORY)
    return done.returncode == 0


def _table(options: argparse.Namespace, work: Path) -> Iterator[tuple[str, ...]]:
    for shape in options.shape:
        material = _prepare(options, shape, work / shape)
        device = json.loads((material / "device.json").read_text(encoding="utf-8"))
        context = mean_context(len(token_ids(text)) for text in read_samples(material))
        peak = options.peak_tflops or peak_tflops(device)
        for method in options.method:
            case = _case(options, shape, method, material)
            flops = training_flops(SHAPES[shape].decoder, METHODS[method].rank, context)
            for trainer in ("mftrun", "TRL"):
                cells = _cells(trainer, case, work, options.overrides, flops, peak)
                print(" | ".join(cells), flush=True)
                yield cells


def _prepare(options: argparse.Namespace, shape: str, folder: Path) -> Path:
    """Makes the model and the samples in a process of its own, which leaves nothing on the GPU."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = SHAPES[shape].global_batch * (options.warmup + options.steps) + _SPARE_ROWS
    script = Path(__file__).with_name("material.py")
    command = [sys.executable, script, shape, str(rows), options.device, folder]
    try:
        run(command, folder, environment(options.device, ours.REPOSITORY), options.limit)
    except FailedError as error:
        raise SystemExit(f"the model of shape {shape} could not be made: {error}") from error
    return folder


def _case(options: argparse.Namespace, shape: str, method: str, material: Path) -> Case:
    automatic = SHAPES[shape].recompute_full and METHODS[method].rank is None
    recompute = automatic if options.recompute == "auto" else options.recompute == "on"
    counted = options.warmup, options.steps, options.limit
    return Case(shape, method, recompute, options.device, options.attention, *counted, material)


def _cells(
    trainer: str, case: Case, work: Path, overrides: list[str], flops: float, peak: float | None
) -> tuple[str, ...]:
    """A line of the table, which says so where there is nothing to measure."""
    folder = work / f"{case.shape}-{case.method}-{trainer.lower()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    line = (case.shape, case.method, trainer, "yes" if case.recompute else "no")
    try:
        if METHODS[case.method].four_bit and importlib.util.find_spec("bitsandbytes") is None:
            raise FailedError(f'{NOT_INSTALLED}: pip install "mftrun[qlora]"')
        found = ours.measure(case, folder, overrides) if trainer == "mftrun" else theirs.measure(case, folder)
    except FailedError as error:
        return (*line, _NONE, _NONE, _NONE, str(error))
    liger = "with Liger" if theirs.has_liger(case.device) else "without Liger"
    return (*line, *_numbers(found, flops, peak), "" if trainer == "mftrun" else liger)


def _numbers(found: Speed, flops: float, peak: float | None) -> tuple[str, str, str]:
    share = _NONE if peak is None else f"{utilisation(found.tokens_per_second, flops, peak * 1e12):.1%}"
    return f"{found.tokens_per_second:,.0f}", f"{found.memory_gib:.1f}", share


def _explained(options: argparse.Namespace) -> str:
    rank = METHODS["lora"].rank
    return (
        f"packed rows of random tokens, {options.attention} attention, adapters of rank {rank} on all linear "
        f"layers; medians of {options.steps} steps after {options.warmup} of warm-up; peaks of the process."
    )


if __name__ == "__main__":
    sys.exit(main())
