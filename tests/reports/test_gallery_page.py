"""The page shows adversarial examples as they were kept, and asks for nothing."""

import io
from base64 import b64decode

import numpy as np
import pytest
from fake_runs import NAMES, an_epoch, an_evaluation
from PIL import Image
from test_report_html import Page

from rpat_cli.attacks.threat import Threat
from rpat_cli.diagnostics.blocks import Raster
from rpat_cli.records.examples import Examples, write_examples
from rpat_cli.reports.gallery import MOST, PER_CLASS, SIDE, gallery
from rpat_cli.reports.gather import build_report
from rpat_cli.reports.html import render_html
from rpat_cli.reports.image_data import png

PREFIX = "data:image/png;base64,"


def kept(count: int = 30, channels: int = 3, side: int = 8, classes: int = 3) -> Examples:
    random = np.random.default_rng(0)
    y = np.arange(count) % classes
    return Examples(
        index=np.arange(count),
        y=y,
        clean_predicted=y,
        predicted=(y + 1) % classes,
        margin=-random.random(count).astype(np.float32),
        clean=random.integers(0, 256, (count, channels, side, side)).astype(np.uint8),
        delta=random.uniform(-0.1, 0.1, (count, channels, side, side)).astype(np.float32),
        attack=np.array(["pgd-20"] * count),
    )


def opened(raster: Raster) -> np.ndarray:
    """The pixels, (H, W) or (H, W, 3), as another reader of PNG sees them."""
    return np.asarray(Image.open(io.BytesIO(png(raster))))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_those_that_were_kept(channels: int) -> None:
    examples = kept(channels=channels)
    shown = gallery(examples, NAMES)
    assert shown is not None
    worst = int(examples.margin.argmin())
    clean, x_adv, delta = (opened(raster) for raster in shown.examples[0].images)
    expected = examples.clean[worst].transpose(1, 2, 0).squeeze()
    assert (clean == expected).all()
    moved = expected / 255 + examples.delta[worst].transpose(1, 2, 0).squeeze()
    assert np.abs(x_adv / 255 - moved.clip(0, 1)).max() < 0.5 / 255 + 1e-6
    largest = np.abs(examples.delta[worst]).max()
    assert {delta.min(), delta.max()} & {0, 255}
    back = (delta / 255 - 0.5) / 0.5 * largest
    assert np.abs(back - examples.delta[worst].transpose(1, 2, 0).squeeze()).max() < 1e-3
    assert shown.examples[0].images[2].text == f"\u00d7 {0.5 / largest:.3g}"


def test_the_worst_come_first_a_few_of_each_class_and_the_page_stays_small() -> None:
    examples = kept(40, side=150, classes=30)
    shown = gallery(examples, NAMES)
    assert shown is not None
    margins = [float(each.detail.rpartition(" ")[2]) for each in shown.examples]
    assert margins == sorted(margins)
    assert len(shown.examples) == MOST
    assert "thinned out" in shown.note
    sides = {raster.width for each in shown.examples for raster in each.images}
    assert sides == {50}
    assert max(sides) <= SIDE
    few = gallery(kept(), NAMES)
    assert few is not None
    assert len(few.examples) == 3 * PER_CLASS


def test_nothing_is_shown_where_nothing_can_be() -> None:
    assert gallery(kept(0), NAMES) is None
    assert gallery(kept(channels=5), NAMES) is None


def test_the_page_holds_them(make_run) -> None:
    run = make_run(epochs=1).train([an_epoch(1, 0.7, 0.5)]).save_last(1)
    file = run.evaluate("last", 1, an_evaluation(80, {"pgd-20": 60}))
    assert "Adversarial examples" not in render_html(build_report(run.folder))
    write_examples(file, kept())
    report = build_report(run.folder)
    page = Page(render_html(report))
    assert page.count("img") == 3 * 3 * PER_CLASS
    sources = [values["src"] for tag, values in page.elements if tag == "img"]
    assert all(source.startswith(PREFIX) for source in sources)
    first = Image.open(io.BytesIO(b64decode(sources[0].removeprefix(PREFIX))))
    assert first.size == (8, 8)
    assert all(values["alt"] for tag, values in page.elements if tag == "img")
    assert report.threat == Threat("Linf", report.recipe.threat.eps)
