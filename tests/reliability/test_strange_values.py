"""Values that only look like values: each is a mistake with its line, what is wrong and what is
allowed."""

from pathlib import Path

import pytest

from rpat_cli.errors import ConfigError
from rpat_cli.recipe.layers import layers_of, resolve
from rpat_cli.recipe.suite_file import read_suite
from rpat_cli.sweep.expand import plan_sweep

DIGITS = "9" * 5000


def message_of(tmp_path: Path, text: str) -> str:
    file = tmp_path / "r.yaml"
    file.write_bytes(text.encode())
    with pytest.raises(ConfigError) as caught:
        resolve(layers_of(configs=[file]))
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(tmp_path) + "/", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs: !!int abc\n", "r.yaml:1: is not valid YAML: 'abc' cannot be read as int."),
        ("data:\n  root: 2001-99-99\n", "r.yaml:2: is not valid YAML: '2001-99-99' cannot be"),
        ("ra: !!bool maybe\n", "'maybe' cannot be read as bool"),
        ("epochs: !!float ''\n", "cannot be read as float"),
        ("epochs: !!timestamp x\n", "cannot be read as timestamp"),
        (f"epochs: {DIGITS}\n", "cannot be read as int"),
        (f"epochs: 0x{'f' * 5000}\n", "cannot be read as int"),
        ("epochs: !!python/object:os.system x\n", "r.yaml:1: is not valid YAML: could not"),
        ("ra: &a {x: *a}\n", "r.yaml:1: is not valid YAML: the value at &a contains itself"),
        ("eval: " + "[" * 60 + "]" * 60, "nested more than 50 levels deep"),
        ("data: 0.5\n", "r.yaml:1: data: 0.5: should be a mapping of keys to values"),
        ("data:\n", "r.yaml:1: data: None: should be a mapping of keys to values"),
        ("model: 'timm:'\n", "r.yaml:1: model: unknown model 'timm:'"),
        ("method: {name: {a: b}}\n", "method"),
        ("data: {name: {a: b}}\n", "data.name"),
        ("schedule: {name: [cosine]}\n", "schedule"),
        ("epochs: 1000000001\n", "epochs: 1000000001: must be at most 1,000,000,000"),
        ("optimizer: {lr: .inf}\n", "optimizer.lr: inf: must be a finite number"),
        ("optimizer: {lr: .nan}\n", "optimizer.lr: nan: must be a finite number"),
        ("optimizer: {lr: 1e39}\n", "optimizer.lr"),
        ("method: {name: trades, beta: .inf}\n", "method.beta"),
        ("method: {name: trades, beta: .nan}\n", "method.beta"),
        ("wa: {start_epoch: 9999999999}\n", "wa: start_epoch: must be at most"),
        ("data: {memory_budget_gb: 1e300}\n", "data.memory_budget_gb"),
        ("mix: {name: mixup, alpha: 1e300}\n", "mix.alpha"),
        ("attack: {strong: {from_epoch: 1, eps: 300}}\n", "attack.strong.eps: 300: must be at"),
        ("epochs: yes\n", "epochs: True: must be a whole number, and not true or false"),
        ("attack: {steps: on}\n", "attack.steps: True: must be a whole number"),
        ("wa: {start_epoch: true}\n", "start_epoch: must be a whole number"),
        ("data: {augment: [{crop: [1]}]}\n", "r.yaml:1: data.augment.0.crop: [1]: should be"),
        ("eval: {attack: pgd}\n", "r.yaml:1: eval: should be a valid list"),
        ("'data[name]': cifar10\n", "r.yaml:1: data[name]: unknown key"),
        ("data: {'root[0]': x}\n", "r.yaml:1: data.root[0]: unknown key"),
        ("int: 5\n", "r.yaml:1: int: unknown key"),
        ("data: {float: 5}\n", "r.yaml:1: data.float: unknown key"),
        ("method: {name: trades, str: 1}\n", "r.yaml:1: method.str: unknown key"),
        ("extends: ././r.yaml\n", "the files extend one another"),
    ],
)
def test_a_recipe(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in message_of(tmp_path, text)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-32"])
def test_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes("epochs: 1  # é\n".encode(encoding))
    with pytest.raises(ConfigError, match="not .*in UTF-8.*save it as UTF-8"):
        resolve(layers_of(configs=[file]))


@pytest.mark.parametrize(
    "suite",
    [
        f"pgd-{DIGITS}",
        f"pgd-5x{DIGITS}",
        "pgd-1000001",
        "pgd-5x1000001",
        "a\0b.yaml",
        "~no-such-user/x.yaml",
        f"{'x' * 5000}.yaml",
    ],
)
def test_a_suite(suite: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_suite(suite)
    assert len(str(caught.value)) < 12_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seeds: 1000000000\n", "seeds: must be at most 10,000"),
        ("seeds: yes\n", "seeds"),
        ("random: {samples: 100000000, axes: {epochs: {integer: [1, 2]}}}\n", "random.samples"),
        (
            "grid:\n" + "".join(f"  data.x{n}: [1, 2, 3, 4]\n" for n in range(20)),
            "the axes and seeds make about 10^12 trials; a sweep has at most 10,000",
        ),
        ("grid: {method: [pgd]}\nengine: {name: {a: b}}\n", "engine"),
        (
            "grid: {method: [pgd]}\nengine: {name: local, jobs: yes}\n",
            "jobs: must be a whole number",
        ),
        ("grid: {method: [pgd]}\nengine: {name: slurm, gpus: yes}\n", "gpus: must be a whole"),
        ("grid: {method: [pgd]}\nengine: {name: ray, gpus: yes}\n", "gpus: must be a number"),
        ("grid: {method: [pgd]}\nengine: {name: [local]}\n", "engine"),
    ],
)
def test_a_sweep(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        plan_sweep(file)
    assert expected in str(caught.value)
