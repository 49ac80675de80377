"""`rpat eval --model-file` with a suite file, from the command line, with two processes."""

from pathlib import Path

from cli_calls import call

MODEL = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(784, 10)

    def forward(self, x):
        return self.head(x.flatten(1))

def build():
    return Net()
"""


def test_a_model_of_ones_own_faces_a_suite_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(MODEL)
    (tmp_path / "suite.yaml").write_text(
        "- clean\n- {attack: pgd, steps: 2, step_size: 8/255, label: my-pgd}\n- "
        "transfer:my.py:build@fgsm\n"
    )
    wrong = call("eval", "runs/a", "--model-file", "my.py:build", cwd=tmp_path)
    assert (wrong.code, "cannot be combined with 'runs/a'" in wrong.message) == (2, True)
    wrong = call("eval", "--model-file", "my.py", cwd=tmp_path)
    assert (
        wrong.code,
        "is not of the form FILE.py:FUNCTION. Example: my.py:build" in wrong.message,
    ) == (2, True)
    options = (
        "--data",
        "fashion-mini",
        "--attack",
        "suite.yaml",
        "--jobs",
        "2",
        "--batch-size",
        "50",
        "--limit",
        "100",
    )
    answer = call("eval", "--model-file", "my.py:build", *options, cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert "cannot be sent to other processes" not in answer.message
    assert "my-pgd" in answer.out
    assert "transfer:my.py:build@fgsm" in "".join(answer.out.split())
    assert list((tmp_path / "runs/external/my-build/evals").glob("my_Linf_*.json"))
