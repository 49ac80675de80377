"""Two and three processes in one training: the same state in all of them, and that of one process
where the mathematics say so."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks_at_work import COMPARED, comparable, flags, resumed, trained

from rpat_cli.engine.distributed import ALONE, Ranks, parts_of
from rpat_cli.errors import ConfigError

HERE = Path(__file__).parent


def at_work(count: int, folder: Path) -> list[dict[str, Any]]:
    """What each of so many ranks has found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    paths = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / "ranks_at_work.py"), str(folder)],
            env={**os.environ, **common, "RANK": str(rank), "PYTHONPATH": paths},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, "\n".join(said)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return at_work(2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("key", [key for key in COMPARED if key != "norm"])
def test_without_batchnorm_two_ranks_train_as_one_process_does(two: Any, key: str) -> None:
    losses, weights = trained(ALONE, **COMPARED[key])
    shared_losses, shared_weights = two[0][key]
    assert shared_losses == pytest.approx(losses, abs=1e-5)
    assert largest_difference(weights, shared_weights) < 1e-5
    assert losses[0] - losses[-1] > 1e-3  # something was learned


def test_with_batchnorm_the_losses_of_two_ranks_differ_a_little_from_those_of_one(two: Any) -> None:
    losses, _ = trained(ALONE, norm=True)
    shared_losses, _ = two[0]["norm"]
    differences = [abs(a - b) for a, b in zip(losses, shared_losses, strict=True)]
    assert 1e-5 < max(differences) < 0.5  # statistics of 4 images, not of 8


def test_all_ranks_end_with_the_same_bits_each_time(two: Any) -> None:
    first, second = two
    assert first.keys() == second.keys()
    for key in COMPARED:
        assert first[key][0] == second[key][0]
        assert largest_difference(first[key][1], second[key][1]) == 0
    assert first["again"][0] == first["norm"][0]
    assert largest_difference(first["again"][1], first["norm"][1]) == 0


def test_every_method_with_everything_leaves_one_state_in_all_ranks(two: Any) -> None:
    first, second = two
    assert len(first["one step"]) > 25
    assert first["one step"] == second["one step"]
    assert first["extra"] == second["extra"]


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_before_the_step(two: Any) -> None:
    for rank in two:
        message, spared = rank["divergence"]
        assert "diverged in epoch 1, step 2: odd is nan" in message
        assert spared


def test_a_gradient_that_only_one_rank_has_reaches_all(two: Any) -> None:
    for rank in two:
        assert rank["gradients"] == [[2.0], [1.0], None]


def test_a_float16_overflow_on_one_rank_is_left_out_by_all(two: Any) -> None:
    for rank in two:
        assert rank["scaled"] == (512.0, True)


def test_a_shared_validation_finds_what_one_process_finds(two: Any) -> None:
    alone = flags(ALONE)
    for rank in two:
        assert rank["flags"] == alone


def test_what_two_ranks_began_one_process_ends(two: Any) -> None:
    _, uninterrupted = trained(ALONE)
    assert largest_difference(resumed(ALONE, two[1]["stopped"]), uninterrupted) < 1e-5


@pytest.mark.slow
def test_what_two_ranks_began_three_end(two: Any, tmp_path: Path) -> None:
    torch.save(two[0], tmp_path / "before.pt")
    three = at_work(3, tmp_path)
    _, uninterrupted = trained(ALONE)
    assert largest_difference(three[2]["resumed"], uninterrupted) < 1e-5
    for key in ("plain", "awp"):
        assert three[0][key][0] == pytest.approx(trained(ALONE, **COMPARED[key])[0], abs=1e-5)
    assert three[0]["one step"] == three[1]["one step"] == three[2]["one step"]
    shutil.rmtree(tmp_path)


def test_the_passes_of_all_ranks_are_counted(two: Any) -> None:
    loop = comparable(ALONE)
    loop.epochs = 1
    assert loop.run()
    (recorder,) = loop.callbacks
    alone = recorder.epochs[0]  # type: ignore[attr-defined]
    assert (alone.ranks, alone.forward) == (1, 3 * 4)  # three steps: 3 of the attack, 1 of the loss
    assert two[0]["stopped"]["passes"] == [2 * 2 * 4, 2 * 2 * 4]


def test_every_image_of_a_batch_is_one_ranks() -> None:
    assert parts_of(8, 3, Ranks(0, 2)) == [3, 3, 2]
    for count in (2, 3, 7, 8):
        slices = [list(Ranks(rank, 3).slice_of(count)) for rank in range(3)]
        assert sorted(sum(slices, [])) == list(range(count))


def test_a_batch_with_too_few_images_is_refused_before_anybody_waits() -> None:
    with pytest.raises(ConfigError, match=r"parts of 2 images cannot be shared by 3 processes"):
        parts_of(8, 3, Ranks(0, 3))
    with pytest.raises(ConfigError, match=r"a batch of 2 images cannot be shared by 4"):
        parts_of(2, 1, Ranks(1, 4))
