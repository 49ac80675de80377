import io
import json
import re
import shutil
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from cli_calls import Answer, call
from corrupted_files import write_corrupted
from rich.console import Console

from rpat_cli.cli import session
from rpat_cli.cli.printing import Printing
from rpat_cli.data.corrupted import STANDARD
from rpat_cli.diagnostics import DIAGNOSTICS
from rpat_cli.diagnostics.base import EVALUATION_KEYS
from rpat_cli.errors import ConfigError, MissingExtraError, Mistakes
from rpat_cli.evaluation.suite import parse_suite
from rpat_cli.records.checkpoint import load_checkpoint, save_checkpoint
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.reports.diagnostics_terminal import for_terminal
from rpat_cli.runs.diagnose import prepare
from rpat_cli.runs.evaluate import EvalOptions, measure_run
from rpat_cli.runs.target import open_target


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
    diagnostics = ("--check", "--perception", "--eps-curve", "--loss-surface")
    for_ci = ("--sarif", "ci.sarif", "--junit", "ci.xml")
    answer = call(
        "eval",
        saturated,
        "--attack",
        "fgsm",
        *diagnostics,
        *for_ci,
        "--limit",
        "150",
        "--json-full",
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
    assert json.loads(file.read_text()).items() <= record.items()
    (run,) = json.loads((saturated.parent / "ci.sarif").read_text())["runs"]
    alerts = {result["ruleId"]: result["level"] for result in run["results"]}
    assert alerts["verdict/logits-in-a-sane-range"] == "error"
    cases = ET.parse(saturated.parent / "ci.xml").getroot().iter("testcase")
    failed = {case.get("name") for case in cases if case.find("failure") is not None}
    assert failed == {name for name, level in levels.items() if level == "FAIL"}


def test_a_diagnostic_is_added_to_the_evaluation_and_to_the_report(
    trained: tuple[Path, Answer], tmp_path: Path
) -> None:
    run = RunFolder(Path(shutil.copytree(trained[0], tmp_path / "run")))
    measured = measure_run(
        run.path,
        parse_suite("clean"),
        diagnostics={"loss_surface": {}},
        options=EvalOptions(limit=30),
    )
    result = measured.diagnostics["loss_surface"]
    saved = json.loads(measured.file.read_text())["loss_surface"]
    assert saved == json.loads(json.dumps(result.to_dict()))
    assert saved["n"] == 30
    reported = json.loads(run.report.read_text())["closer_looks"]["loss_surface"]
    assert reported["evaluation"] == measured.file.name
    assert json.loads(measured.file.read_text()).keys() <= {*EVALUATION_KEYS, *DIAGNOSTICS}
    assert "The loss around the images" in run.html.read_text()
    shown = Console(width=200, file=io.StringIO())
    shown.print(for_terminal(result.section()))
    assert "cross-entropy: one eps along the gradient predicts" in shown.file.getvalue()  # type: ignore[attr-defined]


def test_a_target_is_opened_once_and_its_report_is_written_once(
    trained: tuple[Path, Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is asked for besides the attacks."""
    run = Path(shutil.copytree(trained[0], tmp_path / "run"))
    labels = np.arange(20) % 10
    write_corrupted(tmp_path / "C", STANDARD, labels, lambda name, severity: severity, (28, 28, 1))
    calls: Counter[str] = Counter()

    def counted(place: str) -> None:
        module, _, name = place.rpartition(".")
        original = getattr(import_module(module), name)

        def fake(*arguments: Any, **given: Any) -> Any:
            calls[name] += 1
            return original(*arguments, **given)

        monkeypatch.setattr(place, fake)

    counted("rpat_cli.runs.build.load_dataset")
    counted("rpat_cli.runs.target.load_model")
    counted("rpat_cli.runs.evaluate.write_report")
    session.evaluate(
        target=run,
        specs=parse_suite("fgsm"),
        checkpoint="best",
        changes=[],
        diagnostics={"corruptions": {"folder": tmp_path / "C"}, "verdict": {}, "perception": {}},
        batch_size=None,
        jobs=1,
        limit=40,
        printing=Printing(quiet=True, short_json=True),
        mistakes=Mistakes(),
    )
    assert calls == {"load_dataset": 1, "load_model": 1, "write_report": 1}
    saved = json.loads((run / "report.json").read_text())["closer_looks"]
    assert list(saved) == ["verdict", "perception", "corruptions"]
    assert "Corrupted images" in (run / "report.html").read_text()


def test_what_would_fail_after_the_attacks_is_said_before_them(
    trained: tuple[Path, Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_target(trained[0], "best", ())
    monkeypatch.setitem(sys.modules, "foolbox", None)
    assert list(prepare({"eps_curve": {}, "verdict": {}}, opened, 10)) == ["verdict", "eps_curve"]
    with pytest.raises(MissingExtraError, match=r"rpat\[attacks\]"):
        prepare({"eps_curve_fmn": {}}, opened, 10)
    with pytest.raises(ConfigError, match=r"'verdicts'.*verdict"):
        prepare({"verdicts": {}}, opened, 10)
    with pytest.raises(ConfigError, match="--diagnostic corruptions: needs --corruptions DIR"):
        prepare({"corruptions": {}}, opened, 10)


def test_compare_tells_two_evaluations_apart(trained: tuple[Path, Answer]) -> None:
    run = trained[0]
    file = next((run / "evals").glob("*.json"))
    answer = call("compare", run, file, "--changed", cwd=run.parent)
    assert answer.code == 0, answer.err
    assert re.search("only A +only B", answer.out)
    assert f"B: {file}" in answer.out
    assert f"A: {run / 'evals'}" in answer.out  # the newest, by its name
    assert "clean, only B is right: " in answer.out
    missing = call("compare", run, "absent.json", cwd=run.parent)
    assert missing.code == 1
    assert "there is no evaluation absent.json" in missing.message
