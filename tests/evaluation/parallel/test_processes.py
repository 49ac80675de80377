"""Work shared among real processes: the same result, and every way in which they can fail."""

import copy
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from rpat_cli.attacks.threat import Threat
from rpat_cli.errors import RpatError
from rpat_cli.evaluation.evaluate import Evaluation, evaluate
from rpat_cli.evaluation.parallel.processes import Workers, count_jobs
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.recipe.plugins import load_plugins

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def one() -> Iterator[Workers]:
    """A single process: what several find is compared with what it finds, bit for bit."""
    with Workers(1, CPU) as one:
        yield one


@pytest.fixture(scope="module")
def two() -> Iterator[Workers]:
    """Two processes, each with one thread, as the single one; for tests that leave them alive."""
    with Workers(2, CPU) as two:
        yield two


@pytest.fixture
def doomed() -> Iterator[Workers]:
    with Workers(2, CPU) as workers:
        yield workers


def run(model: nn.Module, toy: Any, text: str, **options: Any) -> Evaluation:
    return evaluate(
        model, toy.x, toy.y, parse_suite(text), Threat("Linf", 0.1), **{"batch_size": 10, **options}
    )


def without_seconds(evaluation: Evaluation) -> list[dict[str, Any]]:
    stripped = []
    for result in evaluation.to_dict()["results"]:
        stages = [{**stage, "seconds": 0} for stage in result["stages"]]
        stripped.append({**result, "seconds": 0, "stages": stages})
    return stripped


def test_two_jobs_find_what_one_finds_and_serve_one_evaluation_after_another(
    toy: Any, one: Workers, two: Workers
) -> None:
    suite = "clean,fgsm,pgd-3x2,autoattack:apgd-ce+apgd-t"
    seen: list[float] = []
    alone = run(toy.model, toy, suite, workers=one)
    began = time.perf_counter()
    shared = run(
        toy.model, toy, suite, workers=two, on_progress=lambda p: seen.append(p.done / p.total)
    )
    elapsed = time.perf_counter() - began
    assert without_seconds(shared) == without_seconds(alone)
    seconds = sum(result.seconds for result in shared.results)
    assert 0 < seconds < elapsed  # of the clock, not of both processes
    assert alone.robust.value < alone.clean.value
    assert seen.count(1.0) == 4  # every stage came to its end
    other = copy.deepcopy(toy.model)
    with torch.no_grad():
        other[0].weight.mul_(0.5)
    assert without_seconds(run(other, toy, "fgsm", workers=two)) == without_seconds(
        run(other, toy, "fgsm", workers=one)
    )


def unpicklable(model: Any) -> nn.Module:
    model.lock = threading.Lock()
    return model  # type: ignore[no-any-return]


def unreadable_elsewhere(model: Any) -> nn.Module:
    """Its class lives in a module that only this process has."""
    module = ModuleType("made_here")
    module.Wrapper = type("Wrapper", (nn.Sequential,), {"__module__": "made_here"})  # type: ignore[attr-defined]
    sys.modules["made_here"] = module
    return module.Wrapper(model)  # type: ignore[no-any-return]


def test_a_model_that_cannot_travel_is_evaluated_here_and_a_remark_says_so(
    toy: Any, two: Workers
) -> None:
    for spoil in (unpicklable, unreadable_elsewhere):
        remarks: list[str] = []
        model = spoil(copy.deepcopy(toy.model))
        result = run(model, toy, "pgd-3", workers=two, on_remark=remarks.append)
        assert torch.equal(result.worst_case, run(toy.model, toy, "pgd-3").worst_case)
        (remark,) = remarks
        assert "cannot be sent to other processes" in remark


PLUGIN = """
from torch import nn

def grey(x):
    return x - 0.5

class Centered(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(grey(x))
"""


def test_a_model_of_a_plugin_file_travels(
    toy: Any, one: Workers, two: Workers, tmp_path: Path
) -> None:
    file = tmp_path / "plugin.py"
    file.write_text(PLUGIN)
    load_plugins([(str(file), "--plugin")])
    (module,) = (m for n, m in sys.modules.items() if n.startswith("rpat_plugin_plugin_"))
    model = module.Centered(toy.model)
    remarks: list[str] = []
    shared = run(model, toy, "pgd-3", workers=two, on_remark=remarks.append)
    assert remarks == []
    assert without_seconds(shared) == without_seconds(run(model, toy, "pgd-3", workers=one))


NOTEBOOK = """
import torch
from torch import nn
from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.parallel.processes import Workers
from rpat_cli.evaluation.suite import parse_suite

class Net(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1))

torch.manual_seed(0)
x, y = torch.rand(20, 1, 4, 4), torch.arange(20) % 3
with Workers(2, torch.device("cpu")) as workers:
    suite, threat = parse_suite("fgsm"), Threat("Linf", 0.1)
    options = {"batch_size": 5, "workers": workers, "on_remark": print}
    print(len(evaluate(Net(16, 3), x, y, suite, threat, **options).results))
"""


def test_a_class_defined_in_a_notebook_travels() -> None:
    """As in a notebook, the main module is in no file: workers cannot read it again."""
    command = [sys.executable, "-c", NOTEBOOK]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert (done.stdout.strip(), done.stderr) == ("1", "")


def test_a_worker_that_is_killed_is_an_error_at_once(toy: Any, doomed: Workers) -> None:
    def kill(_: Any) -> None:
        for worker in doomed._workers:
            os.kill(worker.process.pid or 0, signal.SIGKILL)

    with pytest.raises(RpatError, match=r"worker process .* died \(exit code -9, killed"):
        run(toy.model, toy, "pgd-20", workers=doomed, on_chunk=kill)


def test_an_interruption_ends_the_workers(toy: Any, doomed: Workers) -> None:
    processes = [worker.process for worker in doomed._workers]

    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(toy.model, toy, "pgd-20", workers=doomed, on_chunk=stop)
    doomed.close()
    assert all(process.exitcode == -signal.SIGKILL for process in processes)


@pytest.mark.parametrize(
    ("jobs", "suite", "samples", "count"),
    [
        (1, "autoattack", 500, 1),
        (3, "clean", 500, 3),
        (8, "autoattack", 250, 3),  # there are three chunks
        ("auto", "clean,pgd-20", 500, 1),  # done before a worker has started
        ("auto", "clean,autoattack", 500, 4),
        ("auto", "pgd-50x10", 500, 4),
        ("auto", "autoattack", 10_000, 4),
    ],
)
def test_auto_uses_the_cores_where_that_pays(
    monkeypatch: pytest.MonkeyPatch, jobs: Any, suite: str, samples: int, count: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert count_jobs(jobs, parse_suite(suite), CPU, samples=samples, chunk_size=100) == count
