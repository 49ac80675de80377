"""The robust accuracy counted again, by a few lines that know nothing of rpat: NumPy, the bare
network, and what the attacks returned."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import Toy

from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation import bench
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.suite import parse_suite

RADII = {"Linf": 0.1, "L2": 0.8, "L1": 5.0}
WORDS = ["noise", "fgsm", "pgd-5", "pgd-5x2", "mim-5", "cw-pgd-5", "square", "apgd-ce"]

Answer = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def recount(toy: Toy, norm: str, eps: float, answers: list[Answer]) -> float:
    """Right on the clean image, and on all that an attack made of it within the ball and box."""
    classes = lambda x: toy.model.eval()(torch.as_tensor(x)).detach().numpy().argmax(1)  # noqa: E731
    x, y = toy.x.numpy(), toy.y.numpy()
    right = classes(x) == y
    order = {"Linf": np.inf, "L2": 2, "L1": 1}[norm]
    for some, labels, made in answers:
        delta = (made - some).numpy().reshape(len(some), -1).astype(np.float64)
        allowed = np.linalg.norm(delta, order, axis=1) <= eps * (1 + 1e-5) + 1e-6
        allowed &= ((made.numpy() >= 0) & (made.numpy() <= 1)).reshape(len(some), -1).all(1)
        wrong = allowed & (classes(made) != labels.numpy())
        for image in some[torch.from_numpy(wrong)]:
            right &= ~(x == image.numpy()).reshape(len(x), -1).all(1)
    return float(right.mean())


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Answer]:
    """All that attacks return during a test, before rpat looks at it."""
    kept: list[Answer] = []
    verify = bench.verify

    def recording(model: Any, threat: Any, x: Any, y: Any, x_adv: Any) -> Any:
        kept.append((x.clone(), y.clone(), x_adv.detach().clone()))
        return verify(model, threat, x, y, x_adv)

    monkeypatch.setattr(bench, "verify", recording)
    return kept


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("norm", RADII)
@pytest.mark.usefixtures("small_budgets")
def test_the_robust_accuracy_is_that_of_an_independent_count(
    toy: Toy, norm: str, word: str, answers: list[Answer]
) -> None:
    eps = RADII[norm]
    measured = evaluate(
        toy.model, toy.x, toy.y, parse_suite(word), Threat(norm, eps), batch_size=20
    )
    assert measured.results[0].robust_acc == recount(toy, norm, eps, answers)
    if word not in ("noise", "square"):
        assert measured.results[0].robust_acc < recount(toy, norm, eps, [])


@pytest.mark.parametrize("norm", RADII)
def test_the_worst_case_over_attacks_is_recounted_too(
    toy: Toy, norm: str, answers: list[Answer]
) -> None:
    eps = RADII[norm]
    suite = parse_suite("clean,fgsm,pgd-5,mim-5")
    measured = evaluate(toy.model, toy.x, toy.y, suite, Threat(norm, eps), batch_size=20)
    assert measured.to_dict()["robust_acc"] == recount(toy, norm, eps, answers)


@pytest.mark.parametrize("norm", RADII)
def test_images_outside_ball_or_box_do_not_count(
    toy: Toy, norm: str, answers: list[Answer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An attack that cheats: it leaves the ball for the first half, the box for the second."""
    eps = RADII[norm]
    from rpat_cli.attacks.pgd import PGD

    honest = PGD.__call__

    def cheating(self: PGD, model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        made = honest(self, model, x, y)
        return torch.cat([x[:5] + 20 * (made[:5] - x[:5]), made[5:] * 3 - 1])

    monkeypatch.setattr(PGD, "__call__", cheating)
    measured = evaluate(toy.model, toy.x, toy.y, parse_suite("pgd-5"), Threat(norm, eps))
    # rpat counts the nearest allowed image, which may break the model as well, and says so.
    assert measured.results[0].robust_acc <= recount(toy, norm, eps, answers)
    kept = [(x, y, Threat(norm, eps).apply(x, made - x)) for x, y, made in answers]
    assert measured.results[0].robust_acc == recount(toy, norm, eps, kept)
