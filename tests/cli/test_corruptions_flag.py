"""`rpat eval --corruptions`, on files of the published form with the images of the embedded data
set's size."""

import json
import shutil
from pathlib import Path

import numpy as np
from cli_calls import Answer, call
from corrupted_files import write_corrupted

from rpat_cli.data.corrupted import EXTRA, STANDARD


def test_corruptions_come_with_the_evaluation(trained: tuple[Path, Answer], tmp_path: Path) -> None:
    net = tmp_path / "net.pt"
    shutil.copy(trained[0] / "checkpoints" / "last.pt", net)
    labels = np.arange(20) % 10
    write_corrupted(
        tmp_path / "C", (*STANDARD, *EXTRA), labels, lambda name, severity: severity, (28, 28, 1)
    )
    command = ("eval", net, "--attack", "clean", "--limit", "10", "--corruptions", "C")
    answer = call(*command, "--json-full", cwd=tmp_path)
    assert answer.code == 0, answer.err
    record = json.loads(answer.out)
    (file,) = (tmp_path / "evals").glob("*.json")
    assert json.loads(file.read_text()).items() <= record.items()
    assert record["corruptions"]["n"] == 10
    assert len(record["corruptions"]["corruptions"]) == 19
    # Each image has one brightness, by its class: the model sees ten greys, and each severity holds
    # known ones.
    assert all(
        0 <= error <= 1 for each in record["corruptions"]["corruptions"] for error in each["errors"]
    )

    against = call(*command, "--corruptions-baseline", file, cwd=tmp_path)
    assert against.code == 0, against.err
    assert "19/19  saturate" in against.err
    (line,) = (line for line in against.out.splitlines() if "mean of the 15" in line)
    assert line.split()[-1] == "100.00"  # its own errors as the baseline

    alone = call("eval", net, "--attack", "clean", "--corruptions-baseline", file, cwd=tmp_path)
    assert alone.code == 2
    assert "--corruptions-baseline: needs --corruptions DIR" in alone.message
