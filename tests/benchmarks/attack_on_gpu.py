"""What a step of adversarial training is made of, by way of computing: PGD-10 as torch runs it,
from CUDA graphs, compiled, and with BatchNorm folded; and three training passes. Milliseconds.

    python tests/benchmarks/attack_on_gpu.py [cuda|cpu]
"""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F

from rpat_cli.attacks.compiling import compiling
from rpat_cli.attacks.folding import folding
from rpat_cli.attacks.graphs import graphing
from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.threat import Threat
from rpat_cli.engine.compute import resolve_compute
from rpat_cli.models import MODELS

WAYS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "torch": nullcontext,
    "graphs": graphing,
    "compiled": compiling,
    "folded": folding,
}
SHAPES = {"small-cnn": (128, 1, 28, 28), "preact-resnet18": (128, 3, 32, 32)}


def milliseconds(work: Callable[[], object], device: torch.device, times: int = 5) -> float:
    for _ in range(2):  # the first records, compiles and chooses algorithms
        work()
    _wait(device)
    began = time.perf_counter()
    for _ in range(times):
        work()
    _wait(device)
    return 1000 * (time.perf_counter() - began) / times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(name: str, precision: str, device: torch.device) -> dict[str, float]:
    compute = resolve_compute(device.type, precision)
    batch, *shape = SHAPES[name]
    model = compute.place(MODELS[name](channels=shape[0], image_size=shape[1], classes=10))
    x = torch.rand(batch, *shape, device=device)
    y = torch.randint(10, (batch,), device=device)
    attack = PGD(Threat("Linf", 8 / 255), 2 / 255, steps=10)

    def attacked(way: Callable[[], AbstractContextManager[None]]) -> None:
        with torch.autocast(device.type, dtype=compute.dtype, enabled=bool(compute.dtype)), way():
            attack(model, x, y)

    def trained() -> None:
        for _ in range(3):
            model.zero_grad()
            with torch.autocast(device.type, dtype=compute.dtype, enabled=bool(compute.dtype)):
                loss = F.cross_entropy(model(x), y)
            loss.backward()

    with compute.settings():
        found = {
            key: milliseconds(lambda way=way: attacked(way), device) for key, way in WAYS.items()
        }
        return {**found, "three training passes": milliseconds(trained, device)}


def main() -> None:
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda")
    for name in SHAPES:
        for precision in ("tf32", "bf16") if device.type == "cuda" else ("fp32",):
            found = measure(name, precision, device)
            print(
                name, precision, *(f"{key} {value:.1f}" for key, value in found.items()), sep="  "
            )


if __name__ == "__main__":
    main()
