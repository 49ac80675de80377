"""`--sarif` and `--junit`, from an evaluation whose every figure is known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from fake_runs import FakeRun, an_evaluation

from rpat_cli.diagnostics.blocks import Level
from rpat_cli.diagnostics.verdict.checks import CHECKS, CheckResult
from rpat_cli.diagnostics.verdict.verdict import Verdict
from rpat_cli.errors import ConfigError
from rpat_cli.reports.cases import PLAUSIBLE, cases_of
from rpat_cli.reports.for_ci import check_places, uri_of, write_for_ci
from rpat_cli.reports.sarif import LEVELS


def a_verdict(**levels: Level) -> Verdict:
    """PASS, but for the checks whose number is given as `c0`, `c1`, ..."""
    results = []
    for number, check in enumerate(CHECKS):
        level = levels.get(f"c{number}", "PASS")
        results.append(CheckResult(check.name, level, f"reason {number} <&\x00>", check.paper))
    return Verdict(tuple(results), 100, {})


Written = Callable[..., tuple[dict[str, Any], ET.Element]]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_run: Any) -> Written:
    """For a verdict and an attack's warnings: the run in the SARIF file and the root of the XML."""

    def write(*given: Any) -> tuple[dict[str, Any], ET.Element]:
        run: FakeRun = make_run()
        monkeypatch.chdir(run.folder.path.parent)
        return _written(tmp_path, run, *given)

    return write


def _written(
    tmp_path: Path, run: FakeRun, verdict: Verdict | None, *flags: str
) -> tuple[dict[str, Any], ET.Element]:
    evaluation = an_evaluation(80, {"pgd-20": 40, "autoattack": 30}, flags=flags)
    file = run.evaluate("best", 3, evaluation)
    remarks = {"remarks": ["hf:user/name at commit 1234"]}  # only tells what was loaded: no case
    file.write_text(json.dumps({**json.loads(file.read_text()), **remarks}))
    places = check_places({"--sarif": tmp_path / "ci" / "a.sarif", "--junit": tmp_path / "a.xml"})
    measured = {"verdict": verdict} if verdict else {}
    for _ in range(2):  # CI systems run a command again
        write_for_ci(check_places(places), run.folder.path, [(evaluation, file)], measured)
    sarif = json.loads(places["--sarif"].read_text(encoding="utf-8"))
    assert sarif["version"] == "2.1.0"
    assert "sarif-2.1.0" in sarif["$schema"]
    return sarif["runs"][0], ET.parse(places["--junit"]).getroot()


def test_an_honest_model_has_no_alert_and_all_tests_pass(written: Written) -> None:
    run, root = written(a_verdict())
    assert run["results"] == []
    (suite,) = root
    assert suite.attrib == {
        "name": "rpat.verdict",
        "tests": str(len(CHECKS)),
        "failures": "0",
        "errors": "0",
        "skipped": "0",
    }
    assert [case.get("name") for case in suite.iter("testcase")] == [each.name for each in CHECKS]
    values = {each.get("name"): each.get("value") for each in suite.iter("property")}
    assert values.pop("model") == run["automationDetails"]["id"][len("rpat/") : -1]
    assert values == {
        "n": "100",
        "clean_acc": "0.8",
        "robust_acc": "0.3",
        "robust_acc:pgd-20": "0.4",
        "robust_acc:autoattack": "0.3",
    }


def test_fail_is_an_error_warn_a_warning_and_what_an_attack_warns_of_too(written: Written) -> None:
    run, root = written(a_verdict(c3="FAIL", c7="WARN"), "zero gradients")
    rules = run["tool"]["driver"]["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules) == len(CHECKS) + 3
    assert all(rule["shortDescription"]["text"] and rule["help"]["text"] for rule in rules)
    found = []
    for result in run["results"]:  # what the schema and code scanning require
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        place = result["locations"][0]["physicalLocation"]
        assert Path(place["artifactLocation"]["uri"]).is_file()  # from the working directory
        assert place["region"]["startLine"] == 1
        found.append((result["level"], result["ruleId"], result["message"]["text"]))
    assert found == [
        ("error", "verdict/deterministic-output", "reason 3 <&\x00>"),
        ("warning", "verdict/logits-in-a-sane-range", "reason 7 <&\x00>"),
        (
            "warning",
            "evaluation/no-warning-from-an-attack",
            "autoattack: zero gradients",
        ),
    ]
    assert {result["level"] for result in run["results"]} <= set(LEVELS.values())
    prints = [result["partialFingerprints"]["primaryLocationLineHash"] for result in run["results"]]
    assert len(set(prints)) == 3
    verdict, evaluation = root
    assert (verdict.get("failures"), verdict.get("skipped")) == ("1", "1")
    (failure,) = verdict.iter("failure")
    assert failure.get("message") == "reason 3 <&?>"
    (skipped,) = evaluation.iter("skipped")
    assert skipped.get("message") == "WARN: autoattack: zero gradients"


def test_without_a_verdict_its_absence_is_what_is_said(written: Written) -> None:
    run, root = written(None)
    (result,) = run["results"]
    assert "Add --check" in result["message"]["text"]
    assert [case.get("name") for case in root.iter("testcase")] == ["verdict measured"]
    assert run["properties"]["figures"]["robust_acc:pgd-20"] == 0.4


def test_two_warnings_of_one_attack_are_two_alerts(written: Written) -> None:
    run, _ = written(a_verdict(), "zero gradients", "random gradients")
    first, second = (result["partialFingerprints"] for result in run["results"])
    assert first != second


def test_a_warning_on_clean_accuracy_is_a_case(make_run: Any) -> None:
    evaluation = an_evaluation(80, {"pgd-20": 40})
    file = make_run().evaluate("best", 3, evaluation)
    remarks = {"remarks": ["WARN: near chance", "hf:user/name at commit 1234"]}
    file.write_text(json.dumps({**json.loads(file.read_text()), **remarks}))
    (case,) = cases_of([(evaluation, file)], {"verdict": a_verdict()})[len(CHECKS) :]
    assert (case.rule, case.level, case.message) == (PLAUSIBLE, "WARN", "near chance")


def test_the_model_is_the_file_that_weights_were_chosen_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.pt").touch()
    assert uri_of(Path("a.pt:ema")) == uri_of(tmp_path / "a.pt:ema") == "a.pt"
    assert uri_of(Path("torchvision:resnet18")) == "torchvision%3Aresnet18"


def test_what_others_have_written_is_not_overwritten(tmp_path: Path) -> None:
    foreign = tmp_path / "report.json"
    foreign.write_text("{}")
    with pytest.raises(ConfigError) as caught:
        check_places({"--sarif": foreign, "--junit": tmp_path})
    assert [problem.key for problem in caught.value.problems] == ["--sarif", "--junit"]
    with pytest.raises(ConfigError, match="a file of its own"):
        check_places({"--sarif": tmp_path / "same", "--junit": tmp_path / "a" / ".." / "same"})
    with pytest.raises(ConfigError, match="no folder that you may write to"):
        check_places({"--sarif": foreign / "a.sarif"})
