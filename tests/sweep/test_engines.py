"""Every engine keeps the same promises: exit codes, logs, saving when cancelled, one process at a
time in a folder.

Slurm is submitit's local executor here, Ray a real one that is started for these tests.
"""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rpat_cli.errors import ConfigError, EngineError
from rpat_cli.sweep.engines import ENGINES, node
from rpat_cli.sweep.engines.base import Ended, Engine, Job
from rpat_cli.sweep.engines.local import Local
from rpat_cli.sweep.engines.node import Work, exclusive, run_until_cancelled, start
from rpat_cli.sweep.engines.on_ray import _connect
from rpat_cli.sweep.expand import plan_sweep
from rpat_cli.sweep.runner import SweepRunner, TrialState
from rpat_cli.sweep.sweep_file import read_sweep

FAKE = Path(__file__).parent / "fake_trial.py"

SETTINGS = {"local": {}, "slurm": {"cluster": "local", "cpus": 1, "gpus": 0}, "ray": {}}

Start = Callable[..., Engine]


def started(name: str, jobs: int = 2, **settings: object) -> Engine:
    return ENGINES[name].model_validate({"name": name, **SETTINGS[name], **settings}).start(jobs)


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """One Ray for all tests: it takes seconds to start."""
    started("ray")
    yield
    import ray

    ray.shutdown()


@pytest.fixture(params=list(ENGINES))
def name(request: pytest.FixtureRequest) -> str:
    if request.param == "ray":
        request.getfixturevalue("ray")
    return str(request.param)


@pytest.fixture
def engine(name: str) -> Engine:
    return started(name)


def shell(folder: Path, text: str) -> Job:
    """A job of a line of shell, with its log in a folder of its own."""
    return Job(folder.name, partial(tuple, ["sh", "-c", text]), folder / "log.txt")


def fake(folder: Path, epochs: int) -> Job:
    """A trial that takes an instant for each epoch, and keeps all promises of a real one."""
    folder.mkdir(exist_ok=True)
    recipe = {"epochs": epochs, "batch_size": 1, "seed": 0, "optimizer": {"lr": 0.1}, "threat": {}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, str(FAKE), str(folder / "recipe.yaml"), str(folder / "run")]
    return Job(folder.name, partial(tuple, command), folder / "log.txt")


def until(true: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def ended(engine: Engine, count: int = 1) -> dict[str, int]:
    """The exit codes of the next jobs to end."""
    found: list[Ended] = []
    until(lambda: (found.extend(engine.poll()), len(found) >= count)[1])
    return {item.name: item.exit_code for item in found}


def history(folder: Path) -> list[str]:
    path = folder / "history.txt"
    return path.read_text().splitlines() if path.exists() else []


def epochs(folder: Path) -> list[int]:
    return [int(line.split()[1]) for line in history(folder) if line.startswith("epoch")]


def test_exit_codes_and_logs_are_those_of_the_command(engine: Engine, tmp_path: Path) -> None:
    assert engine.slots == 2
    texts = {
        "good": "echo out; echo err >&2",
        "bad": "echo threads $OMP_NUM_THREADS; exit 3",
        "killed": "kill -9 $$",
    }
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "log.txt").write_text("earlier\n")
    for name, text in texts.items():
        if name == "killed":  # at most two at once
            codes = ended(engine, 2)
        assert engine.submit(shell(tmp_path / name, text))
    assert {**codes, **ended(engine)} == {"good": 0, "bad": 3, "killed": -signal.SIGKILL}
    assert (tmp_path / "good" / "log.txt").read_text() == "earlier\nout\nerr\n"
    assert (tmp_path / "bad" / "log.txt").read_text() == "threads 1\n"
    assert engine.poll() == []


