"""On an NVIDIA GPU: the same figures as on a CPU, and what only a GPU has.

`RPAT_TEST_DEVICE=cpu` rehearses on a CPU what can be: all but what is about CUDA itself.
"""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny_net
from loops import Recorder, make_loop, terms_of, weights
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rpat_cli.attacks import graphs
from rpat_cli.attacks.compiling import compiling
from rpat_cli.attacks.folding import folding
from rpat_cli.attacks.graphs import graphing
from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.side_effects import attack_mode, exact_float32
from rpat_cli.attacks.threat import Threat
from rpat_cli.engine.averaging import WeightAveraging
from rpat_cli.engine.compute import Compute
from rpat_cli.engine.loop import TrainLoop
from rpat_cli.methods import METHODS
from rpat_cli.methods.compose import compose
from rpat_cli.methods.robust_perception import RobustPerception
from rpat_cli.models import MODELS

DEVICE = torch.device(os.environ.get("RPAT_TEST_DEVICE", "cuda"))
HERE = DEVICE.type == "cpu" or torch.cuda.is_available()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not HERE, reason="no NVIDIA GPU")]
cuda_only = pytest.mark.skipif(DEVICE.type != "cuda", reason="about CUDA itself")
BACKEND = "inductor" if DEVICE.type == "cuda" else "aot_eager"

TOLERANCE = 1e-6
"""Of weights after an epoch in double precision, on either device."""

DRAWS = ("rand_like", "randn_like", "rand", "randn", "randint", "randint_like", "randperm")
DRAWS_IN_PLACE = ("uniform_", "normal_", "exponential_", "bernoulli_")


