"""Slurm's commands on one machine, as far as submitit and the sweep use them: `python fake_slurm.py
COMMAND ...`.

A job is a folder under FAKE_SLURM: `script`, `name`, `batch` (the process that runs the script),
`step` (the one that signals go to), `requeue` if it is to run once more. While FAKE_SLURM/full
exists, jobs wait.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(os.environ["FAKE_SLURM"])


def sbatch(script: str) -> None:
    number = len(list(ROOT.glob("[0-9]*"))) + 1
    job = ROOT / str(number)
    job.mkdir()
    text = Path(script).read_text()
    (job / "script").write_text(text)
    name = next(line for line in text.splitlines() if line.startswith("#SBATCH --job-name="))
    (job / "name").write_text(name.partition("=")[2])
    batch = subprocess.Popen(
        [sys.executable, __file__, "batch", str(number)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    (job / "batch").write_text(str(batch.pid))
    print(f"Submitted batch job {number}")


def batch(number: str) -> None:
    job = ROOT / number
    while (ROOT / "full").exists():
        time.sleep(0.05)
    for restarts in range(10):
        (job / "requeue").unlink(missing_ok=True)
        env = {**os.environ, "SLURM_JOB_ID": number, "SLURM_RESTART_COUNT": str(restarts)}
        subprocess.run(["bash", str(job / "script")], env=env, check=False)
        if not (job / "requeue").exists():
            return


def srun(*arguments: str) -> None:
    job = os.environ["SLURM_JOB_ID"]
    words = [word.replace("%j", job).replace("%t", "0") for word in arguments]
    for option, stream in (("--output", 1), ("--error", 2)):
        path = words[words.index(option) + 1]
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    (ROOT / job / "step").write_text(str(os.getpid()))
    command = words[words.index("--error") + 2 :]
    os.execvp(command[0], command)


def squeue(*arguments: str) -> None:
    assert "--format=%i %j" in arguments
    for job in ROOT.glob("[0-9]*"):
        if alive(job):
            print(job.name, (job / "name").read_text())


def alive(job: Path) -> bool:
    status = Path("/proc") / (job / "batch").read_text() / "stat"
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def scancel(*arguments: str) -> None:
    job = ROOT / arguments[-1]
    number = next(
        (word.partition("=")[2] for word in arguments if word.startswith("--signal=")), None
    )
    runs = (job / "step").exists()
    if "--state=PENDING" in arguments and not runs:
        os.kill(int((job / "batch").read_text()), signal.SIGKILL)
    if "--state=RUNNING" in arguments and runs:
        os.kill(int((job / "step").read_text()), signal.Signals["SIG" + str(number)])


def scontrol(_: str, number: str) -> None:
    (ROOT / number / "requeue").touch()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
