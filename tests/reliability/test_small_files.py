"""Small files cannot take the machine: limits, one message, under two seconds."""

import os
import re
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import rpat_cli as rpat
from rpat_cli.cli.app import app
from rpat_cli.errors import RpatError
from rpat_cli.loading.load import load_model
from rpat_cli.recipe.layers import Layer, resolve
from rpat_cli.records.checkpoint import FORMAT, checksum, load_checkpoint, save_checkpoint

BILLIONS = "\n".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" if n else "a0: &a0 [x, x, x]"
    for n in range(12)
)
MERGED = "\n".join(
    f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}, *m{n - 1}]}}" if n else "m0: &m0 {x: 1}"
    for n in range(30)
)
CHAIN = "\n".join(f"c{n}: &c{n} [*c{n - 1}]" if n else "c0: &c0 [x]" for n in range(3000))

DOCUMENTS = {
    "aliases": BILLIONS,
    "merged aliases": MERGED,
    "a chain of aliases": CHAIN,
    "itself": "data: &d [*d]",
    "itself in a mapping": "data: &d {root: *d}",
    "depth": "[" * 5000,
    "depth in mappings": "{a: " * 3000,
    "depth in blocks": "\n".join(" " * n + "- " for n in range(400)),
    "digits": "epochs: " + "9" * 5000,
    "hexadecimal digits": "epochs: 0x" + "f" * 100_000,
    "base 60": "epochs: " + ":".join(["59"] * 5000),
    "larger than 64 bits": "epochs: 9223372036854775808",
    "size": "# " + "x" * 300_000,
    "a date": "epochs: 2026-99-99",
    "two documents": "--- {}\n--- {}\n",
}

EMPTY = "recipe: {model: small-cnn}\n"
SWEEPS = {
    "seeds": "seeds: 1000000000",
    "samples": "random: {samples: 100000000, axes: {optimizer.lr: {log: [1e-3, 1e-1]}}}",
    "grid": "grid: {" + ", ".join(f"k{n}: {list(range(50))}" for n in range(20)) + "}",
    "seeds times a grid": f"seeds: 9000\ngrid: {{batch_size: {list(range(1, 100))}}}",
    "trials": "search: {optuna: {trials: 1000000000, axes: {epochs: {integer: [1, 9]}}}}",
}


MISTAKES = {
    "values": "- 1\n" * 45_000,
    "attacks": "[" + "pgd-1," * 5000 + "]",
    "unknown attacks": "[" + ",".join(f"no-{n}" for n in range(9000)) + "]",
    "unknown keys": "\n".join(f"key{n}: 1" for n in range(9000)),
    "plugins": "plugins: [" + ",".join(f"p{n}.py" for n in range(9000)) + "]",
    "evaluations": "eval: [" + ",".join(f"no-{n}" for n in range(9000)) + "]",
    "extended files": "extends: [" + ",".join(f"no-{n}.yaml" for n in range(9000)) + "]",
    "a long tag": "a: !" + "x" * 100_000,
    "a long value": "epochs: " + "x" * 190_000,
}


@contextmanager
def at_once() -> Iterator[None]:
    """Two seconds, of this process: others may need the processor as well."""
    began = time.process_time()
    yield
    assert time.process_time() - began < 2


def command(*arguments: Any) -> None:
    app([str(argument) for argument in arguments], prog_name="rpat", standalone_mode=False)


def refused(*arguments: Any) -> str:
    with at_once(), pytest.raises(RpatError) as error:
        command(*arguments)
    message = str(error.value)
    assert len(message) < 1000
    return message


@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize("place", ["recipe", "suite", "sweep"])
def test_a_document_is_limited(tmp_path: Path, kind: str, place: str) -> None:
    file = tmp_path / "sent.yaml"
    file.write_text(DOCUMENTS[kind])
    arguments: dict[str, tuple[Any, ...]] = {
        "recipe": ("train", "--config", file, "--dry-run"),
        "suite": ("eval", "--attack", file),
        "sweep": ("sweep", file, "--dry-run"),
    }
    assert "sent.yaml" in refused(*arguments[place])


