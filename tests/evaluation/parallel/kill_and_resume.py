"""Evaluate a toy in child processes that are killed at random moments, until one comes to its end.

Run as a script, `kill_and_resume.py FOLDER KILLS`: prints one JSON object. A process of its own,
since it forks.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pyautoattack
import torch
from toys import Quick, make_toy

from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.parallel.chunks import ChunkResult
from rpat_cli.evaluation.parallel.store import ChunkStore
from rpat_cli.evaluation.suite import parse_suite


def main(folder: Path, kills: int) -> None:
    torch.set_num_threads(1)  # no threads, so that forking is safe
    pyautoattack.AutoAttack = Quick
    toy = make_toy(10)
    suite = parse_suite("pgd-3,autoattack:square+apgd-ce+apgd-t+fab-t")

    def child(to_be_killed: bool) -> None:
        store = ChunkStore.open(folder / "partial", {"model": "toy"}, lambda _: None)

        def keep(chunk: ChunkResult) -> None:
            store.add(chunk)
            with (folder / "attacked").open("a") as file:
                file.write(f"{chunk.label} {chunk.stage} {chunk.chunk}\n")

        found = evaluate(
            toy.model,
            toy.x,
            toy.y,
            suite,
            Threat("Linf", 0.1),
            batch_size=6,
            known=store.known,
            on_chunk=keep,
        )
        while to_be_killed:  # faster than the parent, who may have been kept waiting
            signal.pause()
        (folder / "result.json").write_text(json.dumps(found.to_dict()))
        store.remove()

    generator = random.Random(kills)
    killed = 0
    while True:
        process = os.fork()
        if process == 0:
            child(killed < kills)
            os._exit(0)
        if killed < kills:
            time.sleep(generator.uniform(0.01, 0.15))
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        killed += os.WIFSIGNALED(status)
        if not os.WIFSIGNALED(status):
            break
    print(json.dumps({"killed": killed, "status": status}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
