"""Damaged checkpoints, ours and others': one sentence each, and never a traceback or "bug".

`RPAT_REPEATS=N` tries N times as many damages of each kind, `RPAT_SEED` says which.
"""

import copy
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import rpat_cli as rpat
from rpat_cli.errors import RpatError
from rpat_cli.models import MODELS
from rpat_cli.records.checkpoint import checksum
from rpat_cli.records.run_folder import RunFolder

REPETITIONS = 40 * int(os.environ.get("RPAT_REPEATS", "1"))
SEED = int(os.environ.get("RPAT_SEED", "0"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A training that was stopped after its first epoch."""
    return rpat.train(
        data={"name": "fashion-mini", "val_size": 100},
        model="small-cnn",
        method="standard",
        epochs=1,
        wa=True,
        eval=["clean"],
        validation={"steps": 1, "limit": 20},
        out=tmp_path_factory.mktemp("runs") / "r",
    )


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fails_in_one_sentence(action: Callable[[], object]) -> bool:
    """Whether it failed; a failure must be an `RpatError` of one line."""
    try:
        action()
    except RpatError as error:
        text = str(error)
        assert text
        assert "Traceback" not in text
        assert "bug" not in text
        assert len(text) < 2000
        return True
    return False


def with_bytes_changed(content: bytes, dice: random.Random) -> bytes:
    """Cut short, bits flipped, a stretch zeroed, doubled, or replaced by noise."""
    damage = bytearray(content)
    kind = dice.randrange(5)
    start = dice.randrange(len(damage))
    end = min(len(damage), start + dice.choice((1, 8, 512, 65536)))
    if kind == 0:
        return content[:start]
    if kind == 1:
        for _ in range(dice.choice((1, 3, 100))):
            damage[dice.randrange(len(damage))] ^= 1 << dice.randrange(8)
    elif kind == 2:
        damage[start:end] = bytes(end - start)
    elif kind == 3:
        damage[start:start] = damage[start:end]
    else:
        damage[start:end] = dice.randbytes(end - start)
    return bytes(damage)


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "theirs"])
def test_changed_bytes(ours: bool, run: RunFolder) -> None:
    file = Path("x.pt")
    if ours:
        shutil.copy(run.checkpoint("best"), file)
    else:
        torch.save({"state_dict": MODELS["small-cnn"](1, 28, 10).state_dict(), "n": 1}, file)
    whole, dice = file.read_bytes(), random.Random(SEED)
    failures = 0
    for _ in range(REPETITIONS):
        file.write_bytes(with_bytes_changed(whole, dice))
        keys = {} if ours else {"data": "fashion-mini"}
        failures += fails_in_one_sentence(lambda keys=keys: rpat.load_model(file, **keys))
    assert failures > REPETITIONS / 4


ODD_VALUES: list[Any] = [
    *(None, True, -1, 10**9, 2**70, float("nan"), 1e400, "", "x" * 5000, b"x", [], {}, [[[]]]),
    *({"a": {}}, [1, "2"], (1, 2, 3), {1: 2}, torch.ones(2), torch.ones(2, 2).to_sparse()),
    *(torch.zeros(1).expand(10**9), torch.tensor(3.0), torch.ones(2, dtype=torch.complex64)),
]


def places_in(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in nested mappings and lists."""
    items = content.items() if isinstance(content, dict) else ()
    if isinstance(content, list):
        items = list(enumerate(content))
    found = []
    for key, value in items:
        found += [(*path, key), *places_in(value, (*path, key))]
    return found


def with_a_value_changed(content: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    """One value removed, replaced, or joined by one that nobody knows."""
    changed = copy.deepcopy(content)
    by_depth = places_in(changed)
    depth = dice.choice(sorted({len(place) for place in by_depth})[:3])
    *way, last = dice.choice([place for place in by_depth if len(place) == depth])
    holder: Any = changed
    for key in way:
        holder = holder[key]
    kind = dice.randrange(4)
    if kind == 0 and isinstance(holder, dict):
        del holder[last]
    elif kind == 1 and isinstance(holder, dict):
        holder["from_the_future"] = copy.deepcopy(dice.choice(ODD_VALUES))
    else:
        holder[last] = copy.deepcopy(dice.choice(ODD_VALUES))
    return changed


def write_with_checksum(file: Path, content: dict[str, Any]) -> None:
    """As a later version of rpat, or somebody who means harm, would write it."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    try:
        rest["checksum"] = checksum(rest)
    except Exception:
        rest["checksum"] = "0" * 64
    torch.save(rest, file)


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize("name", ["best", "last"])
def test_changed_values_under_a_right_checksum(name: str, run: RunFolder) -> None:
    whole = torch.load(run.checkpoint(name), weights_only=True)
    dice = random.Random(SEED + 1)
    failures = 0
    for _ in range(REPETITIONS):
        write_with_checksum(Path("x.pt"), with_a_value_changed(whole, dice))
        failures += fails_in_one_sentence(lambda: rpat.load_model("x.pt"))
    assert failures > REPETITIONS / 10


def test_a_checkpoint_without_counters_of_batches_is_loaded(run: RunFolder) -> None:
    whole = torch.load(run.checkpoint("best"), weights_only=True)
    counters = [key for key in whole["model"] if key.endswith("num_batches_tracked")]
    without = {key: value for key, value in whole["model"].items() if key not in counters}
    write_with_checksum(Path("x.pt"), {**whole, "model": without})
    given, loaded = (
        rpat.load_model(file).model.state_dict() for file in (run.checkpoint("best"), "x.pt")
    )
    assert counters
    assert all(torch.equal(given[key], loaded[key]) for key in given if key not in counters)


@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_a_run_whose_last_checkpoint_was_changed_is_not_resumed(run: RunFolder) -> None:
    from rpat_cli.recipe.layers import Layer
    from rpat_cli.runs.resume import resume_run

    whole = torch.load(run.checkpoint("last"), weights_only=True)
    dice = random.Random(SEED + 2)
    failures = 0
    for number in range(max(3, REPETITIONS // 4)):
        folder = Path(str(number))
        shutil.copytree(run.path, folder)
        (folder / "checkpoints/last.prev.pt").unlink(missing_ok=True)
        content = {"training": whole["training"]}
        changed = {**whole, **with_a_value_changed(content, dice)}
        write_with_checksum(folder / "checkpoints/last.pt", changed)
        failures += fails_in_one_sentence(
            lambda folder=folder: resume_run(folder, changes=[Layer("test", {"epochs": 1})])
        )
    assert failures >= 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"depth": 18}, r"what this version of rpat does not know \(depth\). Please upgrade rpat"),
        ({"name": "resnet-2030"}, "unknown model 'resnet-2030'"),
        ({"classes": 10**9}, "the classes of its architecture is '1000000000'"),
        ({"shape": [1, 28]}, "the shape of its architecture"),
        ({"mean": ["a"]}, "the mean of its architecture"),
        ({"name": None}, "the name of its architecture"),
    ],
)
def test_an_architecture_of_another_version(
    change: dict[str, Any], said: str, run: RunFolder
) -> None:
    content = torch.load(run.checkpoint("best"), weights_only=True)
    content["architecture"] |= change
    write_with_checksum(Path("x.pt"), content)
    with pytest.raises(RpatError, match=said):
        rpat.load_model("x.pt")


@pytest.mark.parametrize("key", ["architecture", "model", "recipe", "epoch", "format"])
def test_a_missing_part_is_named(key: str, run: RunFolder) -> None:
    content = torch.load(run.checkpoint("best"), weights_only=True)
    del content[key]
    write_with_checksum(Path("x.pt"), content)
    with pytest.raises(RpatError, match=f"lacks {key}|not a checkpoint of rpat"):
        rpat.load_model("x.pt")
