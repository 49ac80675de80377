"""`rpat bench`, from a recipe to figures, files and pages."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import load_recipe

from rpat_cli.attacks.threat import Threat
from rpat_cli.benchmark.evaluation import bench_evaluation
from rpat_cli.benchmark.results import Benchmark, machine, record
from rpat_cli.benchmark.show import NAMES, page, tables
from rpat_cli.benchmark.training import TrainingTimes, bench_training
from rpat_cli.cli import bench_session, console
from rpat_cli.errors import ConfigError, Interrupted
from rpat_cli.recipe.layers import layers_of

SMALL = ["data.val_size=100", "batch_size=4", "attack.steps=2"]


def times_of(*assignments: str) -> TrainingTimes:
    return bench_training(load_recipe(assignments=[*SMALL, *assignments]), seconds=0, least=1)


@pytest.fixture(scope="module")
def times() -> TrainingTimes:
    return times_of("method=trades", "ra=true")


def test_a_training_has_its_contestants_floors_and_ratios(times: TrainingTimes) -> None:
    rows = {row.name: row for row in times.rows}
    assert list(rows) == ["published", "exact", "floor of exact", "fast", "floor of fast"]
    # TRADES: the clean prediction; two steps; f(x), f(x'), f(x_mix).
    assert times.passes == {"forward": 1, "input": 2, "weights": 3}
    assert times.batch == (4, 1, 28, 28)
    assert times.steps_per_epoch == 1900 // 4
    exact = rows["exact"]
    floor, published = rows["floor of exact"], rows["published"]
    assert exact.to_floor.median == pytest.approx(exact.seconds.median / floor.seconds.median)
    assert exact.speedup.median == pytest.approx(published.seconds.median / exact.seconds.median)
    assert exact.seconds_per_epoch == pytest.approx(475 * exact.seconds.median)
    assert exact.images_per_second == pytest.approx(4 / exact.seconds.median)
    assert sum(exact.shares.values()) == pytest.approx(1)
    assert set(published.shares) == {"data"}
    assert (exact.precision, rows["fast"].precision) == ("fp32", "bf16")


def test_what_the_published_code_does_not_have_is_left_out_and_said() -> None:
    found = times_of("method=standard")
    assert found.rows[0].name == "exact"
    assert found.rows[0].speedup is None
    assert "no published order of work of standard" in found.remarks[0]


def test_a_teacher_is_part_of_the_floor() -> None:
    assert times_of("method=rebat").passes == {"forward": 1, "input": 2, "weights": 1}


@pytest.mark.usefixtures("small_budgets")
def test_an_evaluation_agrees_with_the_library_at_its_batch_size(
    toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The library without a seed takes the time: at this one, two flags differ.
    monkeypatch.setattr("pyautoattack.autoattack.time.time", lambda: 91)
    found = bench_evaluation(toy.model, toy.x, toy.y, Threat("Linf", 0.1), batch_size=48)
    rows = {row.name: row for row in found.rows}
    assert list(rows) == ["pyautoattack", "exact", "fast"]
    assert rows["exact"].differing == 0
    assert rows["exact"].robust_acc == rows["pyautoattack"].robust_acc
    assert rows["pyautoattack"].speedup.median == 1
    assert found.stages["exact"][0]["name"] == "apgd-ce"
    assert all(parameter.grad is None for parameter in toy.model.parameters())


def test_a_record_holds_machine_and_figures_and_overwrites_none(
    times: TrainingTimes, tmp_path: Path
) -> None:
    done = Benchmark(machine(), recipe={"model": "small-cnn"}, training=times)
    files = [record(done, tmp_path / "here") for _ in range(2)]
    assert [file.name for file in files] == ["here.json", "here-2.json"]
    content = json.loads(files[0].read_text())
    assert content["format"] == 1
    assert {"cpu", "cores", "threads", "torch", "load", "native_bf16"} <= content["machine"].keys()
    assert content["training"]["rows"][1]["seconds"]["n"] == 1
    assert content["evaluation"] is None


def test_tables_fit_in_80_columns_and_the_page_shows_every_contestant(
    times: TrainingTimes,
) -> None:
    recipe = load_recipe(assignments=SMALL).model_dump(mode="json")
    done = Benchmark(machine(), recipe=recipe, training=times)
    with console.out.capture() as captured:
        for part in tables(done):
            console.out.print(part, width=80)
    text = captured.get()
    assert "…" not in text
    assert "bookkeeping, %" in text
    html = page(done, "rpat bench --method '<trades>'")
    for row in times.rows:
        assert f">{NAMES[row.name]}<" in html
    assert len(re.findall(r"<rect", html)) == len(times.rows)
    assert "&lt;trades&gt;" in html


def test_nothing_to_measure_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="leaves nothing to measure"):
        bench_session.bench(
            [], bench_session.Wanted(training=False), record_as=None, page_file=None, as_json=True
        )


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(bench_session, "bench_training", interrupted)
    with pytest.raises(Interrupted, match="nothing was written") as stop:
        bench_session.bench(
            layers_of(assignments=SMALL),
            bench_session.Wanted(),
            record_as=tmp_path / "here",
            page_file=tmp_path / "page.html",
            as_json=False,
        )
    assert stop.value.exit_code == 130
    assert not list(tmp_path.iterdir())
    assert torch.is_grad_enabled()
