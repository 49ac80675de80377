#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in at most eight minutes: the tests marked `gpu`, then the races of a training step.
# Run it in the repository's root. `RPAT_TEST_DEVICE=cpu tests/benchmarks/on_gpu.sh` rehearses it on a CPU.
set -uo pipefail
device="${RPAT_TEST_DEVICE:-cuda}"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
python="${PYTHON:-python3}"
failed=0

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null
timeout 240 "$python" -m pytest -q -m gpu tests/engine || failed=1

if [ "$device" = cpu ]; then
    race=(--device cpu --precisions fp32 bf16 --ways plain fast --rounds 3)
    timeout 120 "$python" tests/benchmarks/step_race.py --model small-cnn --shape 1 28 28 --batch 32 "${race[@]}" || failed=1
    exit $failed
fi
timeout 120 "$python" tests/benchmarks/step_race.py --model preact-resnet18 --batch 128 --rounds 20 || failed=1
timeout 110 "$python" tests/benchmarks/step_race.py --model wrn-28-10 --batch 128 --rounds 5 --precisions tf32 bf16 || failed=1
exit $failed
