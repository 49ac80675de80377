"""Does bfloat16 train as well as float32? Paired over seeds, on the embedded images.

    python tests/benchmarks/precision_parity.py --epochs 10 --seeds 5

Trains small-cnn by pgd and consistency, without and with robust perception, in float32, bfloat16,
and bfloat16 with folded BatchNorm, from the same seeds; measures clean and PGD-20 accuracy on the
500 test images in float32; and prints the paired differences to float32 with their 95 % intervals,
in points. `precision: auto` on CPUs follows from them: docs/performance.md.
"""

import argparse
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.side_effects import own_randomness
from rpat_cli.engine.compute import Compute, seed_everything
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.recipe.schema import Recipe
from rpat_cli.runs.build import architecture_for, build_data, build_loop, build_threat
from rpat_cli.sweep.intervals import Difference, paired_difference

CPU = torch.device("cpu")
CONTESTANTS = {
    "fp32": Compute(CPU),
    "bf16": Compute(CPU, torch.bfloat16),
    "bf16, folded": Compute(CPU, torch.bfloat16, fast=True),
}
METHODS = [(method, ra) for method in ("pgd", "consistency") for ra in (False, True)]
Accuracies = dict[tuple[str, bool, str], dict[int, tuple[float, float]]]
"""Clean and robust accuracy by method, ra and contestant, then by seed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    measured: Accuracies = {}
    for seed, (method, ra) in itertools.product(range(asked.seeds), METHODS):
        for name, compute in CONTESTANTS.items():
            accuracies = trained(method, ra, compute, seed, asked.epochs)
            measured.setdefault((method, ra, name), {})[seed] = accuracies
            print(f"seed {seed}  {method}{'+ra' * ra}  {name}: {accuracies}", flush=True)
    print("\n".join(table(measured)))


def trained(method: str, ra: bool, compute: Compute, seed: int, epochs: int) -> tuple[float, float]:
    """Clean and robust test accuracy after a training."""
    values = {"data": "fashion-mini", "method": method, "ra": ra, "epochs": epochs, "seed": seed}
    recipe = resolve([Layer("parity", values)])
    data = build_data(recipe.data, seed)
    seed_everything(seed)
    model = compute.place(architecture_for(recipe, data).build())
    build_loop(recipe, data, model, compute, [], lambda _: False).run()
    x, y = next(iter(data.test.batches(torch.arange(len(data.test)), len(data.test), CPU)))
    return test_accuracies(recipe, model.eval(), x, y)


def test_accuracies(recipe: Recipe, model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    threat = build_threat(recipe)
    attack = PGD(threat, threat.default_step_size(), 20, keep="worst")
    with own_randomness(CPU, seed=0):
        x_adv = attack(model, x, y)
    with torch.no_grad():
        clean, robust = ((model(each).argmax(1) == y).float().mean() for each in (x, x_adv))
    return float(clean), float(robust)


def table(measured: Accuracies) -> Iterator[str]:
    yield "| method | contestant | clean | robust | Δ clean | Δ robust |"
    yield "|---|---|---|---|---|---|"
    for (method, ra, name), by_seed in measured.items():
        rows = zip(*by_seed.values(), strict=True)
        cells = [f"{100 * sum(row) / len(by_seed):.2f}" for row in rows]
        if name != "fp32":
            baseline = measured[method, ra, "fp32"]
            for i in (0, 1):
                ours = {seed: pair[i] for seed, pair in by_seed.items()}
                theirs = {seed: pair[i] for seed, pair in baseline.items()}
                difference = paired_difference(ours, theirs)
                cells.append("" if difference is None else shown(difference))
        yield f"| {method}{'+ra' * ra} | {name} | {' | '.join(cells)} |"


def shown(difference: Difference) -> str:
    mean = f"{100 * difference.mean:+.2f}"
    if difference.interval is None:
        return mean
    low, high = difference.interval
    return f"{mean} ({100 * low:+.2f} to {100 * high:+.2f})"


if __name__ == "__main__":
    main()
