"""What a run records of the networks that its method learns from."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rpat_cli.engine.networks import Networks
from rpat_cli.errors import ConfigError
from rpat_cli.loading import origins
from rpat_cli.loading.robustbench import entries
from rpat_cli.models.base import build_network
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.records.checkpoint import load_checkpoint, save_checkpoint
from rpat_cli.reports.gather import build_report
from rpat_cli.runs import build
from rpat_cli.runs.checkpoints import Origins
from rpat_cli.runs.resume import resume_run
from rpat_cli.runs.train import train_run


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a network was loaded, and a file hashed."""
    counts: Counter[str] = Counter()

    def counted(module: Any, name: str) -> None:
        function = getattr(module, name)

        def call(*args: Any, **settings: Any) -> Any:
            counts[name] += 1
            return function(*args, **settings)

        monkeypatch.setattr(module, name, call)

    counted(build, "load_model")
    counted(origins, "sha256_of")
    return counts


def test_a_run_keeps_the_hash_of_the_teacher_that_it_was_begun_with(
    some_net: Path, tmp_path: Path, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(some_net.parent)
    sha256 = hashlib.sha256(some_net.read_bytes()).hexdigest()
    given: dict[str, Any] = {"method": {"name": "rslad", "teacher": some_net.name}}
    given |= {"device": "cpu", "batch_size": 900, "epochs": 3, "on_collapse": "off"}
    given |= {"attack": {"steps": 1}, "validation": {"steps": 1, "limit": 20}}
    given |= {"data": {"val_size": 100}, "wa": {"start_epoch": 0}}
    folder = train_run(resolve([Layer("test", given)]), out=tmp_path / "run", stop_after=1)
    said = f"learns from {some_net.name} (sha256 {sha256[:12]}) as its teacher"
    assert folder.log.read_text().count(f"  {said}\n") == 1
    assert calls == {"load_model": 1, "sha256_of": 1}

    # Another file under the same name: the run goes on with the network that it has, from
    # wherever it is resumed.
    monkeypatch.chdir(tmp_path)
    teacher = load_checkpoint(some_net)
    zeros = {key: torch.zeros_like(value) for key, value in teacher["model"].items()}
    save_checkpoint(some_net, {**teacher, "model": zeros})
    resume_run(folder.path, stop_after=2)
    assert calls == {"load_model": 2, "sha256_of": 2}
    saved = {
        name: load_checkpoint(folder.checkpoint(name))
        for name in ("last", "best", "last_wa", "best_wa")
    }
    assert saved["last"]["epoch"] == 2
    for content in saved.values():
        assert content["recipe"]["method"]["teacher"] == str(some_net)
        assert content["learned_from"] == {"teacher": {"source": some_net.name, "sha256": sha256}}
    kept = saved["last"]["training"]["networks"]["teacher"]
    assert all(torch.equal(kept[key], old) for key, old in teacher["model"].items())
    assert said in build_report(folder).remarks
    log = folder.log.read_text()
    assert log.count(said) == 1
    assert log.count(f"note: {some_net.name} is not what it was when this run began") == 1


@pytest.mark.parametrize(
    "named", [{"method": {"name": "rslad", "teacher": "net.pt"}}, {"init": "net.pt"}]
)
def test_the_same_recipe_may_be_given_again_to_resume(
    named: dict[str, Any], some_net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a sweep does with its trials; the run itself has the absolute path."""
    monkeypatch.chdir(some_net.parent)
    given: dict[str, Any] = {**named, "device": "cpu", "batch_size": 900, "epochs": 2}
    given |= {"attack": {"steps": 1}, "validation": {"steps": 1, "limit": 20}}
    given |= {"data": {"val_size": 100}, "on_collapse": "off", "eval": ["clean"]}
    layers = [Layer("test", given)]
    folder = train_run(resolve(layers), out=tmp_path / "run", stop_after=1)
    resume_run(folder.path, changes=layers)
    assert load_checkpoint(folder.checkpoint("last"))["epoch"] == 2
    other = {**given, "init": None, "method": "pgd", "ra": True}
    with pytest.raises(ConfigError, match="cannot be changed when resuming"):
        resume_run(folder.path, changes=[Layer("test", other)])


def test_a_run_of_an_earlier_version_goes_on_without_a_record() -> None:
    """What is under the teacher's name by now may be another file than it was begun with."""
    record = {"source": "runs/a", "sha256": "01" * 32}
    loop: Any = SimpleNamespace(networks=Networks(origins={"teacher": lambda: record}))
    said: list[str] = []
    kept = Origins(None, {}, said.append)
    kept.on_start(loop)
    assert (kept.record, said) == ({}, [])
    kept = Origins(None, None, said.append)
    kept.on_start(loop)
    assert kept.record == {"learned_from": {"teacher": record}}
    assert said == ["learns from runs/a (sha256 010101010101) as its teacher"]


def test_the_hash_of_an_ensemble_is_of_all_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_two = next(entry for entry in entries() if entry.files > 1)
    of_two = replace(of_two, dataset="cifar10", threat="Linf", name="Two", key="", files=2)
    of_two = replace(of_two, network="small-cnn", normalization="0.25/0.5")
    monkeypatch.setattr("rpat_cli.loading.robustbench.entries", lambda: [of_two])
    folder = tmp_path / "cifar10" / "Linf"
    folder.mkdir(parents=True)
    net = build_network("small-cnn", (3, 32, 32), 10)
    first, second = (folder / name for name in of_two.file_names)
    for file in (first, second):
        torch.save(net.state_dict(), file)
    method = {"name": "rslad", "teacher": "robustbench:Two"}
    data = {"name": "cifar10", "root": str(tmp_path)}
    recipe = resolve([Layer("test", {"method": method, "data": data})])

    def recorded() -> str:
        shape: Any = SimpleNamespace(classes=10)
        networks = build.build_networks(recipe, shape, net, torch.device("cpu"))
        return str(networks.origins["teacher"]()["sha256"])

    before = recorded()
    assert before == recorded()
    torch.save({key: torch.zeros_like(value) for key, value in net.state_dict().items()}, second)
    assert before != recorded()


def test_weights_without_a_file_have_a_hash_of_their_own(tmp_path: Path) -> None:
    """Those of a library."""
    ones, again, twos = ({"weight": torch.full((2,), value)} for value in (1.0, 1.0, 2.0))
    no_file = tmp_path / "timm-x"
    assert origins.weights_sha256(no_file, ones) == origins.weights_sha256(no_file, again)
    assert origins.weights_sha256(no_file, ones) != origins.weights_sha256(no_file, twos)
