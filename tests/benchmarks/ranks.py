"""Two ranks against one, each with one thread: seconds per step of preact-resnet18 on images of
CIFAR's shape, at the same global batch.

python tests/benchmarks/ranks.py [--ranks 2] [--batch 64] [--steps 3] [--rounds 3] [--model NAME]

Rounds of one and of several ranks alternate. Needs a machine with as many free cores as ranks.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

STEP = Path(__file__).resolve()


def measured(ranks: int) -> tuple[float, float]:
    """The median seconds, and seconds of computing by rank 0, of a step that so many ranks
    share."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(ranks),
    }
    command = [sys.executable, str(STEP), "--as-rank", *sys.argv[1:]]
    processes = [
        subprocess.Popen(
            command, env={**common, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True
        )
        for rank in range(ranks)
    ]
    said = [process.communicate()[0] for process in processes]
    seconds, computing = json.loads(said[0])
    return median(seconds), median(computing)


def as_rank(options: argparse.Namespace) -> None:
    import torch

    from rpat_cli.data.splits import TensorSplit
    from rpat_cli.engine.callback import Callback
    from rpat_cli.engine.compute import resolve_compute
    from rpat_cli.engine.distributed import ALONE, Ranks
    from rpat_cli.engine.loop import TrainLoop
    from rpat_cli.evaluation.parallel import group
    from rpat_cli.models.base import build_model
    from rpat_cli.recipe.layers import Layer, resolve
    from rpat_cli.runs.build import build_attack, build_method, build_optimizer, build_threat

    torch.set_num_threads(1)
    ranks = ALONE
    if os.environ["WORLD_SIZE"] != "1":
        group.join()
        ranks = Ranks.joined().on(torch.device("cpu"))
    recipe = resolve([Layer("benchmark", {"method": "pgd", "ra": True, "device": "cpu"})])
    compute = resolve_compute("cpu", "fp32")
    torch.manual_seed(0)
    model = compute.place(
        build_model(options.model, shape=(3, 32, 32), classes=10, mean=(0.5,) * 3, std=(0.25,) * 3)
    )
    count = options.batch * (options.steps + 1)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    times: list[tuple[float, float]] = []

    def now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    class Watch(Callback):
        def on_start(self, loop: Any) -> None:
            self.last = now()

        def on_step(self, loop: Any, record: Any) -> None:
            before, self.last = self.last, now()
            times.append((self.last[0] - before[0], self.last[1] - before[1]))

    loop = TrainLoop(
        model=model,
        method=build_method(recipe),
        attack=build_attack(recipe.attack, build_threat(recipe)),
        optimizer=build_optimizer(recipe.optimizer, model.parameters()),
        schedule=lambda epoch, epochs: 1.0,
        train=TensorSplit(images, torch.randint(0, 10, (count,))),
        augment=lambda x: x,
        compute=compute,
        lr=0.01,
        epochs=1,
        batch_size=options.batch,
        ranks=ranks,
        callbacks=(Watch(),),
    )
    loop.run()
    if ranks.rank == 0:
        print(json.dumps(list(zip(*times[1:], strict=True))))  # the first step warms up
    if ranks.size > 1:
        group.leave()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="preact-resnet18")
    parser.add_argument("--as-rank", action="store_true")
    options = parser.parse_args()
    if options.as_rank:
        as_rank(options)
        return
    one, several = [], []
    for _ in range(options.rounds):
        one.append(measured(1))
        several.append(measured(options.ranks))
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}, cores: {os.cpu_count()}")
    for number, what in enumerate(("seconds", "seconds of computing by rank 0")):
        alone = median(each[number] for each in one)
        shared = median(each[number] for each in several)
        print(
            f"{what} per step of {options.batch} images: {alone:.2f} with one rank, {shared:.2f} "
            f"with {options.ranks}, ratio {alone / shared:.2f}"
        )


if __name__ == "__main__":
    main()
