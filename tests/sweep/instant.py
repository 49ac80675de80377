"""An engine for tests of searches: its trials take no time, and end in an order that a seed
decides."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import yaml
from fake_trial import epoch_record, report

from rpat_cli.sweep.engines.base import Ended, Job

Learn = Callable[[dict, int], dict[str, float]]
"""From recipe and epoch to what validation finds there. Raises `ValueError` if the training
fails."""


class Instant:
    """Trains in this process. `epochs` counts what was spent, `begun` is every trial that was
    begun, in order."""

    def __init__(self, learn: Learn, slots: int = 1, seed: int = 0) -> None:
        self.learn = learn
        self.slots = slots
        self.epochs = 0
        self.begun: list[str] = []
        self._running: dict[str, tuple[str, ...]] = {}
        self._order = random.Random(seed)

    def submit(self, job: Job) -> bool:
        self._running[job.name] = job.prepare()
        self.begun.append(job.name)
        return True

    def poll(self) -> list[Ended]:
        if not self._running:
            return []
        name = self._order.choice(list(self._running))
        _, _, recipe, run, *until = self._running.pop(name)
        try:
            self._train(Path(recipe), Path(run), *map(int, until))
        except ValueError:
            return [Ended(name, 1)]
        return [Ended(name, 0)]

    def cancel(self, name: str, *, force: bool = False) -> None:
        pass

    def _train(self, recipe_file: Path, run: Path, until: int | None = None) -> None:
        recipe = yaml.safe_load(recipe_file.read_text())
        run.mkdir(exist_ok=True)
        (run / "recipe.yaml").write_text(recipe_file.read_text())
        metrics = run / "metrics.jsonl"
        done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
        with metrics.open("a") as file:
            for epoch in range(done + 1, (until or recipe["epochs"]) + 1):
                record = epoch_record(epoch, self.learn(recipe, epoch))
                file.write(json.dumps(record) + "\n")
                self.epochs += 1
        if until is None:
            (run / "report.json").write_text(json.dumps(report(recipe)))
