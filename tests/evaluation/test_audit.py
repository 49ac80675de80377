"""The audit's bound: against scipy's distributions, and against 2,000 evaluations with known
flags; what an audit attacks, and that an interruption changes nothing."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import ConfigError
from rpat_cli.evaluation.audit import (
    Audit,
    Look,
    at_most_probability,
    most_broken,
    next_look,
    plan,
    points,
    priority,
    room_of,
)
from rpat_cli.evaluation.audit_word import with_audit_last
from rpat_cli.evaluation.evaluate import Evaluation, evaluate
from rpat_cli.evaluation.parallel.chunks import ChunkResult
from rpat_cli.evaluation.suite import parse_suite

WEAK = Threat("Linf", 0.07)


@pytest.mark.parametrize("population", [1, 7, 300, 5000])
def test_the_probability_is_scipys(population: int) -> None:
    random = np.random.RandomState(0)
    for _ in range(40):
        broken, sampled = random.randint(0, population + 1, 2).tolist()
        k = int(random.randint(0, sampled + 1))
        expected = stats.hypergeom(population, broken, sampled).cdf(k)
        assert at_most_probability(k, population, broken, sampled) == pytest.approx(
            expected, abs=1e-9
        )


def test_the_bound_is_the_largest_number_that_is_likely_enough() -> None:
    for population, sampled, k, alpha in [
        (300, 40, 0, 0.05),
        (300, 40, 3, 0.01),
        (50, 50, 2, 0.05),
    ]:
        bound = most_broken(population, sampled, k, alpha)
        possible = [
            broken
            for broken in range(k, population - sampled + k + 1)
            if stats.hypergeom(population, broken, sampled).cdf(k) > alpha
        ]
        assert bound == max(possible)
    assert most_broken(20, 0, 0, 0.05) == 20
    with pytest.raises(ValueError, match="3 of 2"):
        most_broken(10, 2, 3, 0.05)


def test_a_single_look_has_the_published_sizes() -> None:
    """Of 10,000 images half are left, none of the sample is broken, one look at 95 %: 300 images
    give half a point, 600 a quarter, 1,500 a tenth (sampling without replacement is sharper)."""
    for sampled, width in [(300, 0.5), (600, 0.25), (1500, 0.1)]:
        assert most_broken(5000, sampled, 0, 0.05) / 10_000 <= width / 100
    assert most_broken(10**7, 300, 0, 0.05) / (2 * 10**7) == pytest.approx(0.005, abs=1e-4)


def test_the_looks_share_alpha_and_each_is_as_small_as_can_be() -> None:
    looks = plan(5000, 25, 0.05)
    assert sum(look.alpha for look in looks) < 0.05
    assert [look.allowed for look in looks] == [2**place - 1 for place in range(len(looks))]
    assert [look.sampled for look in looks] == sorted({look.sampled for look in looks})
    for look in looks:
        assert look.sampled <= 2500
        assert most_broken(5000, look.sampled, look.allowed, look.alpha) - look.allowed <= 25
        less = most_broken(5000, look.sampled - 1, look.allowed, look.alpha)
        assert less - look.allowed > 25
    assert plan(0, 5, 0.05) == []
    assert plan(240, 1, 0.05) == []  # 500 images, a quarter of a point: no sample is enough
    assert plan(240, 240, 0.05)[0].sampled == 1
    assert next_look(looks, 0, 0) == looks[0]
    assert next_look(looks, looks[0].sampled, 2) == looks[2]
    assert next_look(looks, looks[-1].sampled, 1) is None


RULES = {
    "as the audit does": lambda looks, so_far, bounds: next(
        (b for b, look, k in zip(bounds, looks, so_far, strict=True) if k <= look.allowed), None
    ),
    "at the first look": lambda looks, so_far, bounds: bounds[0],
    "at the last look": lambda looks, so_far, bounds: bounds[-1],
    "where it looks best": lambda looks, so_far, bounds: min(bounds),
    "once some are broken": lambda looks, so_far, bounds: next(
        (b for b, k in zip(bounds, so_far, strict=True) if k > 0), bounds[-1]
    ),
}


@pytest.mark.parametrize(("survivors", "room"), [(400, 20), (2500, 25)])
def test_the_bound_holds_in_95_of_100_evaluations_under_every_stopping_rule(
    survivors: int, room: int
) -> None:
    """2,000 evaluations with known flags for each number of images that AutoAttack would break."""
    random = np.random.RandomState(1)
    looks = plan(survivors, room, 0.05)
    assert len(looks) >= 2
    bound_of = cache(lambda look, k: most_broken(survivors, look.sampled, k, look.alpha))
    for broken in (0, 1, room, room + 1, 2 * room, 3 * room):
        failed = dict.fromkeys(RULES, 0)
        for so_far in counts_at(looks, survivors, broken, 2000, random).tolist():
            bounds = [bound_of(look, k) for look, k in zip(looks, so_far, strict=True)]
            for name, rule in RULES.items():
                bound = rule(looks, so_far, bounds)
                failed[name] += bound is not None and bound < broken
        assert max(failed.values()) <= 0.05 * 2000, (broken, failed)


def counts_at(looks: list[Look], survivors: int, broken: int, runs: int, random: Any) -> Any:
    """(runs, looks): how many of a random sample are broken at each look; each increment is
    hypergeometric in what the looks before have left."""
    counts = np.zeros((runs, len(looks)), dtype=int)
    seen = np.zeros(runs, dtype=int)
    sampled = 0
    for place, look in enumerate(looks):
        left = broken - seen
        intact = survivors - sampled - left
        seen = seen + random.hypergeometric(left, intact, look.sampled - sampled)
        counts[:, place], sampled = seen, look.sampled
    return counts


def test_the_order_is_fixed_by_the_seed_alone() -> None:
    assert priority(10, 0).tolist() == priority(10, 0).tolist()
    assert sorted(priority(500, 3).tolist()) == list(range(500))
    assert priority(500, 3).tolist() != priority(500, 4).tolist()
    assert room_of(0.3, 1000) == 3  # not 2, as 0.3 * 1000 / 100 rounds to
    assert points(0.00241) == "0.25"
    assert points(0.0025) == "0.25"
    assert points(0.0) == "0.00"


def run(toy: Any, text: str, threat: Threat = WEAK, **options: Any) -> Evaluation:
    values = {"batch_size": 4, "seed": 0, **options}
    return evaluate(toy.model, toy.x, toy.y, parse_suite(text), threat, **values)


def audit_of(evaluation: Evaluation) -> Audit:
    audit = evaluation.results[-1].audit
    assert audit is not None
    return audit


@pytest.mark.usefixtures("small_budgets")
class TestAudited:
    def test_it_attacks_the_first_of_what_is_left_in_the_seeds_order(self, toy: Any) -> None:
        evaluation = run(toy, "fgsm,audit:20")
        audit, fgsm = audit_of(evaluation), evaluation["fgsm"]
        order = [i for i in priority(48, 0).tolist() if fgsm.correct_after[i]]
        assert list(audit.sample) == order[: audit.sampled]
        assert audit.survivors == len(order) == fgsm.accuracy.correct
        assert 0 < audit.sampled <= len(order) / 2
        assert audit.gap <= 0.2
        result = evaluation.results[-1]
        assert result.stages[0].attacked == audit.sampled
        assert sum(stage.broken for stage in result.stages) == audit.broken
        assert torch.equal(result.correct_after, evaluation.worst_case)
        assert fgsm.accuracy.correct - evaluation.robust.correct == audit.broken
        assert evaluation["audit:20"].notes[-1] == audit.statement

    def test_the_bound_covers_the_whole_autoattack(self, toy: Any) -> None:
        whole = run(toy, "fgsm,autoattack").robust
        for seed in range(3):
            evaluation = run(toy, "fgsm,audit:20", seed=seed)
            assert evaluation.robust.value - whole.value <= audit_of(evaluation).gap

    def test_a_weak_attack_ends_in_the_whole_autoattack(self, toy: Any) -> None:
        said: list[str] = []
        threat = Threat("Linf", 0.12)
        evaluation = run(toy, "noise,audit:20", threat, on_remark=said.append)
        audit = audit_of(evaluation)
        assert audit.whole
        assert audit.gap == 0
        assert "too many to bound" in said[0]
        joint = run(toy, "noise,autoattack", threat)
        assert torch.equal(evaluation.worst_case, joint.worst_case)

    def test_too_few_images_for_the_width_is_said_before_anything_is_attacked(
        self, toy: Any
    ) -> None:
        said: list[str] = []
        audit = audit_of(run(toy, "fgsm,audit:0.25", on_remark=said.append))
        assert audit.whole
        assert said == [
            f"audit: 0.25 points cannot be bounded by a sample of half of the {audit.survivors} "
            f"images that are left: AutoAttack attacks all {audit.survivors}"
        ]

    def test_autoattack_itself_is_audited_by_its_costly_half(self, toy: Any) -> None:
        evaluation = run(toy, "clean,autoattack,audit:20")
        assert [result.label for result in evaluation.results] == [
            "clean",
            "autoattack-apgd",
            "audit:20",
        ]
        whole = run(toy, "autoattack")["autoattack"]
        exact, audited = evaluation.results[1:]
        assert [stage.name for stage in exact.stages] == ["apgd-ce", "apgd-t"]
        assert {stage.name for stage in audited.stages} <= {"fab-t", "square"}
        assert audited.accuracy.value - whole.accuracy.value <= audit_of(evaluation).gap
        assert evaluation.results[1].settings["version"] == "standard"

    def test_interrupted_anywhere_it_ends_with_the_same_flags_and_bound(self, toy: Any) -> None:
        kept: list[ChunkResult] = []
        whole = run(toy, "fgsm,audit:12", on_chunk=kept.append)
        audit = audit_of(whole)
        assert len({chunk.stage for chunk in kept if chunk.label == "audit:12"}) == 4
        keys = ("correct_after", "predicted", "broken_by", "distance", "audit")
        for known in (kept[:7], kept[:9], kept[1::2], kept):
            fresh: list[ChunkResult] = []
            again = run(toy, "fgsm,audit:12", known=known, on_chunk=fresh.append)
            assert len(fresh) == len(kept) - len(known)
            assert audit_of(again) == audit
            before, after = whole["audit:12"].to_dict(), again["audit:12"].to_dict()
            assert [before[key] for key in keys] == [after[key] for key in keys]

    def test_it_survives_json(self, toy: Any) -> None:
        evaluation = run(toy, "fgsm,audit:20")
        data = evaluation.to_dict()
        back = Evaluation.from_dict(data)
        assert audit_of(back) == audit_of(evaluation)
        assert back.to_dict() == data
        assert "audit" not in data["results"][0]


def test_the_words() -> None:
    labels = [spec.label for spec in parse_suite("audit:1/2,pgd-5")]
    assert labels == ["pgd-5", "audit:0.5"]
    (_, spec) = parse_suite(["pgd-5", {"attack": "audit:0.25", "level": 0.99}])
    assert spec.settings == {"width": 0.25, "level": 0.99}
    for wrong in ("audit", "audit:", "audit:x", "audit:0", "audit:101", "audit:-1"):
        with pytest.raises(ConfigError):
            parse_suite(f"pgd,{wrong}")
    with pytest.raises(ConfigError, match="one audit, at most"):
        parse_suite("pgd,audit:1,audit:2")
    assert with_audit_last([]) == []
