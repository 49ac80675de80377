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

race() { # MODEL SECONDS FLAGS...: exact, fast and the floor of a step of pgd with robust perception, taking turns
    timeout $(($2 + 40)) "$python" -m rpat_cli bench --data cifar10 --model "$1" --batch-size 128 --method pgd --ra \
        --device "$device" --seconds "$2" "${@:3}" || failed=1
}
timeout 90 "$python" tests/benchmarks/attack_on_gpu.py "$device" || failed=1
race preact-resnet18 10 --precision tf32 # as torch computes float32 convolutions unless it is told not to
race preact-resnet18 10 --compile
race wrn-28-10 15 --precision tf32
exit $failed