@pytest.mark.parametrize("kind", MISTAKES)
@pytest.mark.parametrize("place", ["recipe", "suite", "sweep"])
def test_mistakes_without_number_are_one_message(tmp_path: Path, kind: str, place: str) -> None:
    file = tmp_path / "sent.yaml"
    file.write_text(MISTAKES[kind])
    arguments: dict[str, tuple[Any, ...]] = {
        "recipe": ("train", "--dry-run", "--config"),
        "suite": ("eval", "--attack"),
        "sweep": ("sweep", "--dry-run"),
    }
    with at_once(), pytest.raises(RpatError) as error:
        command(*arguments[place], file)
    assert len(str(error.value)) < 20_000


@pytest.mark.parametrize("kind", ["aliases", "itself", "depth", "digits", "hexadecimal digits"])
def test_a_value_on_the_command_line_is_limited(kind: str) -> None:
    text = DOCUMENTS[kind]
    value = text if ":" not in text.split("\n")[0] else "{" + text.replace("\n", ", ") + "}"
    with at_once(), pytest.raises(RpatError):
        command("train", "--set", f"epochs={value}", "--dry-run")


@pytest.mark.parametrize("kind", SWEEPS)
def test_a_sweep_is_limited(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "sent.yaml"
    file.write_text(EMPTY + SWEEPS[kind])
    assert re.search("10,?000", refused("sweep", file, "--dry-run"))


def test_aliases_are_fine_as_such(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("optimizer: {lr: &x 0.05, weight_decay: *x}\n")
    from rpat_cli.recipe.layers import read_recipe

    assert resolve(read_recipe(file)).optimizer.weight_decay == 0.05


@pytest.mark.parametrize("key", ["data.image_size", "data.workers"])
def test_counts_that_take_memory_are_limited(key: str) -> None:
    section, _, name = key.partition(".")
    with at_once(), pytest.raises(RpatError, match="less than or equal to"):
        resolve([Layer("sent.yaml", {section: {"name": "imagefolder", name: 10**9}})])


# ---- pipes and devices


@pytest.fixture(params=["pipe", "zero", "folder"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What is no file, under a name that looks like one: reading it would never end."""
    if request.param == "zero":
        path = tmp_path / "zero"
        path.symlink_to("/dev/zero")
        return path
    path = tmp_path / request.param
    os.mkfifo(path) if request.param == "pipe" else path.mkdir()
    return path


def renamed(path: Path, suffix: str) -> Path:
    return path.rename(path.with_suffix(suffix))


@pytest.mark.parametrize(
    ("suffix", "arguments"),
    [
        (".yaml", ("train", "--dry-run", "--config")),
        (".yaml", ("eval", "--attack")),
        (".yaml", ("sweep", "--dry-run")),
        (".pt", ("eval", "--attack", "clean")),
        (".pt", ("eval", "--attack", "clean", "--data", "fashion-mini")),
        (".py", ("train", "--dry-run", "--plugin")),
        (".json", ("compare", "none.json")),
    ],
)
def test_only_files_are_read(special: Path, suffix: str, arguments: tuple[str, ...]) -> None:
    path = renamed(special, suffix)
    with at_once(), pytest.raises(RpatError):
        command(*arguments, path)
    with at_once(), pytest.raises(RpatError):
        command(
            *arguments[:1],
            *[str(path) if part == "none.json" else part for part in arguments[1:]],
            path,
        )


def test_a_model_file_and_a_file_of_images_are_files(special: Path) -> None:
    program = renamed(special, ".py")
    with at_once(), pytest.raises(RpatError):
        command("eval", "--model-file", f"{program}:build", "--data", "fashion-mini")
    images = renamed(program, ".npz")
    with at_once(), pytest.raises(RpatError):
        rpat.train(data={"name": "fashion-mini", "extra": {"path": str(images)}}, out="none")


def test_images_are_files(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "set" / split / "a").mkdir(parents=True)
        os.mkfifo(tmp_path / "set" / split / "a" / "1.png")
        (tmp_path / "set" / split / "a" / "2.png").symlink_to("/dev/zero")
    with at_once(), pytest.raises(RpatError):
        rpat.train(data={"name": "imagefolder", "root": str(tmp_path / "set")}, out="none")


def test_in_a_run_folder_pipes_are_not_read(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("checkpoints/best.pt", "checkpoints/last.pt", "metrics.jsonl", "evals/x.json"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(run / name)
    (run / "recipe.yaml").write_text("model: small-cnn\n")
    for arguments in (("eval", run, "-a", "clean"), ("compare", run, run)):
        with at_once(), pytest.raises(RpatError):
            command(*arguments)
    with at_once(), pytest.raises(RpatError):
        command("train", "--resume", run)


# ---- checkpoints


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "sent.pt"
    mean_and_std = {"mean": [0.5], "std": [0.5]}
    content = {
        "recipe": {"model": "small-cnn"},
        "architecture": {"name": "small-cnn", "shape": [1, 28, 28], "classes": 10, **mean_and_std},
        "epoch": 1,
    }
    weights = load_weights_of("small-cnn")
    save_checkpoint(path, {**content, "model": weights})
    assert load_model(path)
    return path


def load_weights_of(name: str) -> dict[str, Any]:
    from rpat_cli.models.base import build_model

    model = build_model(name, shape=(1, 28, 28), classes=10, mean=(0.5,), std=(0.5,))
    return model.state_dict()


@pytest.mark.parametrize(
    "claim",
    [
        {"classes": 10**9},
        {"classes": 10**15},
        {"classes": 900_000},
        {"shape": [10**9, 28, 28]},
        {"shape": [4096, 28, 28]},
        {"name": "wrn-34-10", "shape": [3, 32, 32], "classes": 10**8},
        {"mean": [0.5] * 10**5},
    ],
    ids=str,
)
def test_an_architecture_takes_no_more_than_its_weights(
    checkpoint: Path, claim: dict[str, Any]
) -> None:
    content = load_checkpoint(checkpoint)
    content["architecture"] |= claim
    save_checkpoint(checkpoint, content)
    with at_once(), pytest.raises(RpatError, match=r"sent\.pt"):
        load_model(checkpoint)


def bombs() -> dict[str, Any]:
    nested: list[Any] = ["x"]
    for _ in range(12):
        nested = [nested] * 10
    itself: list[Any] = []
    itself.append(itself)
    deep: Any = "x"
    for _ in range(100):
        deep = [deep]
    one = torch.zeros(1)
    return {
        "a tensor of a terabyte": {"head.weight": one.expand(10**12)},
        "many tensors of a gigabyte": {f"layer.{n}": one.expand(2**28) for n in range(2000)},
        "nested lists": {"head.weight": one, "more": nested},
        "a list in itself": {"head.weight": one, "more": itself},
        "a deep list": {"head.weight": one, "more": deep},
        "a number of a million digits": {"head.weight": one, "more": 1 << 4_000_000},
    }


@pytest.mark.parametrize("kind", bombs())
@pytest.mark.parametrize("is_ours", [True, False])
def test_a_checkpoint_takes_no_more_than_it_stores(
    tmp_path: Path, kind: str, is_ours: bool
) -> None:
    path = tmp_path / "sent.pt"
    bomb = bombs()[kind]
    ours = {"format": FORMAT, "architecture": {}, "recipe": {}, "epoch": 1, "checksum": ""}
    torch.save({**ours, "model": bomb} if is_ours else {"state_dict": bomb, **bomb}, path)
    with at_once(), pytest.raises(RpatError, match=r"sent\.pt"):
        rpat.load_model(path, data="fashion-mini")


def test_a_compressed_checkpoint_is_not_unpacked_without_end(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain.pt", tmp_path / "sent.pt"
    torch.save({"head.weight": torch.zeros(2**26)}, plain)
    with (
        zipfile.ZipFile(plain) as archive,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    assert path.stat().st_size < 2**20
    with at_once(), pytest.raises(RpatError, match=r"sent\.pt unpacks to 0\.3 GiB"):
        rpat.load_model(path, data="fashion-mini")


def test_an_evaluation_that_is_nested_without_end(tmp_path: Path) -> None:
    path = tmp_path / "sent.json"
    path.write_text("[" * 100_000)
    assert "sent.json" in refused("compare", path, path)


def test_a_large_honest_checkpoint_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.pt"
    shared = torch.zeros(2**20)
    save_checkpoint(path, {"model": {str(n): shared for n in range(4)}, "x": list(range(10**5))})
    assert checksum(load_checkpoint(path)["model"])
