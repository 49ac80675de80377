"""What a new user meets: Ctrl-C at once, a name that is none, eps in the wrong units, a list in a
narrow terminal."""

import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from rpat_cli.cli.console import glossary
from rpat_cli.errors import CheckpointError, ConfigError, RunFolderError
from rpat_cli.evaluation.suite import list_attacks
from rpat_cli.loading.load import load_model
from rpat_cli.recipe.layers import Layer, resolve


@pytest.mark.parametrize(
    ("before", "code", "said"),
    [
        ("signal.default_int_handler", -signal.SIGINT, ""),
        ("signal.SIG_IGN", 0, "went on\n"),  # as a shell starts what is to stay in the background
    ],
)
def test_interrupted_while_importing_it_is_gone_unless_it_should_not_be(
    before: str, code: int, said: str
) -> None:
    script = (
        "import os, signal\n"
        "from rpat_cli.signals import importing\n"
        f"signal.signal(signal.SIGINT, {before})\n"
        "try:\n"
        "    with importing(): os.kill(os.getpid(), signal.SIGINT)\n"
        "except BaseException: print('as libraries do: caught')\n"
        "print('went on')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, said, "")


def test_after_importing_an_interruption_is_an_exception_again() -> None:
    from rpat_cli.signals import importing

    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with importing():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_list_of_attacks_is_whole_however_narrow_the_terminal() -> None:
    attacks = list_attacks()
    page = Console(file=StringIO(), width=40)
    page.print(glossary(attacks))
    assert isinstance(page.file, StringIO)
    text = page.file.getvalue()
    assert "…" not in text
    letters = "".join(text.split())
    assert all("".join(meaning.split()) in letters for meaning in attacks.values())


@pytest.mark.parametrize(("eps", "meant"), [("8", "8/255"), ("1.5", "1.5/255")])
def test_eps_in_units_of_255_is_noticed(eps: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"threat.eps: .*\[0, 1\].* Did you mean {meant}\?"):
        resolve([Layer("--eps", {"threat": {"eps": eps}})])
    assert resolve([Layer("", {"threat": {"eps": eps, "norm": "L2"}})]).threat.eps == float(eps)
    assert resolve([Layer("", {"threat": {"eps": 1}})]).threat.eps == 1


def test_a_name_that_is_none_brings_those_that_are(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text("")
    (tmp_path / "net.pt").write_text("")
    with pytest.raises(
        RunFolderError, match=r"no recipe.yaml\)\. Name one of the runs in it: first, second\."
    ):
        load_model(tmp_path)
    with pytest.raises(RunFolderError, match="secnd does not exist. Did you mean 'second'?"):
        load_model(tmp_path / "secnd")
    with pytest.raises(
        CheckpointError, match=r"there is no checkpoint .*nt\.pt\. The folder has: net\.pt\."
    ):
        load_model(tmp_path / "nt.pt")
