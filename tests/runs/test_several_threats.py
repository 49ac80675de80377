"""Several threats in one evaluation: each as if it were alone, and their union, image by image."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from rpat_cli.errors import ConfigError, Interrupted
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.recipe.layers import Layer
from rpat_cli.runs.compare import match
from rpat_cli.runs.evaluate import EvalOptions, eval_run, measure_run
from rpat_cli.runs.listener import Listener

THREATS = ("Linf:2/255", "l2:0.3", "L1:4")
SUITE = parse_suite("fgsm,pgd-3")
OPTIONS = EvalOptions(batch_size=50, limit=100)


def together(net: Path, listener: Listener | None = None) -> Any:
    changes = [Layer("test", {"eval_threats": list(THREATS)})]
    return measure_run(net, SUITE, changes=changes, options=OPTIONS, listener=listener)


def test_each_is_what_it_is_alone_and_the_union_what_ten_lines_say(
    some_net: Path, tmp_path: Path
) -> None:
    measured = together(some_net)
    files = [measured.file, *(file for _, file in measured.others)]
    alone = []
    for norm, eps in (("Linf", "2/255"), ("L2", 0.3), ("L1", 4)):
        layer = Layer("test", {"threat": {"norm": norm, "eps": eps}})
        _, file = eval_run(some_net, SUITE, changes=[layer], options=OPTIONS)
        alone.append(json.loads(file.read_text()))
    # An independent count, from the three separate runs.
    union = []
    for image, label in enumerate(alone[0]["y"]):
        right = all(record["clean_predicted"][image] == label for record in alone)
        for record in alone:
            for result in record["results"]:
                right = right and result["correct_after"][image] == "1"
        union.append(right)
    assert 0 < sum(union) < min(sum(map(int, r["correct_after"])) for r in alone[0]["results"])
    assert measured.union.correct_after.tolist() == union
    assert measured.union.to_dict()["robust_acc"] == sum(union) / 100
    for file, record in zip(files, alone, strict=True):
        own = json.loads(file.read_text())
        assert [each["norm"] for each in own["threats"]] == ["Linf", "L2", "L1"]
        assert "threats" not in record
        for one, other in zip(own["results"], record["results"], strict=True):
            assert one["correct_after"] == other["correct_after"]
            assert one["settings"] == other["settings"]  # the step size follows the norm
    steps = [record["results"][1]["settings"]["step_size"] for record in alone]
    assert steps == pytest.approx([2 / 255 / 4, 0.3 * 15 / 128, 4 * 400 / 2000])
    # And a comparison has the union.
    other = tmp_path / "b" / "net.pt"
    other.parent.mkdir()
    other.write_bytes(some_net.read_bytes())
    together(other)
    sides = [path.parent for path in (some_net, other)]
    labels = [each.label for each in match(*sides).comparisons]
    assert labels[-1].startswith("right under all of Linf, eps 2/255; L2")


def test_an_interrupted_one_goes_on_with_the_threat_that_it_was_at(some_net: Path) -> None:
    seen: list[int] = []

    def stop(progress: Any) -> None:
        seen.append(progress.total)
        if len(seen) > 12:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        together(some_net, Listener(on_progress=stop))
    written = len(list((some_net.parent / "evals").glob("*.json")))
    assert written in (1, 2)
    said: list[str] = []
    measured = together(some_net, Listener(said.append))
    assert sum("is known, from" in line for line in said) == written
    assert len(list((some_net.parent / "evals").glob("*.json"))) == 3
    assert measured.union.correct_after.tolist() == together(some_net).union.correct_after.tolist()


@pytest.mark.parametrize("wrong", ["L3:1", "Linf", "Linf:x", "Linf:2", "L2:-1", "L2:inf"])
def test_a_threat_that_is_none_is_refused(some_net: Path, wrong: str) -> None:
    with pytest.raises(ConfigError):
        measure_run(some_net, SUITE, changes=[Layer("test", {"eval_threats": [wrong]})])