def test_a_command_runs_where_the_sweep_was_called(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert engine.submit(shell(Path("here"), "echo done > here/made; exit 5"))
    assert ended(engine) == {"here": 5}
    assert (tmp_path / "here" / "made").read_text() == "done\n"


def test_cancelled_it_saves_and_the_next_one_goes_on(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    assert engine.submit(fake(folder, epochs=500))
    until(lambda: len(epochs(folder)) >= 2)
    engine.cancel("trial")
    assert ended(engine) == {"trial": 75}
    saved = len(epochs(folder))
    assert engine.submit(fake(folder, epochs=saved + 2))
    assert ended(engine) == {"trial": 0}
    assert epochs(folder) == list(range(1, saved + 3))
    assert "clash" not in history(folder)


def test_a_task_whose_worker_is_asked_to_end_saves_first(ray: None, tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    engine = started("ray")
    assert engine.submit(fake(folder, epochs=500))
    until(lambda: len(epochs(folder)) >= 2)
    worker = (
        Path(f"/proc/{(folder / 'lock').read_text()}/stat")
        .read_text()
        .rpartition(")")[2]
        .split()[1]
    )
    os.kill(int(worker), signal.SIGTERM)
    assert ended(engine) == {"trial": 75}


def test_a_task_of_a_sweep_in_the_background_can_be_cancelled(tmp_path: Path) -> None:
    (tmp_path / "log.txt").touch()
    program = (
        "import _thread, signal, threading, time; from pathlib import Path; from "
        "rpat_cli.sweep.engines.node import *\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts what is to stay in "
        "the background\n"
        "def interrupt():\n"
        "    while 'ready' not in Path('log.txt').read_text(): time.sleep(0.02)\n"
        "    _thread.interrupt_main()  # as Ray does\n"
        "threading.Thread(target=interrupt).start()\n"
        "command = ('sh', '-c', 'trap \"exit 75\" TERM; echo ready; for i in 1 2 3 4 5 6 7 8 9; "
        "do sleep 1; done')\n"
        "print(run_until_cancelled(Work(command, Path('log.txt').resolve(), {}, Path.cwd())))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout == "75\n"


def test_forced_it_ends_at_once(engine: Engine, tmp_path: Path) -> None:
    assert engine.submit(
        shell(tmp_path / "deaf", "trap '' TERM; echo $$; while true; do sleep 0.1; done")
    )
    log = tmp_path / "deaf" / "log.txt"
    until(lambda: log.exists() and log.read_text().endswith("\n"))
    engine.cancel("deaf")
    engine.cancel("deaf", force=True)
    assert ended(engine) == {"deaf": -signal.SIGKILL}
    status = Path(f"/proc/{int(log.read_text())}/stat")
    until(lambda: not status.exists() or status.read_text().split()[2] == "Z")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_before_it_knows_its_process_it_still_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    work = Work(("sh", "-c", "echo $$; sleep 60"), tmp_path / "log.txt", {}, tmp_path)

    def interrupted(*given: Any) -> Any:
        process = start(*given)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        return process

    monkeypatch.setattr(node, "start", interrupted)
    before = signal.signal(number, signal.default_int_handler)
    try:
        assert run_until_cancelled(work) == -signal.SIGTERM
        assert signal.getsignal(number) is signal.default_int_handler  # it is again what it was
    finally:
        signal.signal(number, before)


def test_a_folder_that_another_process_holds_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    job = shell(tmp_path / "held", "echo mine")
    with exclusive(job.log):
        assert not engine.submit(job)
    assert not job.log.exists()
    assert engine.submit(job)
    assert ended(engine) == {"held": 0}


def test_a_command_that_does_not_exist_is_an_error_or_a_failure(
    engine: Engine, tmp_path: Path
) -> None:
    """Where the job starts at once it raises; on a cluster it turns out later."""
    job = Job("none", partial(tuple, ["/no/such/program"]), tmp_path / "none" / "log.txt")
    try:
        engine.submit(job)
    except OSError:
        return
    [code] = ended(engine).values()
    assert code != 0
    assert "/no/such/program" in job.log.read_text()


SWEEP_OF_ONE = """
import sys, time
from functools import partial
from pathlib import Path
from typing import Any
from rpat_cli.sweep.engines import ENGINES, node
from rpat_cli.sweep.engines.base import Job
name, folder, *command = sys.argv[1:]
settings = {
    "local": {},
    "slurm": {"cluster": "local", "cpus": 1, "gpus": 0},
    "ray": {"address": "auto"},
}[name]
engine = ENGINES[name].model_validate({"name": name, **settings}).start(1)
engine.submit(Job("trial", partial(tuple, command), Path(folder) / "log.txt"))
time.sleep(60)
"""


@pytest.mark.slow
def test_when_the_sweep_is_killed_the_next_one_never_starts_a_second_process(
    name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "trial"
    job = fake(folder, epochs=40)
    first = subprocess.Popen(
        [sys.executable, "-c", SWEEP_OF_ONE, name, str(folder), *job.prepare()]
    )
    until(lambda: len(epochs(folder)) >= 2)
    first.kill()
    first.wait()
    second = started(name)
    until(lambda: second.submit(job))
    assert ended(second) == {"trial": 0}
    assert "clash" not in history(folder)
    assert sorted(set(epochs(folder))) == list(range(1, 41))


def test_a_runner_does_the_same_on_every_engine(
    name: str, runner: Callable[..., SweepRunner]
) -> None:
    sweep = runner("recipe: {epochs: 2}\ngrid: {batch_size: [10, 13], optimizer.lr: [0.1, 0.2]}")
    sweep.engine = started(name)
    table = sweep.run()
    assert [status.state for status in sweep.statuses.values()] == [TrialState.DONE] * 2 + [
        TrialState.FAILED
    ] * 2
    assert all("thirteen [images]" in reason for reason in table.failures.values())
    assert {row.label: row.n for row in table.rows}["batch_size=10, optimizer.lr=0.2"] == 1


# ---- slurm


@pytest.mark.slow
def test_out_of_time_it_saves_and_is_queued_again_by_the_cluster(tmp_path: Path) -> None:
    """The runner hears of it only when all is done: a job that both took up again would run
    twice."""
    folder = tmp_path / "trial"
    engine = started(
        "slurm", time=1, grace=56
    )  # it is asked to save after four seconds, and needs five
    assert engine.submit(fake(folder, epochs=100))
    assert ended(engine) == {"trial": 0}
    assert history(folder).count("start") >= 2  # on a busy machine it is out of time more often
    assert epochs(folder) == list(range(1, 101))
    assert "clash" not in history(folder)


@pytest.mark.slow
def test_out_of_time_too_often_it_fails_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    engine = started("slurm", time=1, grace=54, requeues=0)
    assert engine.submit(fake(folder, epochs=500))
    assert ended(engine) == {"trial": 1}
    assert (
        "timed-out too many times. It is saved and can be resumed"
        in (folder / "log.txt").read_text()
    )
    assert epochs(folder)[-1] < 500


def test_how_a_trial_goes_on_is_decided_again_on_the_node(
    runner: Callable[..., SweepRunner],
) -> None:
    """What a job takes along for the time after a requeue still looks into the folder."""
    [status] = runner("recipe: {epochs: 2}").statuses.values()
    prepare = pickle.loads(pickle.dumps(status.folder.prepare))
    assert prepare() == status.folder.command()
    assert status.folder.recipe.exists()


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster of programs that speak as Slurm's do; the folder of its jobs."""
    jobs, programs = tmp_path / "cluster", tmp_path / "bin"
    jobs.mkdir()
    programs.mkdir()
    for name in ("sbatch", "srun", "squeue", "scancel", "scontrol"):
        (programs / name).write_text(
            f'#!/bin/sh\nexec {sys.executable} {FAKE.parent}/fake_slurm.py {name} "$@"\n'
        )
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(jobs))
    monkeypatch.setattr("rpat_cli.sweep.engines.slurm_cluster.QUEUE_INTERVAL", 0.1)
    monkeypatch.setattr("rpat_cli.sweep.engines.slurm.CANCEL_INTERVAL", 0.1)
    monkeypatch.setattr("rpat_cli.sweep.engines.slurm_cluster.SlurmCommands.pause", 0.1)
    return jobs


def on_cluster(**settings: object) -> Engine:
    return started("slurm", **{"cluster": "slurm", "cpus": 3, "gpus": 0, **settings})


def send(jobs: Path, number: str) -> None:
    """What Slurm sends to the first job."""
    until((jobs / "1" / "step").exists)
    subprocess.run(["scancel", "--state=RUNNING", f"--signal={number}", "1"], check=True)


def test_settings_reach_sbatch(slurm: Path, tmp_path: Path) -> None:
    engine = on_cluster(
        partition="gpu",
        account="me",
        time=30,
        grace=45,
        gpus=2,
        memory=1.5,
        setup=["export A=1"],
        sbatch={"nice": 7},
    )
    assert engine.submit(shell(tmp_path / "trial", "echo $A $OMP_NUM_THREADS; exit 4"))
    assert ended(engine) == {"trial": 4}
    assert (tmp_path / "trial" / "log.txt").read_text() == "1 1\n"  # 3 cores for 2 ranks
    options = {
        line.removeprefix("#SBATCH --")
        for line in (slurm / "1" / "script").read_text().splitlines()
        if line.startswith("#SBATCH")
    }
    asked = {
        "partition=gpu",
        "account=me",
        "time=30",
        "gpus-per-node=2",
        "cpus-per-task=3",
        "mem=1536MB",
        "nice=7",
    }
    assert asked <= options
    # It is asked to save in time, may be queued again, and never runs next to another job of its
    # name.
    assert {"signal=USR2@45", "requeue", "dependency=singleton"} <= options


def test_a_job_of_a_sweep_that_was_killed_is_taken_over(slurm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    job = fake(folder, epochs=20)
    (slurm / "full").touch()
    assert on_cluster().submit(job)  # and no more is heard of this engine
    second = on_cluster()
    assert second.submit(job)
    (slurm / "full").unlink()
    assert ended(second) == {"trial": 0}
    assert len(list(slurm.glob("[0-9]*"))) == 1
    assert epochs(folder) == list(range(1, 21))


def test_a_trial_is_shown_as_queued_until_its_process_begins(
    slurm: Path, runner: Callable[..., SweepRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpat_cli.sweep.runner.QUEUE_INTERVAL", 0.0)
    (slurm / "full").touch()
    sweep = runner("recipe: {epochs: 60}", engine=on_cluster())
    seen: list[TrialState] = []
    sweep.on_change = lambda status: seen.append(status.state)
    sweep.on_tick = lambda _: (slurm / "full").unlink(missing_ok=True)
    sweep.run()
    assert seen == [TrialState.QUEUED, TrialState.RUNNING, TrialState.DONE]


def test_a_waiting_job_is_taken_from_the_queue_and_a_running_one_saves(
    slurm: Path, tmp_path: Path
) -> None:
    engine = on_cluster()
    assert engine.submit(fake(tmp_path / "running", epochs=500))
    until(lambda: epochs(tmp_path / "running"))
    (slurm / "full").touch()
    assert engine.submit(fake(tmp_path / "waiting", epochs=1))
    engine.cancel("running")
    engine.cancel("waiting")
    assert ended(engine, 2) == {"running": 75, "waiting": -signal.SIGKILL}
    assert history(tmp_path / "waiting") == []
    (slurm / "full").unlink()
    assert engine.submit(fake(tmp_path / "running", epochs=1))  # as a new job: the old one is over
    assert ended(engine) == {"running": 0}


def test_however_often_a_job_is_asked_to_stop_its_trial_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(node.os, "kill", lambda *sent: told.append(sent))
    attempt = node.Attempt(Work((), tmp_path / "log.txt", {}, tmp_path), b"")
    attempt._ask_to_save()  # before there is a process
    attempt.process = 42
    for _ in range(3):
        attempt._ask_to_save()
    assert told == [(42, signal.SIGTERM)]


def test_a_warning_of_the_cluster_queues_the_job_again(slurm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    trial = fake(folder, epochs=30)
    engine = on_cluster()
    assert engine.submit(trial)
    until(lambda: len(epochs(folder)) >= 2)
    send(slurm, "USR2")
    assert ended(engine) == {"trial": 0}
    assert history(folder).count("start") == 2
    assert epochs(folder) == list(range(1, 31))
    assert "clash" not in history(folder)


def test_a_job_that_the_cluster_preempts_and_queues_again_is_not_taken_up_by_the_sweep_too(
    slurm: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "trial"
    engine = on_cluster()
    assert engine.submit(fake(folder, epochs=30))
    until(lambda: len(epochs(folder)) >= 2)
    (slurm / "1" / "requeue").touch()
    send(slurm, "TERM")
    assert ended(engine) == {"trial": 0}
    assert history(folder).count("start") == 2
    assert epochs(folder) == list(range(1, 31))


@pytest.mark.parametrize("number", ["TERM", "USR2"])
def test_a_job_that_the_cluster_does_not_queue_again_is_taken_up_by_the_sweep(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    """It was pre-empted for good, or it wants to queue itself again and may not."""
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.setattr("rpat_cli.sweep.engines.slurm_cluster.LOST_AFTER", 0.5)
    folder = tmp_path / "trial"
    engine = on_cluster()
    assert engine.submit(fake(folder, epochs=30))
    until(lambda: len(epochs(folder)) >= 2)
    send(slurm, number)
    assert ended(engine) == {"trial": 75}
    assert engine.submit(fake(folder, epochs=30))
    assert ended(engine) == {"trial": 0}
    assert epochs(folder) == list(range(1, 31))


def test_a_job_that_the_cluster_kills_is_lost_and_its_last_words_are_kept(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpat_cli.sweep.engines.slurm_cluster.LOST_AFTER", 0.5)
    engine = on_cluster()
    assert engine.submit(shell(tmp_path / "trial", "sleep 30"))
    until((tmp_path / "trial" / "log.txt").exists)
    (tmp_path / "trial" / "slurm" / "1_0_log.err").write_text(
        "slurmstepd: error: Detected 1 oom_kill event\n"
    )
    send(slurm, "KILL")
    assert ended(engine) == {"trial": -signal.SIGKILL}
    assert (
        tmp_path / "trial" / "log.txt"
    ).read_text() == "slurmstepd: error: Detected 1 oom_kill event\n"


def test_a_cluster_that_refuses_says_why(slurm: Path, tmp_path: Path) -> None:
    engine = on_cluster()
    (tmp_path / "bin" / "sbatch").write_text(
        "#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n"
    )
    with pytest.raises(
        EngineError, match="Slurm rejected the job: sbatch: error: invalid partition"
    ):
        engine.submit(shell(tmp_path / "trial", "true"))
    (tmp_path / "bin" / "squeue").write_text(
        "#!/bin/sh\necho 'squeue: error: no controller' >&2\nexit 1\n"
    )
    with pytest.raises(EngineError, match="queue cannot be read: squeue: error: no controller"):
        on_cluster().submit(shell(tmp_path / "trial", "true"))


# ---- the section


def test_the_section_of_the_file_is_checked_with_all_its_mistakes(
    write: Callable[[str], Path],
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(write("engine:\n  name: slurm\n  partiton: gpu\n  time: soon\n  cpus: 0\n"))
    text = "\n".join(str(problem) for problem in caught.value.problems)
    assert len(caught.value.problems) == 3
    assert "sweep.yaml:3: engine.partiton: unknown key. Did you mean 'partition'?" in text
    assert "sweep.yaml:4: engine.time: should be a valid integer" in text
    assert "sweep.yaml:5: engine.cpus: should be greater than or equal to 1" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "engine: slrum",
            "unknown engine 'slrum'. Did you mean 'slurm'? Allowed: local, slurm, ray.",
        ),
        ("engine: {jobs: 3}", "must be local, slurm, ray, or a mapping with such a `name`"),
        (
            "engine: {name: ray, adress: auto}",
            "engine.adress: unknown key. Did you mean 'address'?",
        ),
        ("engine: {name: local, partition: gpu}", "Allowed: name, jobs, ranks."),
    ],
)
def test_each_mistake_in_the_section_is_reported(
    write: Callable[[str], Path], text: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(write(text))
    assert said in str(caught.value)


def test_the_section_is_a_name_or_settings_and_jobs_can_be_given(
    write: Callable[[str], Path],
) -> None:
    assert read_sweep(write("seeds: 1"))[0].engine.name == "local"
    slurm = read_sweep(write("engine: slurm"))[0].engine
    assert (slurm.slots(None), slurm.slots(3)) == (100, 3)
    ray = read_sweep(write("engine: {name: ray, address: auto, jobs: 7, resources: {big: 1}}"))[
        0
    ].engine
    assert (ray.slots(None), ray.slots(2)) == (7, 2)
    assert ray.capacity({"CPU": 8, "GPU": 3, "big": 2}) == 2
    assert ray.capacity({"CPU": 8, "GPU": 3}) == 0
    assert ENGINES["ray"](gpus=0.5).capacity({"CPU": 8, "GPU": 3}) == 6


def test_every_setting_is_described() -> None:
    for section in ENGINES.values():
        assert section.__doc__
        assert all(field.description for field in section.model_fields.values())


def test_without_a_cluster_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EngineError, match="Slurm is not available here"):
        started("slurm", cluster="slurm")


def test_a_ray_that_is_missing_or_too_small_is_reported(
    ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError, match=r"requests CPU 1000, GPU 0; the Ray cluster has CPU \d+"):
        ENGINES["ray"](cpus=1000).start(None)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(
        EngineError, match="there is no Ray cluster at '127.0.0.1:9'.*ray start --head"
    ):
        started("ray", address="127.0.0.1:9")


def test_ctrl_c_while_ray_begins_waits_until_it_has_begun(
    ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray crashes if an exception comes in the middle."""
    done: list[str] = []

    def init(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)
        done.append("begun")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: done.append("ended"))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _connect(None)  # of a sweep in the background: it goes on
        assert done == ["begun"]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt):
            _connect(None)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == ["begun", "begun", "ended"]


@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_package_is_reported_with_its_extra(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Exception, match=rf"pip install 'rpat\[{name}\]'"):
        started(name)


# ---- real trials

REAL = """
recipe: {epochs: 1, batch_size: 200, attack: {steps: 1}, validation: {steps: 1, limit: 50}}
grid: {ra: [false, true]}
eval: clean
"""


@pytest.mark.slow
def test_real_trials_are_the_same_on_every_engine(
    ray: None, write: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    plan = plan_sweep(write(REAL))
    weights: dict[str, dict[str, torch.Tensor]] = {}
    for name in ENGINES:
        slots = Local([{"OMP_NUM_THREADS": "1"}] * 2) if name == "local" else started(name)
        sweep = SweepRunner(plan, tmp_path / name, slots)
        sweep.run()
        assert [status.state for status in sweep.statuses.values()] == [TrialState.DONE] * 2, (
            sweep.table().failures
        )
        for trial, status in sweep.statuses.items():
            saved = torch.load(status.folder.run.checkpoint("last"), weights_only=True)["model"]
            same = weights.setdefault(trial, saved)
            assert saved.keys() == same.keys()
            assert all(torch.equal(saved[key], same[key]) for key in saved)
    first, second = weights.values()
    assert any(not torch.equal(first[key], second[key]) for key in first)
