import json
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_same, snapshot
from torch import Tensor, nn

from rpat_cli.attacks import ATTACKS
from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError, DataError, RpatError
from rpat_cli.evaluation.evaluate import Evaluation, evaluate
from rpat_cli.evaluation.parallel.chunks import ChunkResult, Progress
from rpat_cli.evaluation.suite import AttackSpec, Overrides, parse_suite
from rpat_cli.evaluation.verify import verify

LINF = Threat("Linf", 0.1)

pytestmark = pytest.mark.usefixtures("small_budgets")


def run(
    toy: Any, text: str = "clean,fgsm,pgd-3", threat: Threat = LINF, **options: Any
) -> Evaluation:
    return evaluate(
        toy.model, toy.x, toy.y, parse_suite(text), threat, **{"batch_size": 16, **options}
    )


def linear_model() -> nn.Module:
    """Two classes, 4 pixels, logits (w·x, -w·x) with w = (1, 1, 1, 1)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0] * 4, [-1.0] * 4]))
    return nn.Sequential(Shift(), model)


class Shift(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - 0.5


@pytest.mark.parametrize(
    ("norm", "eps", "reach"), [("Linf", 0.1, 0.1), ("L2", 0.2, 0.1), ("L1", 0.4, 0.1)]
)
def test_a_linear_model_breaks_exactly_where_its_closed_form_says(
    norm: str, eps: float, reach: float
) -> None:
    """The mean pixel can move by `reach`; class 0 holds as long as the mean stays above one
    half."""
    means = torch.linspace(0.52, 0.7, 19)
    x = means.view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    y = torch.zeros(19, dtype=torch.int64)
    result = evaluate(linear_model(), x, y, parse_suite("pgd-40"), Threat(norm, eps))["pgd-40"]
    clear = (means - 0.5 - reach).abs() > 0.004
    assert torch.equal(result.correct_after[clear], (means - 0.5 > reach)[clear])
    distances = result.distance[~result.correct_after]
    assert (distances <= eps * (1 + 1e-5)).all()
    assert result.distance[result.correct_after].isnan().all()


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_model_gradients_modes_and_all_generators_come_out_as_they_went_in(
    toy: Any, norm: str
) -> None:
    toy.model.train()
    toy.model[4].eval()
    toy.model(toy.x).sum().backward()
    before, rng = (
        snapshot(toy.model),
        (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()),
    )
    try:
        run(toy, "noise,fgsm,pgd-2x2,mim-2,apgd-ce,fab-t", Threat(norm, 0.3))
        assert_same(before, snapshot(toy.model))
    finally:
        toy.model.eval().zero_grad()
    assert random.getstate() == rng[0]
    assert np.array_equal(np.random.get_state()[1], rng[1])
    assert torch.equal(torch.get_rng_state(), rng[2])


def test_the_seed_alone_decides(toy: Any) -> None:
    first = run(toy, "pgd-1")
    torch.manual_seed(123)  # what the world's generator does is of no matter
    again = run(toy, "clean,fgsm,pgd-1")  # nor what else the suite holds
    timed = {"seconds": 0, "stages": 0}
    assert first["pgd-1"].to_dict() | timed == again["pgd-1"].to_dict() | timed
    other = run(toy, "pgd-1", seed=1)
    assert not torch.equal(
        first["pgd-1"].distance.nan_to_num(), other["pgd-1"].distance.nan_to_num()
    )


def test_steps_restarts_and_passes_are_what_was_asked_for(toy: Any) -> None:
    evaluation = run(toy, "clean,fgsm,pgd-20,pgd-3x4")
    attacked = evaluation.clean.correct
    assert evaluation["fgsm"].backward == attacked
    assert evaluation["pgd-20"].backward == 20 * attacked
    assert evaluation["pgd-20"].forward == 21 * attacked  # and one to predict again
    assert evaluation["pgd-3x4"].backward == 12 * attacked
    assert (evaluation["clean"].forward, evaluation["clean"].backward) == (0, 0)
    settings = evaluation["pgd-3x4"].settings
    assert settings == {
        "step_size": LINF.default_step_size(),
        "steps": 3,
        "start": "uniform",
        "restarts": 4,
        "bn_mode": "eval",
        "keep": "last",
        "loss": "ce",
        "decay": 0.0,
        "start_scale": 1.0,
        "projection": "exact",
        "reach": 1.0,
        "eot": 1,
    }


def test_more_restarts_never_help_the_defence_and_worst_is_below_last(toy: Any) -> None:
    spec = AttackSpec("noise", "noise-50", {"draws": 50})
    one, many = evaluate(
        toy.model, toy.x, toy.y, [*parse_suite("noise"), spec], Threat("Linf", 0.25)
    ).results
    assert many.robust_acc < one.robust_acc
    last = run(toy, "pgd-3")["pgd-3"]
    (worst,) = evaluate(
        toy.model, toy.x, toy.y, parse_suite("pgd-3", Overrides(keep="worst")), LINF, batch_size=16
    ).results
    assert worst.robust_acc <= last.robust_acc
    assert worst.settings["keep"] == "worst"
    assert worst.backward < last.backward  # what is broken takes no further step


def test_the_worst_case_is_over_all_attacks(toy: Any) -> None:
    evaluation = run(toy, "clean,noise,fgsm,pgd-5", Threat("Linf", 0.07))
    flags = torch.stack([result.correct_after for result in evaluation.results])
    assert torch.equal(evaluation.worst_case, flags.all(dim=0))
    assert torch.equal(evaluation["clean"].correct_after, evaluation.clean_predicted == toy.y)
    assert 0 < evaluation.robust.value < evaluation["noise"].robust_acc
    broken = ~evaluation["pgd-5"].correct_after
    assert (evaluation["pgd-5"].predicted != toy.y).equal(broken)
    low, high = evaluation["pgd-5"].accuracy.interval
    assert low < evaluation["pgd-5"].robust_acc < high


def test_it_survives_json(toy: Any) -> None:
    evaluation = run(toy, "clean,pgd-3,autoattack:apgd-ce+square")
    text = json.dumps(evaluation.to_dict(), allow_nan=False)
    back = Evaluation.from_dict(json.loads(text))
    assert json.dumps(back.to_dict()) == text
    assert torch.equal(back.worst_case, evaluation.worst_case)
    stages = back["autoattack:apgd-ce+square"].stages
    assert [stage.name for stage in stages] == ["apgd-ce", "square"]
    assert stages[1].attacked == stages[0].attacked - stages[0].broken


def test_progress_tells_where_it_stands(toy: Any) -> None:
    seen: list[Progress] = []
    result = run(toy, "autoattack:square+apgd-ce", on_progress=seen.append).results[0]
    first, last = seen[0], seen[-1]
    assert (first.stage, first.stage_number, first.stages, first.chunk, first.done) == (
        "square",
        1,
        2,
        0,
        0,
    )
    assert first.eta is None
    assert (last.stage, last.chunk, last.done, last.eta) == ("apgd-ce", last.chunks, last.total, 0)
    assert last.robust_acc == pytest.approx(result.robust_acc)
    assert [p.robust_acc for p in seen] == sorted((p.robust_acc for p in seen), reverse=True)
    assert sum(p.stage == "square" and p.chunk > 0 for p in seen) == math.ceil(first.total / 16)


def test_results_come_one_by_one_and_ctrl_c_passes_through(toy: Any) -> None:
    labels: list[str] = []
    kept: list[ChunkResult] = []

    def stop(result: Any) -> None:
        labels.append(result.label)
        if len(labels) == 2:
            raise KeyboardInterrupt

    before = snapshot(toy.model)
    with pytest.raises(KeyboardInterrupt):
        run(toy, on_result=stop, on_chunk=kept.append)
    assert labels == ["clean", "fgsm"]
    assert_same(before, snapshot(toy.model))
    fresh: list[ChunkResult] = []
    resumed = run(toy, known=kept, on_chunk=fresh.append)
    assert {chunk.label for chunk in fresh} == {"pgd-3"}
    assert torch.equal(resumed.worst_case, run(toy).worst_case)


def test_chunks_of_other_samples_are_not_taken_over(toy: Any) -> None:
    kept: list[ChunkResult] = []
    run(toy, "pgd-3", on_chunk=kept.append, batch_size=20)
    mixed = run(toy, "pgd-3", known=kept)  # cut differently, so nothing fits
    assert torch.equal(mixed["pgd-3"].correct_after, run(toy, "pgd-3")["pgd-3"].correct_after)


def test_nothing_outside_the_threat_ever_counts(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Liar:
        """Returns other people's images: far outside the ball, and all of them misclassified."""

        def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            return torch.full_like(x, torch.nan) if self.nan else 3 - 5 * x

        nan = False

    liar = Liar()
    monkeypatch.setattr(ATTACKS, "_entries", dict(ATTACKS._entries))
    ATTACKS.add("liar", lambda _: liar)
    spec = AttackSpec("liar", "liar")
    tiny = Threat("Linf", 1e-4)
    result = evaluate(toy.model, toy.x, toy.y, [spec], tiny)["liar"]
    assert result.robust_acc > 0.9
    assert (result.distance.nan_to_num() <= 1e-4 + 1e-6).all()
    liar.nan = True
    result = evaluate(toy.model, toy.x, toy.y, [spec], tiny)["liar"]
    assert (
        result.robust_acc
        == evaluate(toy.model, toy.x, toy.y, parse_suite("clean"), tiny).clean.value
    )
    assert "did not count" in result.notes[0]


