"""`rpat bench` as it is called."""

import json
from pathlib import Path

from cli_calls import Rpat


def test_it_prints_json_and_writes_record_and_page(rpat: Rpat, tmp_path: Path) -> None:
    answer = rpat(
        *("bench", "--quick", "--batch-size", "4", "--set", "attack.steps=1", "--json"),
        *("--record", "mine", "--page", "mine.html"),
    )
    assert answer.code == 0, answer.err
    content = json.loads(answer.out)
    assert content == json.loads((tmp_path / "mine.json").read_text())
    assert content["training"]["rows"][0]["name"] == "published"
    assert "<svg" in (tmp_path / "mine.html").read_text()
    assert "recorded: mine.json" in answer.err
