"""Eight honest models: `best` against AutoAttack, what an audit costs, and whether the verdict
keeps quiet.

    python tests/benchmarks/honest_models.py FOLDER train --cifar TREE
    python tests/benchmarks/honest_models.py FOLDER attack best autoattack --images 100
    python tests/benchmarks/honest_models.py FOLDER attack pgd-20 mm-3 apgd-t --models pgd-linf
    python tests/benchmarks/honest_models.py FOLDER verdict
    python tests/benchmarks/honest_models.py FOLDER show

Not part of the tests. Seven models are trained on the embedded images; the eighth on images of
CIFAR-10, a folder with train/CLASS/ and test/CLASS/. Every result is a file in FOLDER/results, and
what is there is not measured again: stop it and go on as you like. One thread, since CPU seconds
are counted. docs/evaluating.md has the tables that `show` prints.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rpat_cli.diagnostics.base import Subject
from rpat_cli.diagnostics.verdict.verdict import measure
from rpat_cli.evaluation.audit import most_broken, next_look, plan, priority, room_of
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.recipe.trust import trusting
from rpat_cli.runs.target import OpenedTarget, limited, open_target

RESNET = f"--plugin {Path(__file__).with_name('tiny_resnet.py')} --model tiny-resnet"
MODELS = {
    "pgd-linf": "--method pgd",
    "trades-ra-linf": "--method trades --ra",
    "mart-linf": "--method mart",
    "pgd-l2": "--method pgd --norm L2",
    "consistency-l2": "--method consistency --norm L2",
    "resnet-pgd-linf": f"--method pgd {RESNET}",
    "resnet-trades-l2": f"--method trades --norm L2 --epochs 6 {RESNET}",
    "cifar-pgd-linf": "--method pgd --image-size 32 --eps 8/255 --epochs 5 --data imagefolder",
}
"""What `rpat train` is given."""

AUDITED, WIDTHS = 10_000, (0.5, 1.0)
"""Images and widths, in points, for which an audit's cost is computed."""


def train(folder: Path, names: Sequence[str], cifar: Path | None) -> None:
    for name in names:
        if (folder / name).exists():
            continue
        arguments = MODELS[name].split()
        if "imagefolder" in arguments:
            if cifar is None:
                print(f"{name}: needs --cifar")
                continue
            arguments += ["--data-root", str(cifar)]
        command = ["-m", "rpat_cli", "train", *arguments, "--eval", "clean", "--quiet"]
        subprocess.run([sys.executable, *command, "--out", str(folder / name)], check=True)


def opened(folder: Path, name: str) -> OpenedTarget:
    with trusting(everything=True):  # our own plugin
        return open_target(folder / name, "best", [])


def attack(folder: Path, names: Sequence[str], words: Sequence[str], images: int) -> None:
    """Each word alone, on the same images, each class by its share."""
    for word in words:
        for name in names:
            path = folder / "results" / f"{name} {images} {word.replace('/', '_')}.json"
            if path.exists():
                continue
            target = opened(folder, name)
            split = limited(target.data.test, images)
            x, y = split.tensors()
            before = time.process_time()
            whole = evaluate(target.model.cpu(), x, y, parse_suite(word), target.threat)
            result = whole.results[0]
            values = {
                "model": name,
                "word": word,
                "n": len(y),
                "clean": whole.clean.correct,
                "robust": result.accuracy.correct,
                "right": result.correct_after.int().tolist(),
                "forward": result.forward,
                "backward": result.backward,
                "stages": [stage.to_dict() for stage in result.stages],
                "cpu_seconds": time.process_time() - before,
            }
            write(path, values)
            print(name, word, values["robust"], values["forward"], flush=True)


def verdict(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        path = folder / "results" / f"{name} verdict.json"
        if path.exists():
            continue
        target = opened(folder, name)
        x, y = target.data.test.tensors()
        found = measure(Subject(target.model.cpu(), x, y, target.threat, torch.device("cpu"), 0))
        checks = {check.name: check.level for check in found.checks}
        write(path, {"model": name, "level": found.level, "checks": checks})
        print(name, found.level, flush=True)


def write(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values))


