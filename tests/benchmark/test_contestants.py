"""The published order of work makes the recorded passes and the same figures; floors repeat what
was recorded; images opened one by one are the same images."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers import GOLDEN, Golden, load_recipe, tiny_net
from torch import Tensor, nn

from rpat_cli.attacks.pgd import PGD
from rpat_cli.attacks.threat import Threat
from rpat_cli.benchmark.floor import Floor, Pass, recorded
from rpat_cli.benchmark.pipeline import OneByOne
from rpat_cli.benchmark.published import ORDERS, PublishedOrder, WholeBackward
from rpat_cli.data.splits import TensorSplit
from rpat_cli.engine.averaging import AveragedModel
from rpat_cli.engine.compute import Compute
from rpat_cli.passes import count_passes
from rpat_cli.runs.build import build_method

CPU = torch.device("cpu")


def published(name: str, ra: bool, steps: int = 10) -> PublishedOrder:
    flags = {"--method": (("method", "name"), name), "--ra": (("ra",), ra)}
    method = build_method(load_recipe(flags=flags))
    model = tiny_net()
    images = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8)
    split = TensorSplit(images, torch.arange(12) % 10)
    mode = {"bn_mode": "train"} if name == "rebat" else {}
    return PublishedOrder(
        model=model,
        method=replace(method, method=replace(method.method, **ORDERS[name])),
        attack=WholeBackward(PGD(Threat("Linf", 8 / 255), 2 / 255, steps, **mode)),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        batches=OneByOne(split, [], 6, method.views, CPU),
        averaging=AveragedModel(model, 0.999, 0) if name == "rebat" else None,
        epoch=1,
    )


@pytest.mark.parametrize("ra", [False, True])
@pytest.mark.parametrize("name", ["pgd", "trades", "mart", "consistency"])
def test_it_makes_the_passes_that_the_published_code_made(name: str, ra: bool) -> None:
    golden = Golden(name, GOLDEN / f"{name}{'_ra' * ra}.npz")
    contestant = published(name, ra, golden.hyper["steps"])
    modes: list[bool] = []
    contestant.model.register_forward_hook(lambda module, *_: modes.append(module.training))
    contestant.run(1)
    assert modes.count(True) == int(golden["n_train_forwards"])
    assert modes.count(False) == int(golden["n_eval_forwards"])


def test_rebat_attacks_in_train_mode_and_asks_its_teacher() -> None:
    for ra, asked in ((False, 1), (True, 2)):
        contestant = published("rebat", ra)
        assert contestant.averaging is not None
        with (
            count_passes(contestant.model) as passes,
            count_passes(contestant.averaging.model) as teacher,
        ):
            contestant.run(1)
        assert (passes.forward, passes.backward, teacher.forward) == (11, 11, asked)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_its_attack_goes_through_all_weights_to_the_same_images(norm: str) -> None:
    model, x, y = tiny_net().eval(), 0.2 + 0.6 * torch.rand(6, 3, 8, 8), torch.arange(6)
    start = 0.001 * torch.randn_like(x)  # in ball and box: what is outside is projected here
    pgd = PGD(Threat(norm, 1.0), 0.2, 3, start=start)
    x_adv = WholeBackward(pgd)(model, x, y)
    torch.testing.assert_close(x_adv, pgd(model, x, y), rtol=0, atol=1e-6)
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_one_by_one_gives_the_images_and_their_views() -> None:
    pixels = torch.randint(0, 256, (8, 1, 5, 5), dtype=torch.uint8)
    split = TensorSplit(pixels, torch.arange(8))
    x, y = OneByOne(split, [], 8, 2, CPU).batch()
    assert sorted(y[:8].tolist()) == list(range(8))
    assert torch.equal(y[:8], y[8:])
    torch.testing.assert_close(x, split.tensors()[0][y])
    x, _ = OneByOne(split, ["crop-flip"], 8, 1, CPU).batch()
    assert x.shape == (8, 1, 5, 5)


def test_a_floor_repeats_the_passes_and_nothing_else() -> None:
    model, x, y = tiny_net(), torch.rand(4, 3, 8, 8), torch.arange(4)
    with recorded({"model": model}) as passes:
        PGD(Threat("Linf", 0.1), 0.05, 2)(model, x, y)
        F.cross_entropy(model.train()(x), y).backward()
        with torch.no_grad():
            model.eval()(x[:2])
    assert passes == [
        *[Pass("model", "input", (4, 3, 8, 8), False)] * 2,
        Pass("model", "weights", (4, 3, 8, 8), True),
        Pass("model", "forward", (2, 3, 8, 8), False),
    ]
    floor = Floor("floor", passes, {"model": model}, Compute(CPU))
    seen: list[tuple[Tensor, bool]] = []
    model.register_forward_hook(lambda module, x, out: seen.append((x[0], module.training)))
    with recorded({"model": model}) as again, count_passes(model) as counted:
        floor.run(3)
    assert again == passes * 3
    assert (counted.forward, counted.backward) == (12, 9)
    assert all(isinstance(module, nn.Module) for module in model.modules())
