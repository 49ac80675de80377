"""How long is left: exact where every image costs what the attacks' settings say."""

import pytest

from rpat_cli.evaluation.forecast import Forecast, Load, loads_of
from rpat_cli.evaluation.parallel.chunks import Progress
from rpat_cli.evaluation.suite import parse_suite

APGD = {"n_iter": 100, "n_restarts": 1}
AUTOATTACK = {
    "attacks": {
        "apgd-ce": APGD,
        "apgd-t": {**APGD, "n_target_classes": 9},
        "square": {"n_queries": 5000, "n_restarts": 1},
    }
}


@pytest.mark.parametrize(
    ("word", "settings", "passes"),
    [
        ("pgd-20", {"steps": 20, "restarts": 1}, [60]),
        ("pgd-50x10", {"steps": 50, "restarts": 10}, [1500]),
        ("noise", {"steps": 0, "restarts": 1}, [1]),
        ("transfer:runs/a@mim-5", {"attack": "mim", "steps": 5, "restarts": 1}, [15]),
        ("zoo-500", {"queries": 500}, [500]),
        ("boundary-100", {"steps": 100}, [100]),
        ("autoattack", AUTOATTACK, [300, 2700, 5000]),
    ],
)
def test_what_an_attack_costs_follows_its_settings(
    word: str, settings: dict, passes: list[float]
) -> None:
    [spec] = parse_suite(word)
    stages = list(settings.get("attacks", {spec.name: None}))
    assert [load.passes for load in loads_of(spec, stages, settings)] == passes


def progress(label: str, stage: str, done: int, robust: float, eta: float | None) -> Progress:
    return Progress(label, stage, 1, 1, 0, 1, done, 100, robust, elapsed=0.0, eta=eta)


def test_what_is_left_goes_by_the_pace_so_far() -> None:
    told: list[float | None] = []
    loads = [Load("pgd-20", "pgd", 60), Load("aa", "apgd-ce", 300), Load("aa", "square", 5000)]
    forecast = Forecast(loads, n=200, clean_correct=100, on_progress=lambda p: told.append(p.left))
    each = 0.01  # seconds for a pass of an image
    forecast(progress("pgd-20", "pgd", 0, 0.5, None))
    forecast(progress("pgd-20", "pgd", 50, 0.4, each * 50 * 60))
    forecast(progress("pgd-20", "pgd", 100, 0.4, 0.0))
    forecast(progress("aa", "apgd-ce", 0, 0.5, None))
    forecast(
        progress("aa", "apgd-ce", 50, 0.3, each * 50 * 300)
    )  # 0.3 x 200 images will face Square
    forecast(progress("aa", "square", 100, 0.3, 0.0))
    in_passes = [
        None,
        50 * 60 + 100 * 5300,
        100 * 5300,
        100 * 300 + 100 * 5000,
        50 * 300 + 60 * 5000,
        0,
    ]
    assert told == [
        None if passes is None else pytest.approx(passes * each) for passes in in_passes
    ]
