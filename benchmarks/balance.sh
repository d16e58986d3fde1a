#!/usr/bin/env bash
# Makes the tables and the plot of docs/balance.md: bash benchmarks/balance.sh TASKS [WORK [PYTHON]]
# TASKS holds one folder of data for each of the six tasks below; about 45 minutes on two cores. Repeating it after an
# interruption runs the sweep again, but not the models of one task that are finished.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tasks=$1 work=${2:-runs/balance} python=${3:-python}
# Uneven on purpose: most samples are cut away, so that small tasks overfit within the run.
declare -A samples=(
    [chat]=140 [code_translation]=500 [java_to_csharp]=1600 [text2code]=180 [text2method]=360 [unit_tests]=180
)
names=$(printf '%s\n' "${!samples[@]}" | sort)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# One tokenizer for all runs: nats per token can only be compared between equal tokens.
if [ ! -d "$work/tokens" ]; then
    chosen=()
    for task in $names; do
        chosen+=("data.tasks.$task.path=$tasks/$task" "data.tasks.$task.max_samples=${samples[$task]}")
    done
    "$python" -m mftrun job=tokenize experiment=balance "output_dir=$work/tokens" "${chosen[@]}"
fi

"$python" -m mftrun -m experiment=balance "data.tokenized=$work/tokens" tracker=local \
    loss=token_mean,mft,self_paced,coba,famo seed=1,2,3 "output_dir=$work/sweep"

# One model per task. A row per step is about what the task has of a step of the mixture: what differs is the company.
for task in $names; do
    others=$(for other in $names; do [ "$other" = "$task" ] || printf '%s:0,' "$other"; done)
    for seed in 1 2 3; do
        run="$work/single/$task-$seed"
        [ -f "$run/summary.json" ] || "$python" -m mftrun experiment=balance "data.tokenized=$work/tokens" \
            tracker=local "seed=$seed" sampler=weights "sampler.weights={${others%,}}" \
            train.global_batch_size=1 train.micro_batch_size=1 "evaluation.early_stopping.metric=$task" \
            evaluation.early_stopping.patience=8 "output_dir=$run"
    done
done

"$python" "$here/balance.py" "$work/sweep" --single "$work/single" --out "$work/balance"
