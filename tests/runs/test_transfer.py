"""Adversarial images made on one model, counted on another."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError, RpatError
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.parallel.processes import Workers
from rpat_cli.evaluation.suite import AttackSpec, Overrides, parse_suite
from rpat_cli.recipe.layers import Layer
from rpat_cli.recipe.schema import Recipe
from rpat_cli.recipe.trust import trusting
from rpat_cli.runs.diagnose import one_per_source
from rpat_cli.runs.evaluate import EvalOptions, eval_run, is_evaluated, measure_run
from rpat_cli.runs.target import located, open_target, with_located_eval

LINF = Threat("Linf", 0.1)


@pytest.mark.parametrize(
    ("word", "spec"),
    [
        (
            "transfer:runs/a",
            AttackSpec(
                "transfer", "transfer:a", {"source": "runs/a", "attack": "pgd", "steps": 20}
            ),
        ),
        (
            "transfer:runs/a/checkpoints/last.pt@mim-5",
            AttackSpec(
                "transfer",
                "transfer:a/last@mim-5",
                {"source": "runs/a/checkpoints/last.pt", "attack": "mim", "steps": 5},
            ),
        ),
        (
            "transfer:at@home/run@pgd-20",
            AttackSpec("transfer", "transfer:run", {"source": "at@home/run"}),
        ),
        ("transfer:at@home/run", AttackSpec("transfer", "transfer:run", {"source": "at@home/run"})),
        (
            "transfer:my.py:build@fgsm",
            AttackSpec("transfer", "transfer:my.py:build@fgsm", {"source": "my.py:build"}),
        ),
    ],
)
def test_the_word_names_a_model_and_perhaps_an_attack(word: str, spec: AttackSpec) -> None:
    (found,) = parse_suite(word)
    assert (found.name, found.label) == (spec.name, spec.label)
    assert found.settings.items() >= spec.settings.items()


def test_overrides_and_mistakes() -> None:
    (spec,) = parse_suite("transfer:runs/a", Overrides(steps=50, restarts=2))
    assert spec.label == "transfer:a@pgd-50x2"
    with pytest.raises(ConfigError, match="does not say on which model"):
        parse_suite("transfer:")
    with pytest.raises(
        ConfigError, match="cannot transfer. Attacks that can: fgsm, bim, mim, pgd, cw-pgd"
    ):
        parse_suite("transfer:runs/a@square")
    with pytest.raises(ConfigError, match="two different attacks have the label 'transfer:a'"):
        parse_suite("transfer:runs/a,transfer:old/a")


class Linear(nn.Module):
    """Two classes, z = (0, w x): the best step is sign(w), so it is known what transfers."""

    def __init__(self, weights: Tensor, cut: bool = False) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.cut = cut

    def forward(self, x: Tensor) -> Tensor:
        score = (x.detach() if self.cut else x).flatten(1) @ self.weights
        return torch.stack([torch.zeros_like(score), score], dim=1)


def test_what_transfers_between_linear_models_is_known_in_advance() -> None:
    """The images lie 0.05 from grey towards their class; the source's step of 0.1 has to undo that
    in most pixels."""
    weights = torch.tensor([1.0] * 8 + [-1.0] * 8)  # balanced: grey lies on the border
    x = (0.5 + 0.05 * torch.stack([weights, -weights])).view(2, 1, 4, 4)
    y = torch.tensor([1, 0])
    target = Linear(weights, cut=True)
    spec = parse_suite("transfer:a")
    for disagreeing, robust in (
        (0, 0.0),
        (3, 0.0),
        (5, 1.0),
        (16, 1.0),
    ):  # 0.05 * 16 against 0.1 * (16 - 2 d)
        other = weights.clone()
        other[:disagreeing] *= -1
        evaluation = evaluate(target, x, y, spec, LINF, sources={"transfer:a": Linear(other)})
        assert evaluation.clean.value == 1.0
        assert evaluation.robust.value == robust, disagreeing
        assert evaluation.results[0].backward == 0
        assert evaluation.results[0].flags == ()


def test_a_transfer_without_its_source_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="no source model was given for transfer:a"):
        evaluate(
            Linear(torch.ones(4)),
            torch.rand(2, 1, 2, 2),
            torch.ones(2).long(),
            parse_suite("transfer:a"),
            LINF,
        )


def test_the_source_travels_to_the_workers_and_comes_out_as_it_went_in(toy: Any) -> None:
    torch.manual_seed(0)
    source = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(100, 10)).train()
    specs = parse_suite("transfer:a,transfer:a@pgd-3")
    sources = {spec.label: source for spec in specs}
    threat = Threat("Linf", 0.3)
    alone = evaluate(toy.model, toy.x, toy.y, specs, threat, batch_size=12, sources=sources)
    assert source.training
    assert all(
        parameter.requires_grad and parameter.grad is None for parameter in source.parameters()
    )
    remarks: list[str] = []
    with Workers(2, torch.device("cpu")) as workers:
        shared = evaluate(
            toy.model,
            toy.x,
            toy.y,
            specs,
            threat,
            batch_size=12,
            sources=sources,
            workers=workers,
            on_remark=remarks.append,
        )
    assert remarks == []
    for one, two in zip(alone.results, shared.results, strict=True):
        assert torch.equal(one.correct_after, two.correct_after)
    assert alone.robust.value < alone.clean.value


def test_the_verdict_takes_each_source_once() -> None:
    specs = parse_suite("transfer:runs/a,transfer:runs/a@pgd-3,transfer:runs/b")
    sources: dict[str, Any] = {spec.label: spec.label for spec in specs}
    assert list(one_per_source(specs, sources)) == ["transfer:a", "transfer:b"]


FILE = """
import torch
from torch import nn

