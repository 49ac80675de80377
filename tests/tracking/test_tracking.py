"""`--track`: what trackers get, what survives a kill, and that none of them can harm a training."""

import json
import os
import random
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tracked_runs import as_recorded, following, loop_at, record, rows_of, train
from typer.testing import CliRunner

from rpat_cli.cli import session
from rpat_cli.cli.app import app
from rpat_cli.errors import ConfigError, Mistakes
from rpat_cli.recipe.trust import trusting
from rpat_cli.records.metrics import append_metrics
from rpat_cli.tracking import TRACKERS, as_flags, chosen, load_announced
from rpat_cli.tracking.base import Tracked, Tracker


def test_csv_holds_each_epoch_once_after_a_kill_between_log_and_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, "csv", 0, 3)  # epoch 3 is logged, and no checkpoint of it
    with (run / "tracking/csv/metrics.csv").open("a") as file:
        file.write("4,0.1,0.")  # cut short
    train(run, "csv", 2, 5)
    rows = rows_of(run / "tracking/csv/metrics.csv")
    found = {
        int(row["epoch"]): {name: float(text) for name, text in row.items() if text} for row in rows
    }
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert found == {epoch: {"epoch": epoch, **each} for epoch, each in as_recorded(run).items()}
    assert rows[0]["validation/robust_acc"] == ""


class Fickle(Tracker):
    """Fails in the methods that are named, changes all that it should not, and notes the rest."""

    fails: tuple[str, ...] = ()
    calls: list[tuple[str, object]] = []  # noqa: RUF012

    def _called(self, method: str, what: object) -> None:
        print("noise on stdout")
        random.random()
        torch.rand(3)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.excepthook = print
        if method in self.fails:
            raise ValueError(f"no {method}")
        self.calls.append((method, what))

    def start(self, run: Tracked) -> None:
        self._called("start", run.epochs)

    def log(self, epoch: int, values: object) -> None:
        self._called("log", epoch)

    def results(self, epoch: int, values: object, files: object) -> None:
        self._called("results", values)

    def finish(self, status: object) -> None:
        self._called("finish", status)


@pytest.fixture
def fickle(monkeypatch: pytest.MonkeyPatch) -> type[Fickle]:
    monkeypatch.setitem(TRACKERS._entries, "fickle", Fickle)
    Fickle.calls.clear()
    monkeypatch.setattr(Fickle, "fails", ())
    return Fickle


