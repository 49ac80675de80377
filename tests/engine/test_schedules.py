import pytest
from pydantic import TypeAdapter

from rpat_cli.engine.schedules import (
    SCHEDULES,
    Cosine,
    Linear,
    MultiStep,
    OneCycle,
    Piecewise,
    learning_rate,
)


def rates(schedule: object, epochs: int) -> list[float]:
    return [schedule(epoch, epochs) for epoch in range(epochs)]  # type: ignore[operator]


def test_multistep_falls_at_100_and_105_of_110_epochs() -> None:
    factors = rates(MultiStep(), 110)
    assert [factors[e] for e in (0, 99, 100, 104, 105, 109)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_multistep_falls_at_half_and_three_quarters_of_200_epochs() -> None:
    factors = rates(MultiStep(), 200)
    assert [factors[e] for e in (99, 100, 149, 150)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_multistep_changes_between_epochs_only() -> None:
    assert MultiStep(milestones=(2,))(1.99, 4) == 1
    assert MultiStep(milestones=(2,))(2.01, 4) == pytest.approx(0.1)


def test_piecewise_divides_by_its_factor() -> None:
    assert [Piecewise(4.0)(e, 200) for e in (99.9, 100, 149.9, 150)] == pytest.approx(
        [1, 1 / 4, 1 / 4, 1 / 16]
    )


@pytest.mark.parametrize("schedule", [MultiStep, Piecewise])
def test_no_milestones_at_all_are_not_the_usual_ones(schedule: type) -> None:
    assert set(rates(schedule(milestones=()), 200)) == {1.0}
    assert len(set(rates(schedule(), 200))) == 3


def test_closed_forms() -> None:
    assert [Cosine()(e, 8) for e in (0, 4, 8)] == pytest.approx([1, 0.5, 0])
    assert [Linear()(e, 8) for e in (0, 2, 8)] == pytest.approx([1, 0.75, 0])
    assert [OneCycle(peak=0.5)(e, 8) for e in (0, 2, 4, 6, 8)] == pytest.approx([0, 0.5, 1, 0.5, 0])


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_stays_between_0_and_1_and_checks_its_settings(name: str) -> None:
    schedule = TypeAdapter(SCHEDULES[name]).validate_python({})
    assert all(0 <= schedule(e / 7, 10) <= 1 for e in range(71))
    with pytest.raises(ValueError, match="nonsense"):
        TypeAdapter(SCHEDULES[name]).validate_python({"nonsense": 1})


def test_warm_up_rises_linearly_to_the_schedule() -> None:
    assert [
        learning_rate(0.2, Linear(), e, 10, warmup_epochs=2) for e in (0, 1, 2)
    ] == pytest.approx([0, 0.09, 0.16])
