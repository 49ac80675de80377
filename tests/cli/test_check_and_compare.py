import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from cli_calls import Answer, call
from rich.console import Console

from rpat_cli.errors import MissingExtraError
from rpat_cli.records.checkpoint import load_checkpoint, save_checkpoint
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.runs.diagnose import analyse, check_wanted


@pytest.fixture(scope="module")
def saturated(trained: tuple[Path, Answer], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model with logits 10,000 times as large: same classes, no gradient of the
    cross-entropy."""
    content = load_checkpoint(trained[0] / "checkpoints" / "last.pt")
    del content["format"]
    for name in [name for name in content["model"] if "linear" in name]:
        content["model"][name] = content["model"][name] * 1e4
    path = tmp_path_factory.mktemp("saturated") / "model.pt"
    save_checkpoint(path, content)
    return path


def test_a_fooled_attack_ends_with_code_3_and_its_reasons(saturated: Path) -> None:
    looks = ("--check", "--perception", "--eps-curve", "--loss-surface")
    answer = call(
        "eval",
        saturated,
        "--attack",
        "fgsm",
        *looks,
        "--limit",
        "150",
        "--json",
        cwd=saturated.parent,
    )
    assert answer.code == 3, answer.err
    record = json.loads(answer.out)
    assert record["verdict"]["level"] == "FAIL"
    levels = {finding["name"]: finding["level"] for finding in record["verdict"]["findings"]}
    assert levels["logits in a sane range"] == "FAIL"
    assert {change["group"] for change in record["perception"]["changes"]} == {"broken", "defended"}
    counts = [
        record["verdict"]["evidence"]["n"],
        *(record[name]["n"] for name in ("perception", "eps_curve")),
    ]
    assert counts == [150, 150, 150]
    assert record["loss_surface"]["n"] == 64
    (file,) = (saturated.parent / "evals").glob("*.json")
    assert json.loads(file.read_text()) == record


def test_a_closer_look_is_entered_in_the_evaluation_and_in_the_report(
    trained: tuple[Path, Answer], tmp_path: Path
) -> None:
    run = RunFolder(Path(shutil.copytree(trained[0], tmp_path / "run")))
    file = next(run.evals.glob("best*.json"))
    before = json.loads(file.read_text())
    (found,) = analyse(["loss_surface"], run.path, file, limit=30)
    assert json.loads(file.read_text()) == before | {"loss_surface": found.result.to_dict()}
    assert found.result.to_dict()["n"] == 30
    assert (
        json.loads(run.report.read_text())["closer_looks"]["loss_surface"]["evaluation"]
        == file.name
    )
    assert "The loss around the images" in run.html.read_text()
    shown = Console(width=200, file=io.StringIO())
    shown.print(found.table())
    assert "cross-entropy: one eps along the gradient promises" in shown.file.getvalue()  # type: ignore[attr-defined]


def test_a_missing_extra_is_said_before_the_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foolbox", None)
    check_wanted(["verdict", "eps_curve"])
    with pytest.raises(MissingExtraError, match=r"rpat\[attacks\]"):
        check_wanted(["eps_curve_fmn"])


def test_compare_tells_two_evaluations_apart(trained: tuple[Path, Answer]) -> None:
    run = trained[0]
    file = next((run / "evals").glob("*.json"))
    answer = call("compare", run, file, "--changed", cwd=run.parent)
    assert answer.code == 0, answer.err
    assert "only A right" in answer.out
    assert f"B: {file}" in answer.out
    assert f"A: {run / 'evals'}" in answer.out  # the newest, by its name
    assert "clean, only B is right: " in answer.out
    missing = call("compare", run, "absent.json", cwd=run.parent)
    assert missing.code == 1
    assert "there is no evaluation absent.json" in missing.message
