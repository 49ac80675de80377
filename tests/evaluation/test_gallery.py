"""The few worst examples that are kept: the right ones, in any order of chunks, and readable data
alone."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.gallery import Gallery, worst_rows
from rpat_cli.evaluation.parallel.chunks import ChunkResult
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.evaluation.verify import predict
from rpat_cli.records.examples import (
    MOST,
    PER_CLASS,
    examples_path,
    read_arrays,
    read_examples,
    write_examples,
)


def kept_chunks(toy: Any) -> tuple[list[ChunkResult], Any]:
    chunks: list[ChunkResult] = []
    evaluation = evaluate(
        toy.model,
        toy.x,
        toy.y,
        parse_suite("fgsm,pgd-3"),
        Threat("Linf", 0.3),
        batch_size=7,
        on_chunk=chunks.append,
        keep=worst_rows,
    )
    return chunks, evaluation


def test_it_holds_the_worst_of_each_class_whatever_the_order(toy: Any, tmp_path: Path) -> None:
    chunks, evaluation = kept_chunks(toy)
    margins = torch.stack([result.margin for result in evaluation.results])  # type: ignore[misc]
    broken = torch.stack([~result.correct_after for result in evaluation.results])
    broken &= evaluation.clean_predicted == toy.y
    worst = margins.masked_fill(~broken, torch.inf).amin(0)
    expected = []
    for label in toy.y.unique():
        of_class = (toy.y == label).nonzero().flatten()
        best = sorted((float(worst[i]), int(i)) for i in of_class if worst[i] < torch.inf)
        expected += best[:PER_CLASS]
    expected = [index for _, index in sorted(expected)[:MOST]]
    assert len(expected) > 10
    for turn in range(3):
        random.Random(turn).shuffle(chunks)
        gallery = Gallery(toy.y, tmp_path / f"{turn}.npz")
        for chunk in chunks:
            gallery.add(chunk)
        number = torch.arange(len(toy.y)) + 100
        examples = gallery.examples(toy.x.__getitem__, evaluation.clean_predicted, number)
        assert (examples.index - 100).tolist() == expected
    # Each is an adversarial example, of the attack that is named.
    x, x_adv = toy.x[expected], torch.from_numpy(examples.x_adv)
    assert ((x_adv - x).abs() <= 0.3 + 1e-6).all()
    assert predict(toy.model, x_adv).tolist() == examples.predicted.tolist()
    assert (torch.from_numpy(examples.predicted) != toy.y[expected]).all()
    assert set(examples.attack) <= {"fgsm", "pgd-3"}
    # And it goes on where an interrupted run was.
    assert Gallery(toy.y, tmp_path / "0.npz").examples(
        toy.x.__getitem__, evaluation.clean_predicted, number
    ).margin.tolist() == pytest.approx(examples.margin.tolist())


def test_the_file_is_read_back_and_anything_else_is_none(toy: Any, tmp_path: Path) -> None:
    chunks, evaluation = kept_chunks(toy)
    gallery = Gallery(toy.y, tmp_path / "partial.npz")
    for chunk in chunks:
        gallery.add(chunk)
    number = torch.arange(len(toy.y))
    examples = gallery.examples(toy.x.__getitem__, evaluation.clean_predicted, number)
    file = tmp_path / "one.json"
    path = write_examples(file, examples)
    read = read_examples(file)
    assert read is not None
    assert np.array_equal(read.x_adv, examples.x_adv)
    assert read.attack.tolist() == examples.attack.tolist()
    arrays = read_arrays(path)
    assert arrays is not None
    content = path.read_bytes()
    for damage in (b"", b"no zip", content[:-30], content[:200] + b"\0" * 50 + content[250:]):
        path.write_bytes(damage)
        assert read_examples(file) is None or damage == content
    pickled = np.array([{"a": 1}], dtype=object)
    for change in ({"delta": pickled}, {"y": arrays["y"][:2]}, {"delta": arrays["delta"] * 9}):
        with examples_path(file).open("wb") as out:
            np.savez(out, **{**arrays, **change})
        assert read_examples(file) is None
    path.unlink()
    assert read_examples(file) is None
