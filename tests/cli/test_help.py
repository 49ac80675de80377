"""Help pages: quick, complete, and with examples that work."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_calls import Rpat

import rpat_cli
from rpat_cli.attacks import TRAINING_ATTACKS
from rpat_cli.cli.app import main, whole
from rpat_cli.cli.train_options import OPTIONS
from rpat_cli.data import DATASETS
from rpat_cli.methods import METHODS
from rpat_cli.models import MODELS
from rpat_cli.recipe.defaults import OF_DATA_SETS
from rpat_cli.text import flattened

COMMANDS = ["train", "eval", "compare", "report", "leaderboard", "predict", "export", "push"]


def examples(help_page: str) -> list[str]:
    return re.findall(r"^ +rpat (.+?)(?: {3,}.*)?$", help_page, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "packages"),
    [
        (["train", "--help"], ["torch", "torchvision"]),
        # What options are made of, pydantic's classes first of all, takes longer than the list.
        (["--help"], ["torch", "torchvision", "pydantic"]),
    ],
)
def test_help_does_not_import_what_takes_long(words: list[str], packages: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['rpat', *{words}]\n"
        "from rpat_cli.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"found = sys.modules.keys() & {{*{packages}}}\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: rpat" in done.stdout


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_the_commands_are_listed(rpat: Rpat, flag: str) -> None:
    answer = rpat(flag)
    assert answer.code == 0
    listed = {*re.findall(r"^│ (\w+) ", answer.out, flags=re.MULTILINE)}
    assert listed == {*whole().commands} >= {*COMMANDS}
    for name, command in whole().commands.items():
        assert command.name == name
        assert command.help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples_with_options_that_exist(rpat: Rpat, command: str) -> None:
    page = rpat(command, "--help").out
    found = [example for example in examples(page) if example.startswith(command)]
    assert len(found) >= 3
    for example in found:
        for word in shlex.split(example):
            if word.startswith("--"):
                assert re.search(rf"│ {word}\s", page), f"{word} is not an option of {command}"


def test_the_names_that_there_are_stand_in_the_help(rpat: Rpat) -> None:
    page = " ".join(re.sub(r"[│╭╮╰╯─]", " ", rpat("train", "--help").out).split())
    for name in [*METHODS, *MODELS, *DATASETS, *TRAINING_ATTACKS]:
        assert name in page


@pytest.mark.parametrize("command", ["", "train", "doctor", "runs", "runs show"])
def test_no_switch_looks_as_if_it_took_a_value(rpat: Rpat, command: str) -> None:
    page = rpat(*command.split(), "--help").out
    assert "--help" in page
    assert "<bool>" not in page
    assert "bool" not in page.split("Options", 1)[1]


def options(command: Any, path: str = "rpat") -> Iterator[tuple[str, Any]]:
    """Whatever one may leave out, of all commands, but switches of one form, such as `--json`."""
    for option in command.params:
        is_switch = getattr(option, "is_flag", False) and not option.secondary_opts
        if not (option.required or option.hidden or is_switch):
            yield path, option
    for name, inner in getattr(command, "commands", {}).items():
        yield from options(inner, f"{path} {name}")


def test_every_default_is_shown() -> None:
    found = list(options(whole()))
    assert len(found) > 150
    silent = {
        f"{path} {option.opts[0]}"
        for path, option in found
        if "(default" not in option.help
        and not (option.show_default and option.default not in (None, "", ()))
    }
    assert silent == set()


def test_the_defaults_of_train_are_those_that_are_used() -> None:
    """What the resolved recipe of cifar10, which brings few of its own, has without options."""
    from rpat_cli.recipe.layers import layers_of, resolve

    flags = ["data=cifar10", "ra=true", "wa=true", "awp=true"]
    r = resolve(layers_of(assignments=flags))
    assert r.ra
    assert r.wa
    assert r.awp
    used = {
        "--method": r.method.name,
        "--ra-weight": f"{r.ra.weight:g}",
        "--ra-mix": f"{r.ra.mix:g}",
        "--ra-start-epoch": str(r.ra.start_epoch),
        "--ra-form": f"{r.ra.form}; teacher-kl with rebat",
        "--wa-decay": f"{r.wa.decay:g}",
        "--awp-gamma": f"{r.awp.gamma:g}",
        "--model": f"the data set's, else {r.model}",
        "--norm": r.threat.norm,
        "--attack": r.attack.name,
        "--epochs": f"the data set's, else {r.epochs}",
        "--batch-size": f"the data set's, else {r.batch_size}",
        "--lr": f"the data set's, else {r.optimizer.lr:g}",
        "--optimizer": r.optimizer.name,
        "--weight-decay": f"{r.optimizer.weight_decay:g}",
        "--schedule": f"the data set's, else {r.schedule.name}",
        "--val-size": f"the data set's, else {r.data.val_size:g}",
        "--eval": ",".join(r.eval),
        "--seed": str(r.seed),
        "--sync-bn": "off",
    }
    texts = {option.long: option.text for option in OPTIONS}
    assert {flag: texts[flag].rpartition(" (default: ")[2] for flag in used} == {
        flag: f"{value})." for flag, value in used.items()
    }


def test_what_data_sets_bring_is_known() -> None:
    """So that the help page says of the others what they are."""
    brought = {"threat.eps"}
    for name in DATASETS:
        brought |= set(flattened(DATASETS[name].defaults))
    assert brought == OF_DATA_SETS


def test_version(rpat: Rpat) -> None:
    assert rpat("--version").out == f"rpat {rpat_cli.__version__}\n"


def test_a_mistyped_command_and_option_are_told_apart(rpat: Rpat) -> None:
    assert rpat("trian").code == 2
    answer = rpat("train", "--epoch", "3")
    assert answer.code == 2
    assert "--epochs" in answer.err


def test_attack_alone_lists_the_attacks(rpat: Rpat) -> None:
    answer = rpat("eval", "--attack")
    assert answer.code == 0
    assert "autoattack-rand" in answer.out
    assert "quick" in answer.out


def test_the_package_imports_without_the_command_line() -> None:
    assert Path(rpat_cli.__file__).parent.name == "rpat_cli"


def test_ctrl_c_ends_with_a_word_and_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("rpat_cli.cli.recipes.recipe_names", interrupted)
    monkeypatch.setattr(sys, "argv", ["rpat", "recipes"])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 130
    assert capsys.readouterr().err == "error: stopped.\n"


@pytest.mark.parametrize(
    ("option", "names"),
    [
        ("train --norm", "Linf L2 L1"),
        ("train --ra-form", "mse kl cosine"),
        ("train --device", "auto cpu cuda mps"),
        ("eval --norm", "Linf L2 L1"),
        ("eval --device", "auto cpu cuda mps"),
        ("train --resume", "last best"),
        ("train --init", "last best"),
    ],
)
def test_the_shell_completes_fixed_choices(
    option: str,
    names: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # runs are completed, too
    asked = {"_RPAT_COMPLETE": "complete_bash", "COMP_WORDS": f"rpat {option} ", "COMP_CWORD": "3"}
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["rpat"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out.split() == names.split()


@pytest.mark.parametrize(
    ("words", "some"),
    [
        ("sweep ", "fashion-mini-methods"),
        ("train --set opt", "optimizer.nesterov="),
        ("eval --attack clean,pg", "clean,pgd"),
        ("train --augment crop,fl", "crop,flip"),
        ("export last --format onnx,saf", "onnx,safetensors"),
        ("train --track csv,te", "csv,tensorboard"),
        ("runs rm last --keep best,la", "best,last"),
    ],
)
def test_the_shell_completes_names_keys_and_lists(
    words: str, some: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count = len(words.split(" "))
    asked = {"_RPAT_COMPLETE": "complete_bash", "COMP_WORDS": f"rpat {words}"}
    for name, value in {**asked, "COMP_CWORD": str(count)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["rpat"])
    with pytest.raises(SystemExit):
        main()
    assert some in capsys.readouterr().out.split()


def test_what_the_bare_command_does_stands_first_and_is_true(rpat: Rpat) -> None:
    from rpat_cli.recipe.layers import resolve

    page = " ".join(rpat("train", "--help").out.split())
    r = resolve([])
    said = (
        f"Without options: {r.model} by {r.method.name} on {r.data.name} (2,000 real images that "
        f"come with rpat), norm {r.threat.norm}, eps {r.threat.eps:g}, {r.epochs} epochs, seed "
        f"{r.seed}; the report measures {','.join(r.eval)}."
    )
    assert said in page
    assert page.index(said) < page.index("Examples:")


def test_rpat_is_found_by_its_name() -> None:
    from rpat_cli.errors import ConfigError
    from rpat_cli.recipe.layers import layers_of, resolve

    for name, flags in (("RPAT", "--method pgd --ra"), ("rpat++", "--method rebat --ra")):
        with pytest.raises(ConfigError, match=re.escape(flags)):
            resolve(layers_of(assignments=[f"method={name}"]))


@pytest.mark.parametrize(
    "error", [MemoryError(), type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory.")]
)
def test_out_of_memory_is_no_bug_and_has_a_remedy(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("rpat_cli.cli.app.app", full)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    said = capsys.readouterr().err
    assert "--batch-size" in said
    assert "bug" not in said
