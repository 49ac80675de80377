"""A run means the same files from everywhere: relative paths are saved as absolute ones."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import rpat_cli as rpat
from rpat_cli.runs.resume import resume_run


def images(folder: Path) -> None:
    source = np.random.default_rng(0)
    for split in ("train", "test"):
        for channel, name in enumerate(("red", "green")):
            (folder / split / name).mkdir(parents=True)
            for number in range(12):
                pixels = source.integers(0, 60, (16, 16, 3), dtype=np.uint8)
                pixels[..., channel] += 120
                Image.fromarray(pixels).save(folder / split / name / f"{number:02d}.png")


def test_the_data_root_and_other_files_are_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(tmp_path / "set")
    shapes = {"images": np.zeros((8, 16, 16, 3), np.uint8), "labels": np.zeros(8, np.int64)}
    np.savez(tmp_path / "extra.npz", **shapes)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    data = {"name": "imagefolder", "root": "../set", "image_size": 16, "val_size": 4, "workers": 0}
    run = rpat.train(
        data={**data, "extra": {"path": "../extra.npz", "share": 0.5}},
        model="small-cnn",
        method="standard",
        epochs=1,
        batch_size=8,
        eval=["clean"],
        validation={"steps": 1},
        out="run",
    )
    saved = yaml.safe_load(run.recipe.read_text())["data"]
    assert saved["root"] == str(tmp_path / "set")
    assert saved["extra"]["path"] == str(tmp_path / "extra.npz")
    monkeypatch.chdir(tmp_path / "b")
    evaluation, _ = rpat.evaluate(tmp_path / "a" / "run", "clean")
    assert evaluation.n == 24
    resume_run(tmp_path / "a" / "run")


def test_a_root_that_was_not_used_is_saved_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fashion-mini comes with rpat: nobody's folders are named in its recipes."""
    monkeypatch.chdir(tmp_path)
    small = {"model": "small-cnn", "method": "standard", "epochs": 1, "eval": ["clean"]}
    run = rpat.train(
        data={"name": "fashion-mini", "val_size": 100}, validation={"steps": 1}, out="run", **small
    )
    assert yaml.safe_load(run.recipe.read_text())["data"]["root"] == "data"


def test_the_model_of_a_transfer_attack_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path)
    small = {
        "data": {"name": "fashion-mini", "val_size": 100},
        "model": "small-cnn",
        "method": "standard",
        "epochs": 1,
        "validation": {"steps": 1, "limit": 20},
    }
    rpat.train(eval=["clean"], out="first", **small)
    word = "transfer:first/checkpoints/last.pt@fgsm"
    entries = [f"clean,{word}", {"attack": word, "label": "mine"}]
    run = rpat.train(eval=entries, out="second", **small)
    whole = word.replace("first", str(tmp_path / "first"))
    saved = yaml.safe_load(run.recipe.read_text())["eval"]
    assert saved == [f"clean,{whole}", {"attack": whole, "label": "mine"}]
    (record,) = (json.loads(path.read_text()) for path in run.evals.glob("*.json"))
    assert record["results"][1]["settings"]["source"] == str(tmp_path / "first/checkpoints/last.pt")
    monkeypatch.chdir(tmp_path / "b")
    resume_run(tmp_path / "second")  # what was evaluated is known, however its path was written
    assert len(list((tmp_path / "second/evals").glob("*.json"))) == 1
    shutil.rmtree(tmp_path / "second/evals")
    resume_run(tmp_path / "second")
    assert len(list((tmp_path / "second/evals").glob("*.json"))) == 1
