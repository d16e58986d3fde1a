#!/usr/bin/env bash
# Speed, memory and model FLOP utilisation on this machine's GPU, against TRL: bash benchmarks/gpu.sh [OPTION…] [KEY=VALUE…]
# Runs the tests that need a GPU, then trains random models of two shapes, and prints a Markdown table. Nothing is
# downloaded; what is not installed is left out and named. KEY=VALUE goes to mftrun; `--help` lists the options.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "${PYTHON:-python}" "$here/gpu" "$@"
