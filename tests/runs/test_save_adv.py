"""Adversarial examples on disk: what an independent script finds in the file, in three norms; read
back as an attack; interrupted; and files of strangers."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rpat_cli.errors import ConfigError, Interrupted
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.loading.load import load_model
from rpat_cli.recipe.layers import Layer
from rpat_cli.runs.evaluate import EvalOptions, eval_run
from rpat_cli.runs.listener import Listener

SUITE = parse_suite("fgsm,pgd-3")
EPS = {"Linf": 4 / 255, "L2": 0.4, "L1": 5.0}


def save(net: Path, out: Path, norm: str = "Linf", text: str = "fgsm,pgd-3", **more: Any) -> Any:
    listener = more.pop("listener", None)
    options = EvalOptions(**{"batch_size": 30, "limit": 100, "save_adv": out, **more})
    layer = Layer("test", {"threat": {"norm": norm, "eps": EPS[norm]}})
    suite = parse_suite(text)
    return eval_run(net, suite, changes=[layer], options=options, listener=listener)


@pytest.mark.parametrize("norm", list(EPS))
def test_numpy_and_the_bare_model_find_every_image_in_the_ball_and_the_accuracy(
    some_net: Path, tmp_path: Path, norm: str
) -> None:
    out = tmp_path / "adv.npz"
    evaluation, file = save(some_net, out, norm)
    # An independent check: numpy, the test images as they are shipped, and the model alone.
    with np.load(out, allow_pickle=False) as saved:
        images, labels, index = saved["images"], saved["labels"], saved["index"]
        predictions, attack = saved["predictions"], saved["attack"]
        assert str(saved["threat"]) == f"{norm}:{EPS[norm]!r}"
    assert (images.dtype, images.shape) == (np.float32, (100, 1, 28, 28))
    from rpat_cli.data import DATASETS
    from rpat_cli.data.base import LoadOptions

    test = DATASETS["fashion-mini"].load(LoadOptions(Path())).test
    clean = test.images.numpy()[index].astype(np.float64) / 255
    assert (test.labels.numpy()[index] == labels).all()
    delta = (images - clean).reshape(100, -1)
    size = np.linalg.norm(delta, ord={"Linf": np.inf, "L2": 2, "L1": 1}[norm], axis=1)
    assert (size <= EPS[norm] + 1e-5 * (784 if norm == "L1" else 1)).all()
    assert images.min() >= 0
    assert images.max() <= 1
    with torch.no_grad():
        predicted = load_model(some_net).model(torch.from_numpy(images)).argmax(1).numpy()
    assert (predicted == predictions).all()
    assert (predicted == labels).mean() == json.loads(file.read_text())["robust_acc"]
    assert ((predicted == labels) == evaluation.worst_case.numpy()).all()
    assert {"clean"} < set(attack) <= {"clean", "fgsm", "pgd-3"}
    # Read back it breaks the same images, alone; in another threat or on other images it is wrong.
    again, _ = save(some_net, tmp_path / "b.npz", norm, f"file:{out}")
    assert torch.equal(again.worst_case, evaluation.worst_case)
    assert again.results[0].label == "file:adv.npz"


def test_it_never_overwrites_and_fits_its_images_and_threat_only(
    some_net: Path, tmp_path: Path
) -> None:
    out = tmp_path / "adv.npz"
    save(some_net, out, limit=50)
    before = out.read_bytes()
    with pytest.raises(ConfigError, match="is not overwritten"):
        save(some_net, out)
    assert out.read_bytes() == before
    with pytest.raises(ConfigError, match="no example for"):
        save(some_net, tmp_path / "b.npz", text=f"file:{out}", limit=200)
    smaller = Layer("test", {"threat": {"norm": "Linf", "eps": 1 / 255}})
    with pytest.raises(ConfigError, match="outside of the threat"):
        eval_run(
            some_net,
            parse_suite(f"file:{out}"),
            changes=[smaller],
            options=EvalOptions(limit=50),
        )
    # A part of its images is a choice of them; a stranger's file is data, or one message.
    small, _ = save(some_net, tmp_path / "c.npz", text=f"file:{out}", limit=20)
    assert small.n == 20
    with np.load(out) as saved:
        arrays = dict(saved)
    pickled = {**arrays, "image_hash": np.array([{"a": 1}], dtype=object)}
    for number, wrong in enumerate(
        (pickled, {**arrays, "images": arrays["images"][:5]}, {"images": arrays["images"]})
    ):
        path = tmp_path / f"wrong{number}.npz"
        np.savez(path, **wrong)
        with pytest.raises(ConfigError):
            save(some_net, tmp_path / "d.npz", text=f"file:{path}")
    for content in (b"", b"PK nothing", before[:-40]):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="holds no adversarial examples"):
            save(some_net, tmp_path / "d.npz", text=f"file:{path}")
    with pytest.raises(ConfigError, match="there is no file"):
        save(some_net, tmp_path / "d.npz", text="file:nowhere.npz")


class Backwards:
    """A pool whose answers come in the wrong order."""

    def give(self, bench: Any) -> None:
        self._bench = bench

    def execute(self, tasks: Any) -> Any:
        return reversed(list(self._bench.attack_all(tasks)))


def assert_same_file(one: Path, other: Path) -> None:
    with np.load(one) as a, np.load(other) as b:
        assert a.files == b.files
        for name in a.files:
            assert np.array_equal(a[name], b[name]), name


def test_the_file_does_not_depend_on_the_order_of_the_answers(
    some_net: Path, tmp_path: Path
) -> None:
    save(some_net, tmp_path / "one.npz")
    save(some_net, tmp_path / "other.npz", ranks=Backwards())
    assert_same_file(tmp_path / "one.npz", tmp_path / "other.npz")


@pytest.mark.slow
def test_two_processes_write_the_same_file(some_net: Path, tmp_path: Path) -> None:
    save(some_net, tmp_path / "one.npz")
    save(some_net, tmp_path / "two.npz", jobs=2)
    assert_same_file(tmp_path / "one.npz", tmp_path / "two.npz")


def test_interrupted_the_file_is_the_same(some_net: Path, tmp_path: Path) -> None:
    seen: list[Any] = []

    def stop(progress: Any) -> None:
        seen.append(progress)
        if len(seen) == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    save(some_net, tmp_path / "whole.npz")
    with pytest.raises(Interrupted):
        save(some_net, tmp_path / "adv.npz", listener=Listener(on_progress=stop))
    assert not (tmp_path / "adv.npz").exists()
    said: list[str] = []
    save(some_net, tmp_path / "adv.npz", listener=Listener(said.append))
    assert said[0].startswith("resuming")
    assert not (some_net.parent / "evals" / "partial").exists()
    assert_same_file(tmp_path / "whole.npz", tmp_path / "adv.npz")
