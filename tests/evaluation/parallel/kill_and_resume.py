"""Evaluate a toy in child processes that are killed at random moments, until one comes to its end,
and once in a child that is left alone.

Run as a script, `kill_and_resume.py FOLDER KILLS ATTACKS`: writes FOLDER/resumed.json and
FOLDER/whole.json, prints one JSON object. A process of its own, since it forks. All children are
forked from it and compute with its one thread: so their results can be compared bit for bit.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pyautoattack
import torch
from toys import Quick, make_toy

from rpat_cli.attacks.threat import Threat
from rpat_cli.evaluation.evaluate import evaluate
from rpat_cli.evaluation.parallel.chunks import ChunkResult
from rpat_cli.evaluation.parallel.store import ChunkStore
from rpat_cli.evaluation.suite import parse_suite


def main(folder: Path, kills: int, attacks: str) -> None:
    torch.set_num_threads(1)  # no threads, so that forking is safe
    pyautoattack.AutoAttack = Quick
    toy = make_toy(10)
    suite = parse_suite(attacks)

    def child(name: str, to_be_killed: bool) -> None:
        store = ChunkStore.open(folder / f"{name}.partial", {"model": "toy"}, lambda _: None)

        def keep(chunk: ChunkResult) -> None:
            store.add(chunk)
            with (folder / f"{name}.attacked").open("a") as file:
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
        while to_be_killed:  # done before the parent, which may have been kept waiting
            signal.pause()
        (folder / f"{name}.json").write_text(json.dumps(found.to_dict()))
        store.remove()

    generator = random.Random(kills)
    for _ in range(kills):
        process = fork(child, "resumed", True)
        time.sleep(generator.uniform(0.01, 0.15))
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        assert os.WIFSIGNALED(status)
    ends = [os.waitpid(fork(child, name, False), 0)[1] for name in ("resumed", "whole")]
    print(json.dumps({"killed": kills, "ends": ends}))


def fork(child: Callable[[str, bool], None], name: str, to_be_killed: bool) -> int:
    process = os.fork()
    if process == 0:
        try:
            child(name, to_be_killed)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return process


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
