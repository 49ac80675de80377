"""Device, precision and the state of the generators."""

import pytest
import torch
from helpers import tiny_net

from rpat_cli import hardware
from rpat_cli.engine.compute import (
    Compute,
    resolve_compute,
    rng_state,
    seed_everything,
    set_rng_state,
)
from rpat_cli.errors import ConfigError

CPU = torch.device("cpu")


def test_what_this_machine_lacks_is_refused_with_what_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_compute() == Compute(CPU)
    with pytest.raises(ConfigError, match=r"'cuda'.* finds no such device\. Available: cpu"):
        resolve_compute("cuda")
    with pytest.raises(ConfigError, match="float16 training needs a GPU"):
        resolve_compute("cpu", "fp16")


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_computes_in_bfloat16_where_it_does_so_natively(
    native: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    compute = resolve_compute()
    assert (compute.device.type, compute.precision) == ("cuda", precision)
    assert resolve_compute("cuda", "fp16").precision == "fp16"


@pytest.mark.parametrize(
    ("flags", "parameters", "precision"),
    [
        ({"avx2", "avx512_bf16"}, 1_000_000, "bf16"),
        ({"amx_bf16"}, 11_000_000, "bf16"),
        ({"bf16"}, 11_000_000, "bf16"),
        ({"avx512_bf16"}, 999_999, "fp32"),
        ({"avx2", "avx512f"}, 11_000_000, "fp32"),
        (set(), 11_000_000, "fp32"),
    ],
)
def test_a_cpu_computes_in_bfloat16_where_it_is_native_and_the_network_large(
    flags: set[str], parameters: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset(flags))
    assert resolve_compute("cpu", parameters=lambda: parameters).precision == precision
    for asked in ("fp32", "bf16"):
        assert resolve_compute("cpu", asked, parameters=lambda: parameters).precision == asked


@pytest.mark.parametrize("native", [True, False])
def test_the_size_of_a_network_matters_on_cpus_only(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "native_bf16", lambda device: native)
    reason = hardware.why_not_bf16("cuda", lambda: pytest.fail("counted"))
    assert reason == ("" if native else "cuda does not compute bfloat16 natively here")
    assert bool(hardware.why_not_bf16("cpu", lambda: 1)) is True


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_passes_run_in_the_precision_and_only_float16_is_scaled(
    name: str, dtype: torch.dtype | None
) -> None:
    compute = Compute(CPU, dtype)
    assert compute.precision == name
    with compute.autocast():
        assert tiny_net()(torch.rand(2, 3, 8, 8)).dtype == (dtype or torch.float32)
    assert compute.scaler().is_enabled() == (name == "fp16")


def test_a_placed_model_is_the_same_with_its_channels_last() -> None:
    net, x = tiny_net().eval(), torch.rand(2, 3, 8, 8)
    before = net(x)
    placed = Compute(CPU).place(net)
    assert placed[3].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(placed(x), before)


def test_the_generator_goes_on_from_where_it_was() -> None:
    seed_everything(3)
    torch.rand(2)
    state = rng_state(CPU)
    following = torch.rand(4)
    torch.rand(5)
    set_rng_state(state, CPU)
    assert torch.equal(torch.rand(4), following)
