"""Driven attack by attack and chunk by chunk, AutoAttack must come to its own verdict on every
single sample."""

from typing import Any

import pyautoattack
import pytest
import torch
from torch import Tensor

from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.evaluate import Evaluation, evaluate
from rpat_cli.evaluation.parallel.chunks import ChunkResult, even_pieces
from rpat_cli.evaluation.suite import parse_suite

EPS = {"Linf": 0.1, "L2": 0.7, "L1": 3.0}

# the weakest first, so that each has something left to break
ORDER = ("square", "apgd-ce", "apgd-t", "fab-t")
CUSTOM = "autoattack:" + "+".join(ORDER)


pytestmark = pytest.mark.usefixtures("small_budgets")


def direct(
    toy: Any,
    norm: str,
    attacks: tuple[str, ...],
    version: str = "custom",
    samples: Tensor | None = None,
) -> Tensor:
    """Flags from the library's own loop, all samples in one batch. It reseeds the global generator:
    fork it."""
    x, y = (toy.x, toy.y) if samples is None else (toy.x[samples], toy.y[samples])
    with torch.random.fork_rng(devices=[]):
        attack = pyautoattack.AutoAttack(
            toy.model, norm=norm, eps=EPS[norm], seed=0, version=version
        )
        attack.attacks_to_run = list(attacks)
        classes = toy.model(toy.x[:1]).shape[1]
        for targeted in (attack.apgd_targeted, attack.fab):
            targeted.n_target_classes = min(targeted.n_target_classes, classes - 1)
        _, y_adv = attack.run_standard_evaluation(x, y, batch_size=len(x))
    return y_adv == y


def direct_in_pieces(toy: Any, norm: str, attacks: tuple[str, ...], batch_size: int) -> Tensor:
    """The same, each attack called on even pieces of what the ones before have left."""
    flags = toy.model(toy.x).argmax(dim=1) == toy.y
    for name in attacks:
        left = flags.nonzero().squeeze(1)
        for piece in torch.tensor_split(left, -(-len(left) // batch_size)):
            flags[piece] = direct(toy, norm, (name,), samples=piece)
    return flags


def ours(toy: Any, norm: str, attacks: str, batch_size: int, **options: Any) -> Evaluation:
    specs = parse_suite(attacks)
    return evaluate(
        toy.model, toy.x, toy.y, specs, Threat(norm, EPS[norm]), batch_size=batch_size, **options
    )


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_flags_are_the_librarys_own_sample_by_sample(toy: Any, norm: str) -> None:
    (result,) = ours(toy, norm, CUSTOM, 48).results
    assert torch.equal(result.correct_after, direct(toy, norm, ORDER))
    assert [stage.name for stage in result.stages] == list(ORDER)
    assert sum(stage.broken > 0 for stage in result.stages) >= 2
    assert 0 < result.robust_acc < 0.9


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_so_are_those_of_even_pieces(toy: Any, norm: str) -> None:
    (result,) = ours(toy, norm, CUSTOM, 16).results
    assert torch.equal(result.correct_after, direct_in_pieces(toy, norm, ORDER, 16))


@pytest.mark.parametrize(
    ("n", "most", "sizes"), [(314, 100, [79, 79, 78, 78]), (100, 100, [100]), (3, 1, [1, 1, 1])]
)
def test_pieces_are_even_and_as_few_as_can_be(n: int, most: int, sizes: list[int]) -> None:
    pieces = even_pieces(torch.arange(n), most)
    assert [len(piece) for piece in pieces] == sizes
    assert torch.equal(torch.cat(pieces), torch.arange(n))


@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_flags_agree_in_every_version(toy: Any, version: str) -> None:
    word = {"standard": "autoattack"}.get(version, f"autoattack-{version}")
    (result,) = ours(toy, "Linf", word, 48).results
    names = tuple(result.settings["attacks"])
    assert torch.equal(result.correct_after, direct(toy, "Linf", names, version))
    assert result.settings["library"].startswith("pyautoattack 0.2")


@pytest.mark.parametrize("name", ["fab", "fab-t", "square"])
def test_each_part_runs_alone_as_the_standard_version_runs_it(toy: Any, name: str) -> None:
    (result,) = ours(toy, "Linf", name, 48).results
    assert torch.equal(result.correct_after, direct(toy, "Linf", (name,), "standard"))
    assert result.stages[0].broken > 0


@pytest.mark.parametrize(
    ("toy", "defined"),
    [
        (2, ["apgd-ce", "fab-t", "square"]),
        (3, ["apgd-ce", "fab-t", "square"]),
        (4, ["apgd-ce", "apgd-t", "fab-t", "square"]),
    ],
    indirect=["toy"],
)
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_few_classes_run_what_is_defined_and_say_what_is_not(
    toy: Any, defined: list[str], norm: str
) -> None:
    (result,) = ours(toy, norm, "autoattack", 48).results
    assert list(result.settings["attacks"]) == defined
    assert torch.equal(result.correct_after, direct(toy, norm, tuple(defined), "standard"))
    left_out = [
        note for note in result.notes if "apgd-t left out: it needs at least 4 classes" in note
    ]
    assert len(left_out) == ("apgd-t" not in defined)


def test_an_interrupted_run_goes_on_to_the_same_flags(toy: Any) -> None:
    whole = ours(toy, "Linf", CUSTOM, 16)["autoattack:" + "+".join(ORDER)]
    kept: list[ChunkResult] = []

    def stop_after_five(chunk: ChunkResult) -> None:
        kept.append(chunk)
        if len(kept) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ours(toy, "Linf", CUSTOM, 16, on_chunk=stop_after_five)
    fresh: list[ChunkResult] = []
    (resumed,) = ours(toy, "Linf", CUSTOM, 16, known=kept, on_chunk=fresh.append).results
    assert torch.equal(resumed.correct_after, whole.correct_after)
    assert torch.equal(resumed.broken_by, whole.broken_by)
    assert (resumed.forward, resumed.backward) == (whole.forward, whole.backward)
    assert not {(c.stage, c.chunk) for c in fresh} & {(c.stage, c.chunk) for c in kept}
