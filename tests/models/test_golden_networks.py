"""Networks of RobustBench against the recorded ones: names, shapes, parameters and logits."""

from typing import Any

import pytest
import torch
from golden_networks import filled, mixed, robustbench_networks, shapes_of, wave
from torch import Tensor, nn

from rpat_cli.models import MODELS

SINGLE = {
    name: record
    for name, record in robustbench_networks().items()
    if "members" not in record and not name.startswith("sodef")
}
QUICK = ("wrn-40-2", "wrn-28-4", "dm-preact-18-silu")
"""Networks that compute two images in float64 in about a second."""

PART_OF_NORMALIZATION = {"bit-r152x2-gn-128px": 6}
"""Their mean and std are parameters, which are counted with the network's there."""

NAMES = {"wrn-28-10": "wrn-28-10-relu"}
"""`wrn-28-10` itself has the names of RPAT_Benchmarks."""


def network(name: str, record: dict[str, Any]) -> nn.Module:
    name = name.partition(" of ")[0]
    with torch.device("meta"):
        return MODELS[NAMES.get(name, name)](3, record["image_size"], record["classes"])


@pytest.mark.parametrize("name", SINGLE)
def test_has_the_recorded_names_shapes_and_parameters(name: str) -> None:
    record = SINGLE[name]
    net = network(name, record)
    own = {key: tuple(entry.shape) for key, entry in net.state_dict().items()}
    assert own == shapes_of(record)
    parameters = sum(p.numel() for p in net.parameters()) + PART_OF_NORMALIZATION.get(name, 0)
    assert parameters == record["parameters"]


NORMALIZED = ("bit-r152x2-gn-128px",)
"""Recorded behind their normalization, with mean and std 0.5 (and 1e-8 added to the latter)."""


def logits_of(net: nn.Module, state: dict[str, Tensor], x: Tensor) -> Tensor:
    net.load_state_dict(state, assign=True)
    with torch.no_grad():
        return net.eval()(x)


SAME_CODE = (
    *("wrn-34-20", "wrn-34-20-sub", "wrn-70-16", "dm-wrn-34-20-silu", "dm-wrn-70-16-silu"),
    *("dm-wrn-94-16-silu", "dm-wrn-106-16-silu", "ra-wrn-70-16"),
    *("meansparse-dm-wrn-70-16-silu", "meansparse-dm-wrn-94-16-silu"),
)
"""Networks that take minutes, and differ from smaller ones, or from `meansparse-ra-wrn-70-16`, in
numbers that their names and shapes show."""

BY_SIZE = [
    pytest.param(name, marks=() if name.startswith(QUICK) else pytest.mark.slow)
    for name in SINGLE
    if name not in SAME_CODE
]


@pytest.mark.parametrize("name", BY_SIZE)
def test_gives_the_recorded_logits(name: str) -> None:
    record = SINGLE[name]
    net, shapes, x = network(name, record), shapes_of(record), wave(record["image_size"])
    if name in NORMALIZED:
        x = (x - 0.5) / (0.5 + 1e-8)
    states = {"logits": filled(shapes), "logits2": mixed(shapes, record.get("factor2", 1.0))}
    for key in states.keys() & record.keys():
        expected = torch.tensor(record[key], dtype=torch.float64)
        atol = 1e-8 * max(1.0, float(expected.abs().max()))
        logits = logits_of(net, states[key], x)
        torch.testing.assert_close(logits, expected, rtol=0, atol=atol)
