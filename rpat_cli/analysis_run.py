"""What `rpat eval` adds to an evaluation on request: a closer look at the model, entered in the evaluation's file."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.table import Table
from torch import Tensor, nn

from rpat_cli.attacks.threat import Threat
from rpat_cli.build import build_threat
from rpat_cli.engine.compute import resolve_compute
from rpat_cli.eval_run import open_target
from rpat_cli.evaluation.perception import perceive
from rpat_cli.evaluation.verdict import gather, judge
from rpat_cli.listener import Listener
from rpat_cli.recipe_io import Layer
from rpat_cli.reports.analyses import perception_table, verdict_table
from rpat_cli.run_folder import write_whole


class Result(Protocol):
    """What an analysis found."""

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON."""
        ...


@dataclass(frozen=True)
class Found:
    """A result, and how it is shown. `failed`: whoever asked should not trust the evaluation."""

    result: Result
    show: Callable[[Any], Table]
    failed: bool = False

    def table(self) -> Table:
        return self.show(self.result)


def find_verdict(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, device: torch.device, seed: int) -> Found:
    verdict = judge(gather(model, x, y, threat, device=device, seed=seed))
    return Found(verdict, verdict_table, failed=verdict.level == "FAIL")


def find_perception(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, device: torch.device, seed: int) -> Found:
    return Found(perceive(model, x, y, threat, device=device, seed=seed), perception_table)


ANALYSES: Mapping[str, Callable[[nn.Module, Tensor, Tensor, Threat, torch.device, int], Found]] = {
    "verdict": find_verdict,
    "perception": find_perception,
}
"""Key in the evaluation's JSON -> how it is found, from a model in eval mode and the test set."""


def analyse(
    wanted: Sequence[str],
    target: Path,
    file: Path,
    *,
    checkpoint: str = "best",
    changes: Sequence[Layer] = (),
    listener: Listener | None = None,
) -> list[Found]:
    """Run the `wanted` of `ANALYSES` on what the evaluation in `file` measured, and enter the results in it.

    `target`, `checkpoint` and `changes` are those of the evaluation. Raises what opening them raises.
    """
    if not wanted:
        return []
    listener = listener or Listener()
    saved, recipe, data = open_target(target, checkpoint, changes)
    compute = resolve_compute(recipe.device, "fp32")
    model = compute.place(saved.model)
    x, y = data.test.tensors()
    found = {}
    for name in wanted:
        listener.say(f"looking closer: {name}")
        found[name] = ANALYSES[name](model, x, y, build_threat(recipe), compute.device, recipe.seed)
    record = json.loads(file.read_text(encoding="utf-8"))
    write_whole(
        file, json.dumps(record | {name: analysis.result.to_dict() for name, analysis in found.items()}, indent=1)
    )
    return list(found.values())
