"""The live bars on terminals of several widths."""

import io

import pytest
from rich.console import Console

from rpat_cli.cli.progress import _bars


@pytest.mark.parametrize("width", [60, 80, 120])
def test_only_the_text_next_to_the_bars_is_cut_on_a_narrow_terminal(width: int) -> None:
    terminal = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    bars = _bars(terminal)
    terms = "ce 3.523  consistency 0.044  ra 0.001  kl 0.120  pairing 0.250  margin 0.500"
    bars.add_task(
        "training", total=320, completed=9, info="epoch 1/10  clean 71.0 %  robust 56.2 %"
    )
    bars.add_task("epoch 1", total=32, completed=9, info=f"9/32  396 img/s  {terms}")
    with terminal.capture() as seen:
        terminal.print(bars.get_renderable())
    lines = seen.get().splitlines()
    assert len(lines) == 2
    assert all("left -:--:--" in line for line in lines)
    assert "training" in lines[0]
    assert "9/32  396 img/s" in lines[1]
    assert ("robust 56.2 %" in lines[0]) == (width >= 80)