# ---- tables


@dataclass(frozen=True)
class Pair:
    """`best` and AutoAttack on the same images of a model."""

    best: dict[str, Any]
    whole: dict[str, Any]

    @property
    def for_a_survivor(self) -> float:
        """Forward passes of AutoAttack for an image that it does not break."""
        last = {stage["name"]: stage for stage in self.whole["stages"]}
        return sum(stage["forward"] / stage["attacked"] for stage in last.values())

    def audit(self, width: float, seed: int) -> tuple[int, int, int]:
        """Of an audit of these images: how many were attacked, the bound on those that were not,
        and how many of them AutoAttack breaks in truth."""
        left, broken = torch.tensor(self.best["right"]) == 1, torch.tensor(self.whole["right"]) == 0
        order = priority(len(left), seed)
        queue = order[left[order]]
        looks = plan(len(queue), room_of(width, len(left)), 0.05)
        sampled = found = 0
        while look := next_look(looks, sampled, found):
            sampled = look.sampled
            found = int(broken[queue[:sampled]].sum())
            if found <= look.allowed:
                unseen = most_broken(len(queue), sampled, found, look.alpha) - found
                return sampled, unseen, int(broken[queue[sampled:]].sum())
        return len(queue), 0, 0

    def cost(self, width: float) -> tuple[int, float]:
        """Images that an audit of `AUDITED` images attacks if none of them is broken, and its
        passes, with those of `best`, as a share of AutoAttack's."""
        n = self.best["n"]
        survivors = round(self.best["robust"] / n * AUDITED)
        sampled = plan(survivors, room_of(width, AUDITED), 0.05)[0].sampled
        passes = self.best["forward"] + self.for_a_survivor * sampled / AUDITED * n
        return sampled, passes / self.whole["forward"]


def show(folder: Path) -> None:
    found = [json.loads(path.read_text()) for path in sorted((folder / "results").glob("*.json"))]
    attacked = [each for each in found if "word" in each]
    print("| model | images | word | right | forward | backward | CPU seconds |")
    for each in sorted(attacked, key=lambda each: (each["model"], each["n"], each["forward"])):
        cells = [each[key] for key in ("model", "n", "word", "robust", "forward", "backward")]
        print("|", *(f"{cell} |" for cell in cells), f"{each['cpu_seconds']:.1f} |")
    by_place = {(each["model"], each["n"], each["word"]): each for each in attacked}
    print("\n| model | images | clean | AutoAttack | best | passes | audits that hold | cost |")
    for (name, n, word), best in by_place.items():
        if word == "best" and (name, n, "autoattack") in by_place:
            print(row_of(name, Pair(best, by_place[name, n, "autoattack"])))
    for each in found:
        if "level" in each:
            print(each["model"], each["level"])


def row_of(name: str, pair: Pair) -> str:
    best, whole = pair.best, pair.whole
    audits = [pair.audit(10, seed) for seed in range(1000)]
    held = sum(unseen >= broken for _, unseen, broken in audits)
    ratio = whole["forward"] / best["forward"]
    costs = [
        f"{width:g}: {sampled}, {share:.3f}"
        for width in WIDTHS
        for sampled, share in [pair.cost(width)]
    ]
    cells = [name, best["n"], best["clean"], whole["robust"], best["robust"], f"1/{ratio:.2f}"]
    return "| " + " | ".join([*map(str, cells), f"{held} of 1000", "; ".join(costs)]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("what", choices=("train", "attack", "verdict", "show"))
    parser.add_argument("words", nargs="*", help="of --attack")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--cifar", type=Path, help="images of CIFAR-10, as folders")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.folder.resolve()
    present = [name for name in options.models if (folder / name).exists()]
    if options.what == "train":
        train(folder, options.models, options.cifar)
    elif options.what == "attack":
        attack(folder, present, options.words, options.images)
    elif options.what == "verdict":
        verdict(folder, present)
    else:
        show(folder)


if __name__ == "__main__":
    main()
