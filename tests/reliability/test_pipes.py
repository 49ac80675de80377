"""Pipes in place of the files that rpat opens by name: a pipe that nobody writes to is never waited
for. `tests/reliability/test_small_files.py` has those that a user names."""

import os
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

import rpat_cli as rpat
from rpat_cli.data.sources import File, Source
from rpat_cli.errors import DataError, RpatError, RunFolderError
from rpat_cli.evaluation.parallel.store import ChunkStore, key_of
from rpat_cli.records.regular import read_regular
from rpat_cli.sweep.engines.node import exclusive, start
from rpat_cli.sweep.engines.slurm import _lines_of, _result_in
from rpat_cli.sweep.expand import plan_sweep
from rpat_cli.sweep.folder import TrialFolder

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")


@pytest.fixture(autouse=True)
def _no_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Opening a pipe may wait for ever, in a call that only a signal ends."""

    def waited(number: int, frame: FrameType | None) -> None:
        raise AssertionError("it waits for a pipe")

    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


def test_chunks_of_the_same_evaluation() -> None:
    pipe(Path("partial", f"{key_of({'seed': 1})}.jsonl"))
    with pytest.raises(RunFolderError, match=r"cannot read .*it is a pipe"):
        ChunkStore.open(Path("partial"), {"seed": 1}, print)


def test_chunks_of_another_evaluation() -> None:
    pipe(Path("partial", "other.jsonl"))
    with pytest.raises(RunFolderError, match="it is a pipe"):
        ChunkStore.open(Path("partial"), {"seed": 1}, print)


def test_an_evaluation_of_a_model_in_memory() -> None:
    """The whole way, with a pipe where the chunks go."""
    pipe(Path("runs/external/Sequential/evals/partial/other.jsonl"))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(RunFolderError, match="it is a pipe"):
        rpat.evaluate(model, "clean", data="fashion-mini", limit=10)


@pytest.fixture
def trial() -> TrialFolder:
    Path("s.yaml").write_text("recipe: {epochs: 1}\ngrid: {batch_size: [1]}\n")
    return TrialFolder(next(iter(plan_sweep(Path("s.yaml")).trials)), Path("trial").absolute())


def test_the_files_of_a_trial(trial: TrialFolder) -> None:
    for path in (trial.log, trial.failure, trial.run.report, trial.run.metrics):
        pipe(path)
    assert trial.results() is None
    assert trial.earlier_failure() == ""
    assert trial.note_failure(1) == "failed with exit code 1"
    with pytest.raises(RunFolderError):
        trial.progress()


@pytest.mark.parametrize("name", ["lock", "log.txt"])
def test_the_lock_and_the_log_of_a_job(name: str) -> None:
    pipe(Path("trial", name))
    with pytest.raises(RunFolderError, match=r"cannot write trial/"):
        start(lambda: ("true",), Path("trial/log.txt"), {})


def test_a_lock_is_held_as_before() -> None:
    with exclusive(Path("trial/log.txt")) as lock:
        assert lock is not None
        with exclusive(Path("trial/log.txt")) as second:
            assert second is None


def test_what_a_slurm_job_has_left() -> None:
    outcome, reason = _result_in(pipe(Path("1_0_result.pkl")))
    assert outcome == "error"
    assert "it is a pipe" in reason
    assert _lines_of(pipe(Path("1_0_log.err"))) == []


class Payload:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("marker"),)


@pytest.mark.parametrize(
    "left", [Payload(), ("success", Payload()), ("success", "0"), "x", ("error",), ("success", 0)]
)
def test_of_a_pickled_result_nothing_is_run(left: Any) -> None:
    """A stranger's sweep folder may hold any pickle under the name of a result."""
    path = Path("1_0_result.pkl")
    path.write_bytes(pickle.dumps(left))
    found = _result_in(path)
    assert not Path("marker").exists()
    if left == ("success", 0):
        assert found == left
    else:
        assert found[0] == "error"
        assert "is no result of a trial" in found[1]


def test_the_journal_of_a_search() -> None:
    pytest.importorskip("optuna")
    from rpat_cli.sweep.search.optuna_search import _cut_partial_line

    with pytest.raises(OSError, match="it is a pipe"):
        _cut_partial_line(pipe(Path("journal.log")))


def test_the_files_of_a_data_set() -> None:
    from rpat_cli.data.base import LoadOptions

    source = Source("some-set", (File("some/part"),), (File("some.zip", "0" * 32),))
    options = LoadOptions(root=Path.cwd(), download=False)
    pipe(Path("some.zip"))
    with pytest.raises(DataError, match=r"some\.zip is a pipe"):
        source.obtain(options, lambda fetch: Path("some.zip").read_bytes())


def test_lists_and_suites_of_the_user() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    pipe(Path("list.txt"))
    with pytest.raises(RpatError, match="it is a pipe"):
        rpat.evaluate(model, "clean", data="fashion-mini", images="list.txt")


def test_devices_too() -> None:
    with pytest.raises(OSError, match="it is a device"):
        read_regular(Path("/dev/zero"))