def linear(seed=0, side=28, classes=10):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(side * side, classes))

def other():
    return linear({seed})

def small():
    return linear(side=14)

def few():
    return linear(classes=3)
"""

DATA = [Layer("--data", {"data": "fashion-mini"})]


@trusting(everything=True)  # the sources are named here, not on a command line
def test_from_the_command_to_the_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text(FILE.format(seed=1))
    target, options = Path("my.py:linear"), EvalOptions(limit=30)
    specs = parse_suite("transfer:my.py:other@pgd-2")
    _, file = eval_run(target, specs, changes=DATA, options=options)
    record = json.loads(file.read_text())
    (result,) = record["results"]
    assert result["label"] == "transfer:my.py:other@pgd-2"
    source = f"{tmp_path}/my.py:other"  # found from everywhere
    assert (result["settings"]["source"], result["settings"]["attack"]) == (source, "pgd")
    opened = open_target(target, "best", DATA)
    assert is_evaluated(opened, specs, options)
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        "rpat_cli.diagnostics.verdict.verdict.gather",
        lambda *_, **given: seen.update(given) or 1 / 0,
    )
    with pytest.raises(RpatError, match="division by zero"):
        measure_run(target, specs, diagnostics={"verdict": {}}, changes=DATA, options=options)
    assert list(seen["sources"]) == [result["label"]]
    (tmp_path / "my.py").write_text(FILE.format(seed=2))  # another source is another evaluation
    assert not is_evaluated(opened, specs, options)
    for source, told in (
        ("few", "in 3 classes, the model"),
        ("small", "fails on an image"),
        ("gone", "no function"),
    ):
        with pytest.raises(RpatError, match=told):
            eval_run(target, parse_suite(f"transfer:my.py:{source}"), changes=DATA, options=options)
    with pytest.raises(ConfigError) as error:
        eval_run(
            target, parse_suite("transfer:runs/x,transfer:gone.pt"), changes=DATA, options=options
        )
    assert len(error.value.problems) == 2


def test_a_word_for_a_run_becomes_its_path_before_another_run_is_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text("seed: 0")
    specs = located(parse_suite("clean,transfer:last@mim-5"))
    assert specs[1].settings["source"] == str(run)
    assert specs[1].label == "transfer:first@mim-5"
    assert specs == located(parse_suite("clean,transfer:first@mim-5")) == located(specs)
    with pytest.raises(ConfigError, match="two different attacks have the label 'transfer:first'"):
        located([*parse_suite("transfer:last"), *_other_first(tmp_path)])
    kept = with_located_eval(Recipe(eval=["clean,transfer:last", {"attack": "transfer:first"}]))
    assert kept.eval == [f"clean,transfer:{run}", {"attack": f"transfer:{run}"}]
    newer = tmp_path / "runs" / "second"
    newer.mkdir()
    (newer / "recipe.yaml").write_text("seed: 1")
    assert located(specs) == specs
    assert located(parse_suite("transfer:last"))[0].label == "transfer:second"


def _other_first(folder: Path) -> list[AttackSpec]:
    (folder / "old" / "first").mkdir(parents=True)
    return parse_suite("transfer:old/first")