class DrawnOnCpu(TorchFunctionMode):
    """Random numbers come from the CPU's generator, whatever device they are for."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        if name in DRAWS:
            device = kwargs.pop("device", None) or _device_of(args)
            return func(*map(_on_cpu, args), **kwargs).to(device)
        if name in DRAWS_IN_PLACE:
            drawn = func(torch.empty(args[0].shape, dtype=args[0].dtype), *args[1:], **kwargs)
            return args[0].copy_(drawn)
        return func(*args, **kwargs)


def _on_cpu(value: object) -> object:
    return value.cpu() if isinstance(value, Tensor) else value


def _device_of(values: tuple[object, ...]) -> torch.device:
    found = [value.device for value in values if isinstance(value, Tensor)]
    return found[0] if found else torch.device("cpu")


def loop_on(device: torch.device, method: Any = None, **settings: Any) -> TrainLoop:
    """The tiny training in double precision, with all that it has on a device."""
    compute = Compute(device, settings.pop("dtype", None))
    loop = make_loop(method, **settings)
    networks = loop.networks
    averages = [*networks.averaged.values(), *([loop.averaging] if loop.averaging else [])]
    for module in (
        loop.model,
        *networks.frozen.values(),
        *networks.trained.values(),
        *(average.model for average in averages),
    ):
        module.to(device, None if compute.dtype else torch.float64)
    for kept in (loop.memory.state, loop.memory.images):
        kept.update({name: value.to(device) for name, value in kept.items()})
    loop.compute, loop.train = compute, loop.train.to(device)
    if compute.dtype is None:
        augment = loop.augment
        loop.augment = lambda x: augment(x).double()
    loop.__post_init__()  # makes the scaler of the precision
    return loop


def trained(device: torch.device, method: Any, **settings: Any) -> tuple[dict[str, Tensor], Any]:
    """Weights and losses of an epoch."""
    recorder = Recorder()
    loop = loop_on(device, method, epochs=1, callbacks=(recorder,), **settings)
    with DrawnOnCpu():
        loop.run()
    return {name: value.cpu() for name, value in weights(loop).items()}, recorder.steps


@pytest.mark.parametrize("ra", [False, True], ids=["", "ra"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_as_on_the_cpu(name: str, ra: bool) -> None:
    method = compose(METHODS[name](), *([RobustPerception()] if ra else []))
    settings = {"wa": WeightAveraging(decay=0.9, start_epoch=0)} if method.needs_teacher else {}
    expected, losses = trained(torch.device("cpu"), method, **settings)
    found, found_losses = trained(DEVICE, method, **settings)
    for ours, theirs in zip(found_losses, losses, strict=True):
        assert terms_of(ours) == pytest.approx(terms_of(theirs), rel=TOLERANCE, abs=TOLERANCE)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("bn_mode", ["eval", "train"])
@pytest.mark.parametrize("faster", [folding, lambda: compiling(BACKEND)], ids=["fold", "compile"])
def test_faster_attacks_make_the_same_examples(faster: Callable[[], Any], bn_mode: Any) -> None:
    x = torch.rand(8, 3, 8, 8, device=DEVICE, dtype=torch.float64)
    y = torch.arange(8, device=DEVICE)
    attack = PGD(Threat("L2", 0.5), 0.1, steps=5, start="zero", bn_mode=bn_mode)
    made = []
    for way in (None, faster):
        torch.manual_seed(0)
        model = Wrapped(tiny_net()).to(DEVICE, torch.float64)
        if way is None:
            made.append(attack(model, x, y))
            continue
        with way():
            made += [attack(model, x, y), attack(model, x, y)]  # a graph replays the second time
    if bn_mode == "eval":  # in the other, statistics have moved on by the second
        torch.testing.assert_close(made[2], made[0], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(made[1], made[0], rtol=0, atol=TOLERANCE)


class Wrapped(nn.Module):
    """A network with a forward of its own, which is what is compiled."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@cuda_only
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("bn_mode", ["eval", "train", "batch"])
@pytest.mark.parametrize("name", ["small-cnn", "preact-resnet18", "wrn-16-2"])
def test_graphs_replay_the_same_figures(
    name: str, bn_mode: Any, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Examples and statistics equal to the bit, also after the weights have moved."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    x, y = torch.rand(8, 3, 32, 32, device=DEVICE), torch.arange(8, device=DEVICE)
    attack = PGD(Threat("Linf", 8 / 255), 2 / 255, steps=5, start="zero", bn_mode=bn_mode)
    found = []
    for allowed in (False, True):
        torch.manual_seed(0)
        model = MODELS[name](channels=3, image_size=32, classes=10).to(
            DEVICE, memory_format=torch.channels_last
        )
        made = []
        for _ in range(3):
            autocast = torch.autocast("cuda", dtype=dtype, enabled=dtype is not None)
            with graphing(allowed), autocast:
                made.append(attack(model, x, y))
            with torch.no_grad():
                for weight in model.parameters():
                    weight.mul_(1.01)
        assert bool(graphs._GRAPHS.get(model) and graphs._GRAPHS[model].recorded) == allowed
        assert not allowed or not graphs._GRAPHS[model].failed
        found.append([*made, *model.buffers()])
    for ours, plain in zip(*found, strict=True):
        assert torch.equal(ours, plain)


@cuda_only
def test_two_passes_before_a_gradient_are_not_mixed_up() -> None:
    torch.manual_seed(0)
    model = MODELS["small-cnn"](channels=1, image_size=28, classes=10).to(DEVICE)
    first, second = torch.rand(2, 4, 1, 28, 28, device=DEVICE)

    def gradients() -> list[Tensor]:
        leaves = [first.clone().requires_grad_(), second.clone().requires_grad_()]
        logits = [model(leaf) for leaf in leaves]
        return [
            torch.autograd.grad(each.square().sum(), leaf, retain_graph=True)[0]
            for each, leaf in [*zip(logits, leaves, strict=True)] * 2
        ]

    with attack_mode(model):
        plain = gradients()
    with graphing(), attack_mode(model):
        for _ in range(3):
            replayed = gradients()
    assert graphs._GRAPHS[model].recorded
    for ours, theirs in zip(replayed, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_networks_with_hooks_inside_are_not_replayed() -> None:
    model = MODELS["small-cnn"](channels=1, image_size=28, classes=10).to(DEVICE)
    seen: list[int] = []
    conv = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    conv.register_forward_hook(lambda *_: seen.append(1))
    x, y = torch.rand(4, 1, 28, 28, device=DEVICE), torch.arange(4, device=DEVICE)
    with graphing():
        PGD(Threat("Linf", 0.1), 0.025, steps=5)(model, x, y)
    assert len(seen) == 5


@cuda_only
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_trains_and_only_float16_is_scaled(dtype: torch.dtype) -> None:
    loop = loop_on(DEVICE, dtype=dtype)
    before = weights(loop)
    assert loop.run()
    after = weights(loop)
    assert all(value.isfinite().all() for value in after.values())
    assert not torch.equal(before["0.weight"], after["0.weight"])
    assert (loop.state_dict()["scaler"] != {}) == (dtype is torch.float16)


def test_a_resumed_training_ends_as_one_that_was_not_stopped() -> None:
    whole = loop_on(DEVICE)
    whole.run()
    half = loop_on(DEVICE, should_stop=lambda loop: loop.epoch == 1)
    assert not half.run()
    state = half.state_dict()  # before another loop seeds the generators
    following = loop_on(DEVICE)
    following.load_state_dict(state)
    following.run()
    expected = weights(whole)
    for name, value in weights(following).items():
        torch.testing.assert_close(value, expected[name], rtol=TOLERANCE, atol=TOLERANCE)


@cuda_only
def test_a_step_waits_for_the_device_once() -> None:
    loop = loop_on(DEVICE, compose(METHODS["trades"](), RobustPerception()), clip_norm=1.0)
    batches = list(loop._batches())
    loop._train_step(*batches[0])  # the first one may set things up
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            loop._train_step(*batches[1])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in seen if "synchroniz" in str(warning.message)]
    assert len(waits) <= 1, waits


@cuda_only
def test_float32_is_not_tf32_unless_asked() -> None:
    x, conv = torch.rand(4, 256, 8, 8), nn.Conv2d(256, 256, 3)
    exact, near = conv.double()(x.double()), conv.float().to(DEVICE)
    with exact_float32(DEVICE), torch.no_grad():
        torch.testing.assert_close(
            near(x.to(DEVICE)).cpu().double(), exact, rtol=0, atol=1e-5
        )  # TF32: 1e-3
    before = torch.backends.cudnn.allow_tf32
    with Compute(DEVICE, tf32=True).settings():
        assert torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.allow_tf32 == before


@cuda_only
def test_memory_does_not_grow_with_the_epochs() -> None:
    in_use = []

    def note(loop: TrainLoop) -> bool:
        in_use.append(torch.cuda.memory_allocated())
        return False

    loop_on(DEVICE, epochs=20, should_stop=note).run()
    assert in_use[-1] - in_use[len(in_use) // 2] < 2**20


TRAIN = ("train", "--epochs", "1", "--eval", "clean", "--quiet", "--set", "data.val_size=100")


@cuda_only
def test_out_of_memory_is_told_with_what_helps(tmp_path: Path) -> None:
    code = (
        "import sys, torch; torch.cuda.set_per_process_memory_fraction(1e-4)\n"
        f"sys.argv = ['rpat', *{TRAIN!r}, '--device', 'cuda', '--model', 'wrn-28-10']\n"
        "from rpat_cli.cli.app import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "out of memory" in done.stderr
    assert "--accumulate" in done.stderr
    assert "Traceback" not in done.stderr


@cuda_only
def test_two_ranks_share_one_card(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", "29517", "-m", "rpat_cli", *TRAIN, "--out", str(tmp_path / "run")]
    environment = {**os.environ, "RPAT_BACKEND": "gloo"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.json").exists()