def test_verify_leaves_points_inside_alone_and_projects_the_others(toy: Any) -> None:
    inside = (toy.x + 0.05).clamp(0, 1)
    outside = toy.x + 0.5
    x_adv = torch.where(torch.arange(len(toy.x)).view(-1, 1, 1, 1) < 10, inside, outside)
    found = verify(toy.model, LINF, toy.x, toy.y, x_adv)
    assert torch.equal(found.x_adv[:10], inside[:10])
    assert torch.allclose(found.x_adv[10:], (toy.x + 0.1).clamp(0, 1)[10:])
    assert found.inside.all()
    assert torch.equal(found.broken, toy.model(found.x_adv).argmax(1) != toy.y)


class Sick(nn.Module):
    """Fine on clean images, NaN on others, or no classifier at all."""

    def __init__(self, x: Tensor, kind: str) -> None:
        super().__init__()
        self.net, self.clean, self.kind = nn.Linear(100, 10), x, kind

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x.flatten(1))
        if self.kind == "dead":
            return logits * torch.nan
        if self.kind == "shape":
            return logits[0]
        known = (x.flatten(1)[:, None] == self.clean.flatten(1)[None]).all(-1).any(-1, keepdim=True)
        return torch.where(known, logits, logits * torch.nan)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("dead", "not finite"),
        ("fragile", "not finite"),
        ("shape", r"must return logits \(B, classes\)"),
    ],
)
def test_a_sick_model_gets_no_accuracy_but_a_reason(toy: Any, kind: str, said: str) -> None:
    model = Sick(toy.x, kind)
    y = toy.y if kind != "fragile" else model(toy.x).argmax(1)
    with pytest.raises(RpatError, match=said):
        evaluate(model, toy.x, y, parse_suite("noise"), LINF)


