"""The benchmark for GPUs: its arithmetic on published numbers, and all of it on a CPU with a tiny model."""

import importlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def module():
    """Imports a file of benchmarks/gpu, which are scripts and no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks" / "gpu")
        yield importlib.import_module


def test_utilisation_of_palm(module):
    """PaLM 540B on 6,144 TPU v4 (arXiv 2204.02311, appendix B): 46.2 % with attention, 45.7 % without."""
    flops = module("flops")
    weights = flops.weight_flops(frozen=0, trained=540_350_000_000)
    attention = flops.attention_flops(layers=118, width=48 * 256, context=2048, causal=False)
    peak = 6144 * 275e12
    assert round(100 * flops.utilisation(238_300, weights, peak), 1) == 45.7
    assert round(100 * flops.utilisation(238_300, weights + attention, peak), 1) == 46.2


@pytest.mark.parametrize(
    ("shape", "parameters", "without_embedding", "lora"),
    [
        # The embedding of Llama 3.1 8B is 128,256 × 4,096; peft counts 41,943,040 for rank 16 on all layers.
        ("llama-8b", 8_030_261_248, 8_030_261_248 - 525_336_576, 41_943_040),
        # Qwen 2.5 1.5B is given as 1.54B with and 1.31B without its embedding, which is its head too.
        ("qwen-1.5b", 1_543_714_304, 1_543_714_304, 18_464_768),
    ],
)
def test_parameters_of_published_models(module, shape, parameters, without_embedding, lora):
    decoder = module("shapes").SHAPES[shape].decoder
    assert decoder.parameters == parameters
    assert decoder.lora_parameters(16) == lora
    norms_and_biases = without_embedding - decoder.matmul_parameters
    assert 0 < norms_and_biases < 1e-3 * parameters


def test_frozen_weights_cost_two_thirds(module):
    flops, decoder = module("flops"), module("shapes").SHAPES["llama-8b"].decoder
    attention = flops.attention_flops(32, 4096, 1000)
    full, adapted = (flops.training_flops(decoder, rank, 1000) - attention for rank in (None, 16))
    assert full == 6 * decoder.matmul_parameters
    assert adapted == 4 * decoder.matmul_parameters + 6 * 41_943_040
    assert attention == 6 * 32 * 4096 * 1000


def test_context_is_that_of_the_mean_token(module):
    assert module("flops").mean_context([1, 3]) == 10 / 4
    assert module("flops").mean_context([4096]) == 4096


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165),
        ("CPU", None),
    ],
)
def test_peak_by_name(module, name, peak):
    assert module("hardware").peak_tflops(name) == peak


def test_samples_fill_rows(module):
    material, shape = module("material"), module("shapes").SHAPES["tiny"]
    ids = [material.token_ids(text) for text in material.samples(shape, rows=40)]
    assert sum(map(len, ids)) == 40 * shape.length
    assert all(sample[-1] == material.END and min(sample[:-1]) > material.END for sample in ids)
    assert max(map(max, ids)) == shape.decoder.vocab_size - 1
    assert len({len(sample) for sample in ids}) > 20


@pytest.mark.parametrize(
    ("code", "limit", "message"),
    [
        ("raise SystemExit('a | b')", 60, "failed: a / b"),
        ("raise RuntimeError('CUDA out of memory. Tried')", 60, "out of memory"),
        ("input()\nwhile True: pass", 0, "not done after 0 s"),
    ],
)
def test_why_a_process_failed(module, tmp_path, code, limit, message):
    measured = module("measured")
    with pytest.raises(measured.FailedError, match=re.escape(message)):
        measured.run([sys.executable, "-c", code], tmp_path, os.environ, limit)


def test_a_process_that_did_enough_is_ended(module, tmp_path):
    there = tmp_path / "there"
    code = "import os, pathlib\npathlib.Path('pid').write_text(str(os.getpid()))\n"
    code += "pathlib.Path('pid').rename('there')\nwhile True: pass"
    module("measured").run([sys.executable, "-c", code], tmp_path, os.environ, 60, enough=there.exists)
    with pytest.raises(ProcessLookupError):
        os.kill(int(there.read_text()), signal.SIGKILL)


def test_whole_script_without_a_gpu(tmp_path):
    arguments = "--shape tiny --method full --device cpu --warmup 1 --steps 2 --peak-tflops 1"
    done = subprocess.run(
        [
            "bash",
            ROOT / "benchmarks" / "gpu.sh",
            *arguments.split(),
            "--work",
            tmp_path,
            "model.head=chunked",
        ],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [re.split(r" *\| *", line)[1:-1] for line in done.stdout.splitlines() if line.startswith("|")]
    ours, theirs = rows[2:]
    assert ours[:4] == ["tiny", "full", "mftrun", "no"]
    assert int(ours[4].replace(",", "")) > 0
    assert float(ours[5]) > 0
    assert ours[6].endswith("%")
    assert theirs[2] == "TRL"
    assert (theirs[-1] == "without Liger") == (importlib.util.find_spec("trl") is not None)
    assert (tmp_path / "tiny-full-mftrun" / "log").read_text().count("chunked: asked for")
