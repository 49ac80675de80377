"""From checkpoint to JSON: interrupted, resumed, limited. In this process, on the embedded images."""

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rpat_cli.build import architecture_for, build_data
from rpat_cli.engine.checkpoint import save_checkpoint
from rpat_cli.errors import Interrupted
from rpat_cli.eval_run import EvalOptions, eval_run, is_evaluated, limited, load_model
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.listener import Listener
from rpat_cli.recipe_io import Layer, resolve

SUITE = parse_suite("fgsm,pgd-2")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = resolve([Layer("test", {"model": "small-cnn", "device": "cpu"})])
    data = build_data(recipe.data, recipe.seed)
    architecture = architecture_for(recipe, data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = architecture.build()
    content = {"recipe": recipe.model_dump(mode="json"), "architecture": architecture.to_dict(), "epoch": 1}
    path = tmp_path_factory.mktemp("model") / "net.pt"
    save_checkpoint(path, {**content, "model": model.state_dict()})
    return path


@pytest.fixture
def net(checkpoint: Path, tmp_path: Path) -> Path:
    path = tmp_path / "net.pt"
    path.write_bytes(checkpoint.read_bytes())
    return path


def measure(net: Path, on_progress: Callable[[Any], None] = lambda _: None, **options: Any) -> tuple[Any, str]:
    """The record that was written, without times, and what was said."""
    said: list[str] = []
    _, file = eval_run(
        net,
        SUITE,
        changes=options.pop("changes", ()),
        options=EvalOptions(**{"batch_size": 4, "limit": 200, "again": "rpat eval net.pt", **options}),
        listener=Listener(said.append, on_progress=on_progress),
    )
    return json.loads(file.read_text()), "".join(said)


def flags(record: Any) -> list[Any]:
    keys = ("label", "correct_after", "predicted", "broken_by", "distance", "forward", "backward")
    return [[result[key] for key in keys] for result in record["results"]]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_a_signal_keeps_the_chunks_and_the_next_start_goes_on(net: Path, number: int, code: int) -> None:
    handler = signal.getsignal(number)
    whole, said = measure(net)
    assert said == ""

    def stop(progress: Any) -> None:
        if (progress.label, progress.chunk) == ("pgd-2", 1):
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="Go on with: rpat eval net.pt") as caught:
        measure(net, stop)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) == handler
    (partial,) = (net.parent / "evals" / "partial").iterdir()
    known = len(partial.read_text().splitlines()) - 1
    assert 1 < known < 2 * math.ceil(sum(whole["clean_predicted"][i] == y for i, y in enumerate(whole["y"])) / 4)
    begun: list[int] = []
    resumed, said = measure(net, lambda progress: begun.append(progress.chunk))
    assert said == f"resuming: {known} chunks known"
    assert flags(resumed) == flags(whole)
    assert len(list((net.parent / "evals").glob("*.json"))) == 2  # the first result is still there
    assert not partial.parent.exists()


def test_another_threat_does_not_take_over_what_is_unfinished(net: Path) -> None:
    def stop(progress: Any) -> None:
        if progress.chunk:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        measure(net, stop)
    changes = [Layer("--eps", {"threat": {"eps": 0.01}})]
    record, said = measure(net, changes=changes)
    assert "had other threat; it is kept" in said
    clean = sum(a == b for a, b in zip(record["clean_predicted"], record["y"], strict=True))
    assert record["results"][0]["backward"] == clean  # every image was attacked anew
    assert "resuming: 1 chunk known" in measure(net)[1]


def test_chunks_of_a_version_with_other_records_are_not_taken_over(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(progress: Any) -> None:
        if progress.chunk:
            raise KeyboardInterrupt

    monkeypatch.setattr("rpat_cli.eval_run.RECORDS", 1)
    with pytest.raises(Interrupted):
        measure(net, stop)
    (partial,) = (net.parent / "evals" / "partial").iterdir()
    header, line = partial.read_text().splitlines()
    old = {key: value for key, value in json.loads(line).items() if key not in ("margin", "confidence")}
    partial.write_text(f"{header}\n{json.dumps(old)}\n")
    monkeypatch.undo()
    record, said = measure(net)
    assert "had other kind of records; it is kept" in said
    assert len(record["results"][0]["margin"]) == record["n"]


def test_a_limit_takes_the_same_share_of_every_class_and_is_on_record(net: Path) -> None:
    record, _ = measure(net, limit=30)
    assert (record["n"], record["limit"], record["data"]["n"]) == (30, 30, 30)
    assert [record["y"].count(label) for label in range(10)] == [3] * 10
    assert measure(net, limit=30)[0]["y"] == record["y"]
    record, _ = measure(net, limit=1000)
    assert (record["n"], record["limit"]) == (500, None)


@pytest.mark.parametrize("limit", [1, 7, 250, 491, 499])
def test_a_limit_of_any_size_is_kept(net: Path, limit: int) -> None:
    recipe = load_model(net).recipe
    test = build_data(recipe.data, recipe.seed).test
    split = limited(test, limit)
    counts = torch.bincount(split.labels, minlength=10)
    assert len(split) == limit
    assert counts.max() - counts.min() <= 1


def test_a_finished_evaluation_is_recognised(net: Path) -> None:
    saved = load_model(net)
    data = build_data(saved.recipe.data, saved.recipe.seed)
    options = EvalOptions(batch_size=4, limit=30)
    assert not is_evaluated(saved, data, SUITE, saved.recipe, options)
    measure(net, limit=30)
    assert is_evaluated(saved, data, SUITE, saved.recipe, options)
    assert not is_evaluated(saved, data, SUITE[:1], saved.recipe, options)
    (file,) = (net.parent / "evals").glob("*.json")
    file.write_text(file.read_text()[:100])
    assert not is_evaluated(saved, data, SUITE, saved.recipe, options)