def test_wrong_inputs_are_refused_with_a_remedy(toy: Any) -> None:
    with pytest.raises(DataError, match="Divide bytes by 255"):
        evaluate(toy.model, toy.x * 255, toy.y, [], LINF)
    with pytest.raises(DataError, match="labels"):
        evaluate(toy.model, toy.x, toy.y[:-1], [], LINF)
    with pytest.raises(RpatError, match=r"parameters in float64. Call model.float\(\) first"):
        evaluate(nn.Sequential(nn.Flatten(), nn.Linear(100, 10)).double(), toy.x, toy.y, [], LINF)
    with pytest.raises(DataError, match="labels run from 0 to 10, but the model has 10 classes"):
        evaluate(toy.model, toy.x, toy.y + (toy.y == 9), [], LINF)
    with pytest.raises(ConfigError, match="at least 1 image, given 0"):
        run(toy, batch_size=0)
    with pytest.raises(ConfigError, match="stps"):
        evaluate(toy.model, toy.x, toy.y, [AttackSpec("pgd", "pgd", {"stps": 3})], LINF)


def test_mistakes_of_all_attacks_are_told_at_once(toy: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"(?s)2 mistakes in the attacks.*zoo-10: queries: .*autoattack:apgd-t: "
    ) as caught:
        evaluate(
            Rounded(2, torch.float32),
            toy.x,
            toy.y % 2,
            parse_suite("fgsm,zoo-10,autoattack:apgd-t"),
            LINF,
        )
    assert len(caught.value.problems) == 2


class Rounded(nn.Module):
    """Logits of some precision, for two classes or more."""

    def __init__(self, classes: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear, self.dtype = nn.Linear(100, classes), dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1)).to(self.dtype)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.float64])
def test_logits_of_another_precision_are_refused_before_an_attack_stumbles_over_them(
    toy: Any, dtype: torch.dtype
) -> None:
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(
        RpatError, match=rf"logits in float32, this one gave {name}. Return logits.float\(\)"
    ):
        evaluate(Rounded(10, dtype), toy.x, toy.y, parse_suite("square"), LINF)


def test_autocast_outside_changes_nothing(toy: Any) -> None:
    plain = run(toy, "pgd-3")
    with torch.autocast("cpu", torch.bfloat16):
        inside = run(toy, "pgd-3")
    assert torch.equal(plain["pgd-3"].distance.nan_to_num(), inside["pgd-3"].distance.nan_to_num())


def test_a_model_that_is_wrong_everywhere_is_attacked_by_nobody(toy: Any) -> None:
    wrong = (toy.model(toy.x).argmax(1) + 1) % 10
    evaluation = evaluate(toy.model, toy.x, wrong, parse_suite("clean,pgd-3,autoattack"), LINF)
    assert evaluation.clean.value == evaluation.robust.value == 0
    assert evaluation["pgd-3"].forward == 0
    assert evaluation["autoattack"].stages == ()
