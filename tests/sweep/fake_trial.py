"""A trial of a fraction of a second that keeps the promises of `rpat train`: checkpoints, resuming,
exit codes, report.

`python fake_trial.py RECIPE RUN [UNTIL]`, to pause after epoch UNTIL. What happens is in the
recipe's batch size: 13 raises, 14 is killed by the system, 15 meets a full disk, 16 fails the first
time only, 17 ends without a report, 18 learns the faster, the higher its learning rate, 19 waits in
epoch 3, the first time, until it is asked to save. Each start, epoch and end is a line of
`history.txt` next to the run.
"""

import errno
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

import yaml

EPOCH = 0.05


def main(recipe_file: Path, run: Path, until: int | None = None) -> None:
    history = (recipe_file.parent / "history.txt").open("a", buffering=1)
    alone = (recipe_file.parent / "alone").open("w")
    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        history.write("clash\n")
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    recipe = yaml.safe_load(recipe_file.read_text())
    history.write("start\n")
    run.mkdir(exist_ok=True)
    (run / "recipe.yaml").write_text(recipe_file.read_text())
    misbehave(recipe["batch_size"], recipe_file.parent)
    metrics = run / "metrics.jsonl"
    done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    pace = recipe["optimizer"]["lr"] if recipe["batch_size"] == 18 else 0.1
    for epoch in range(done + 1, (until or recipe["epochs"]) + 1):
        time.sleep(EPOCH)
        while recipe["batch_size"] == 19 and epoch == 3 and not done and not stopping:
            time.sleep(0.01)
        validation = {"clean_acc": 0.5, "robust_acc": pace * epoch}
        line = json.dumps(epoch_record(epoch, validation))
        with metrics.open("a") as file:
            file.write(line + "\n")
        history.write(f"epoch {epoch}\n")
        if stopping:
            sys.exit(75)
    if recipe["batch_size"] != 17 and until is None:
        temporary = run / "report.tmp"
        temporary.write_text(json.dumps(report(recipe)))
        history.write("end\n")
        temporary.replace(run / "report.json")


def epoch_record(epoch: int, validation: dict[str, float]) -> dict:
    """A line of metrics.jsonl, with all that one has."""
    return {
        "epoch": epoch,
        "lr": 0.1,
        "train": {"loss": 1.0},
        "seconds": 0.05,
        "images_per_second": 100.0,
        "validation": validation,
    }


def misbehave(batch_size: int, folder: Path) -> None:
    if batch_size == 13:
        raise RuntimeError("thirteen [images]")
    if batch_size == 14:
        os.kill(os.getpid(), signal.SIGKILL)
    if batch_size == 15:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "last.pt")
    if batch_size == 16 and not (folder / "once").exists():
        (folder / "once").touch()
        sys.exit("only once")


def report(recipe: dict) -> dict:
    clean = 0.8 - recipe["optimizer"]["lr"] - 0.01 * recipe["seed"]
    results = [
        {"checkpoint": checkpoint, "label": label, "threat": threat, "acc": acc}
        for checkpoint in ("best", "last")
        for label, threat, acc in (("clean", None, clean), ("pgd-20", recipe["threat"], clean / 2))
    ]
    return {"recipe": recipe, "training": {"epochs": recipe["epochs"]}, "results": results}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
