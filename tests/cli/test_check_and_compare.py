import json
from pathlib import Path

import pytest
from cli_calls import Answer, call

from rpat_cli.engine.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def saturated(trained: tuple[Path, Answer], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model with logits 10,000 times as large: same classes, no gradient of the cross-entropy."""
    content = load_checkpoint(trained[0] / "checkpoints" / "last.pt")
    del content["format"]
    for name in [name for name in content["model"] if "linear" in name]:
        content["model"][name] = content["model"][name] * 1e4
    path = tmp_path_factory.mktemp("saturated") / "model.pt"
    save_checkpoint(path, content)
    return path


def test_a_fooled_attack_ends_with_code_3_and_its_reasons(saturated: Path) -> None:
    answer = call("eval", saturated, "--attack", "fgsm", "--check", "--perception", "--json", cwd=saturated.parent)
    assert answer.code == 3, answer.err
    record = json.loads(answer.out)
    assert record["verdict"]["level"] == "FAIL"
    levels = {finding["name"]: finding["level"] for finding in record["verdict"]["findings"]}
    assert levels["logits in a sane range"] == "FAIL"
    assert {change["group"] for change in record["perception"]["changes"]} == {"broken", "defended"}
    (file,) = (saturated.parent / "evals").glob("*.json")
    assert json.loads(file.read_text()) == record


def test_compare_tells_two_evaluations_apart(trained: tuple[Path, Answer]) -> None:
    run = trained[0]
    file = next((run / "evals").glob("*.json"))
    answer = call("compare", run, file, "--changed", cwd=run.parent)
    assert answer.code == 0, answer.err
    assert "only A right" in answer.out
    assert "clean, only B is right: " in answer.out
    missing = call("compare", run, "absent.json", cwd=run.parent)
    assert missing.code == 1
    assert "there is no evaluation absent.json" in missing.message