@pytest.mark.parametrize("method", ["start", "log", "results", "finish"])
def test_a_tracker_that_fails_is_said_once(
    method: str, fickle: type[Fickle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fickle.fails = (method,)
    said: list[str] = []
    follower = following(tmp_path / "run", "fickle,csv", said)
    before = random.getstate(), torch.get_rng_state(), signal.getsignal(signal.SIGTERM)
    hook = sys.excepthook
    follower.on_start(loop_at(0))
    for epoch in (1, 2):
        follower.on_epoch_end(loop_at(epoch), record(epoch))
    follower.results(2, {}, [])
    follower.finish("finished")
    assert len([each for each in said if "fails: " in each]) == 1
    assert f"the tracker fickle fails: ValueError: no {method}" in said[0]
    assert "test_tracking.py:" in said[0]
    assert len(rows_of(tmp_path / "run/tracking/csv/metrics.csv")) == 2
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert (signal.getsignal(signal.SIGTERM), sys.excepthook) == (before[2], hook)
    assert capsys.readouterr().out == ""


def test_a_tracker_that_goes_on_failing_is_given_up(fickle: type[Fickle], tmp_path: Path) -> None:
    fickle.fails = ("log", "finish")
    said: list[str] = []
    follower = following(tmp_path / "run", "fickle", said)
    follower.on_start(loop_at(0))
    for epoch in (1, 2, 3):
        follower.on_epoch_end(loop_at(epoch), record(epoch))
    assert ["The run goes on without it" in each for each in said] == [False, True]
    fickle.fails = ()
    follower.on_epoch_end(loop_at(4), record(4))
    follower.results(4, {}, [])
    follower.finish("finished")
    assert (fickle.calls, len(said)) == ([("start", 0)], 2)


def test_what_a_tracker_missed_it_gets_later(fickle: type[Fickle], tmp_path: Path) -> None:
    follower = train(tmp_path / "run", "fickle", 0, 1)
    fickle.fails = ("log",)
    each = record(2)
    append_metrics(tmp_path / "run/metrics.jsonl", each)
    follower.on_epoch_end(loop_at(2), each)  # fails
    fickle.fails = ()
    follower.on_epoch_end(loop_at(3), record(3))
    assert fickle.calls == [("start", 0), ("log", 1), ("log", 2), ("log", 3)]
    # And one that does not rewind gets nothing twice where the third epoch is done again.
    fickle.calls.clear()
    train(tmp_path / "run", "fickle", 2, 4)
    assert fickle.calls == [("start", 2), ("log", 4)]


def test_a_tracker_that_comes_late_gets_the_epochs_before(
    fickle: type[Fickle], tmp_path: Path
) -> None:
    train(tmp_path / "run", "csv", 0, 2)
    train(tmp_path / "run", "fickle", 2, 3)
    assert fickle.calls == [("start", 0), ("log", 1), ("log", 2), ("log", 3)]


def test_folders_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run/tracking").mkdir(parents=True)
    (tmp_path / "run/tracking/csv").symlink_to(tmp_path / "elsewhere")
    said: list[str] = []
    following(tmp_path / "run", "csv", said).on_start(loop_at(0))
    assert "is a link" in said[0]
    assert not list((tmp_path / "elsewhere").iterdir())


def test_words_of_track() -> None:
    assert list(map(str, chosen(["csv,WandB:online", "csv"]))) == ["csv", "wandb:online"]
    assert as_flags(chosen("csv,wandb:online")) == " --track csv,wandb:online"
    with pytest.raises(ConfigError) as caught:
        chosen("tensorbord,wandb:onlin,csv,csv:x")
    text = str(caught.value)
    assert "tensorboard" in text
    assert "online" in text
    assert "cannot be combined with csv:x" in text
    with pytest.raises(ConfigError, match="csv takes no option"):
        chosen("csv:x")
    assert chosen(None) == ()
    for wrong in (5, [5]):
        with pytest.raises(ConfigError, match="names no trackers"):
            chosen(wrong)  # type: ignore[arg-type, unused-ignore]


def test_a_package_announces_a_tracker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "board_of_ours.py").write_text(
        "from rpat_cli.tracking.base import Tracker\n"
        "class Board(Tracker):\n"
        "    def start(self, run):\n"
        "        (run.folder / 'began').write_text(run.name)\n"
    )
    (tmp_path / "board_of_ours-1.dist-info").mkdir()
    (tmp_path / "board_of_ours-1.dist-info/METADATA").write_text("Name: board\nVersion: 1\n")
    (tmp_path / "board_of_ours-1.dist-info/entry_points.txt").write_text(
        "[rpat.trackers]\nboard = board_of_ours:Board\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(TRACKERS, "_entries", dict(TRACKERS._entries))
    load_announced.cache_clear()
    try:
        following(tmp_path / "run", "board").on_start(loop_at(0))
    finally:
        load_announced.cache_clear()
    assert (tmp_path / "run/tracking/board/began").read_text() == "a run"


PLUGIN = """
import random
import torch
from rpat_cli.tracking import TRACKERS
from rpat_cli.tracking.base import Tracker

class Shaky(Tracker):
    def log(self, epoch, values):
        random.random(), torch.rand(7)
        raise RuntimeError("the wire is cut")

TRACKERS.add("shaky", Shaky)
"""


def test_a_run_with_trackers_is_the_run_without(tmp_path: Path) -> None:
    (tmp_path / "shaky.py").write_text(PLUGIN)
    small = ["train", "-e", "2", "--set", "data.val_size=100", "--eval", "clean", "--method"]
    small += ["standard", "-b", "500", "--jobs", "1"]
    states = []
    for name, more in {
        "without": [],
        "with": ["--plugin", str(tmp_path / "shaky.py"), "--track", "shaky", "--track", "csv"],
    }.items():
        out = tmp_path / name
        done = CliRunner().invoke(app, [*small, "--out", str(out), *more])
        assert done.exit_code == 0, done.output
        states.append(torch.load(out / "checkpoints/last.pt", weights_only=True)["model"])
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    log = (out / "log.txt").read_text()
    assert log.count("the tracker shaky fails: RuntimeError: the wire is cut") == 1
    report = json.loads((out / "report.json").read_text())
    figures = {row["figure"]: row["value"] for row in rows_of(out / "tracking/csv/results.csv")}
    best = next(each for each in report["results"] if each["checkpoint"] == "best")
    assert float(figures["test/best/clean"]) == best["acc"]
    done = CliRunner().invoke(
        app, ["eval", str(out), "--attack", "fgsm", "--limit", "50", "--track", "csv", "--json"]
    )
    assert done.exit_code == 0, done.output
    figures = {row["figure"]: row["value"] for row in rows_of(out / "tracking/csv/results.csv")}
    assert float(figures["test/best/worst case"]) == json.loads(done.stdout)["robust_acc"]


class FakeWandb(SimpleNamespace):
    """The part of the module `wandb` that is used."""

    def __init__(self) -> None:
        super().__init__(inits=[], steps=[], summary={}, saved=[], code=None)

    def init(self, **settings: object) -> "FakeWandb":
        self.inits.append(settings)
        return self

    def log(self, values: dict[str, float], *, step: int) -> None:
        self.steps.append((step, values))

    def save(self, file: str, *, base_path: str, policy: str) -> None:
        self.saved.append(file)

    def finish(self, exit_code: int) -> None:
        self.code = exit_code


def test_wandb_is_offline_unless_told_and_goes_on_with_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    train(tmp_path / "run", "wandb", 0, 2).finish("stopped")
    train(tmp_path / "run", "wandb:online", 2, 3).finish("failed")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    train(tmp_path / "run", "wandb", 3, 3)
    assert [each["mode"] for each in fake.inits] == ["offline", "online", "disabled"]
    assert len({each["id"] for each in fake.inits}) == 1
    assert fake.inits[0]["config"] == {"method.name": "trades", "method.beta": 6.0, "seed": 0} | {
        "plugins": []
    }
    assert [step for step, _ in fake.steps] == [1, 2, 3]
    assert fake.steps[1][1] == as_recorded(tmp_path / "run")[2]
    assert fake.code == 1


def test_a_run_that_is_resumed_brings_its_plugins_tracker(tmp_path: Path) -> None:
    (tmp_path / "chime.py").write_text(
        "from rpat_cli.tracking import TRACKERS\n"
        "from rpat_cli.tracking.base import Tracker\n"
        "class Chime(Tracker):\n    pass\n"
        "TRACKERS.add('chime', Chime)\n"
    )
    (tmp_path / "recipe.yaml").write_text("plugins: [chime.py]\n")
    with pytest.raises(ConfigError, match="unknown tracker 'chime'"):
        chosen("chime")
    mistakes = Mistakes()
    session._trackers(mistakes, ["chime"], resume=str(tmp_path))
    with pytest.raises(ConfigError, match="which you have not named"):
        mistakes.check()
    with trusting(everything=True):
        (choice,) = session._trackers(Mistakes(), ["chime"], resume=str(tmp_path))
    assert choice.name == "chime"
