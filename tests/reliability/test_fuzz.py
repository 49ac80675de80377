"""Whatever is written into a recipe, `--set`, a suite or a sweep file: it is read, or refused with
one message; never a traceback, never long, never with much memory.

    RPAT_FUZZ=2000 RPAT_FUZZ_SEED=7 pytest tests/reliability/test_fuzz.py
"""

import mmap
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import pytest
from fuzz_inputs import draw

from rpat_cli.cli.options import parse_jobs
from rpat_cli.cli.train_options import OPTIONS
from rpat_cli.errors import ConfigError, RpatError
from rpat_cli.evaluation.suite import Overrides
from rpat_cli.recipe.layers import layers_of, resolve, to_yaml
from rpat_cli.recipe.suite_file import read_suite
from rpat_cli.recipe.summary import summary
from rpat_cli.runs.new_run import plan_run
from rpat_cli.sweep.expand import plan_sweep
from rpat_cli.sweep.table import build_table, sweep_table, to_csv, to_latex, to_markdown

COUNT = int(os.environ.get("RPAT_FUZZ", "200"))
SEED = int(os.environ.get("RPAT_FUZZ_SEED", "0"))
SECONDS = 2.0
PATIENCE = 30.0
"""Seconds of the clock, after which an input is taken to wait for something: other processes may
need the processor as well."""

BYTES = 2**30
PARTS = 10


class TooSlow(BaseException):
    """Not an `Exception`: nothing may catch it."""


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlow


def read_recipe_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    use_recipe(layers_of(configs=[path]))


def read_assignment(path: Path, text: str) -> None:
    use_recipe(layers_of(assignments=[text]))


def read_assignments(path: Path, text: str) -> None:
    use_recipe(layers_of(assignments=text.split("\n")))


def read_flag(path: Path, text: str) -> None:
    flag, _, value = text.partition("=")
    option = next(option for option in OPTIONS if option.long == flag)
    with suppress(ConfigError):
        parse_jobs(value)
    use_recipe(layers_of(flags={flag: (option.path, value)}))


def use_recipe(layers: list) -> None:
    recipe = resolve(layers)
    str(summary(recipe))
    plan_run(recipe, None)
    path = Path("again.yaml")
    path.write_text(to_yaml(recipe), encoding="utf-8")
    assert resolve(layers_of(configs=[path])) == recipe


def read_suite_text(path: Path, text: str) -> None:
    read_suite(text)
    read_suite(text, Overrides(restarts=2))


def read_suite_file(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    read_suite(str(path))


def read_sweep_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    plan = plan_sweep(path)
    table = build_table(plan, {}, {})
    for write in (to_markdown, to_csv, to_latex, sweep_table):
        write(table)


READERS: dict[str, Callable[[Path, str], None]] = {
    "recipe": read_recipe_text,
    "set": read_assignment,
    "sets": read_assignments,
    "flag": read_flag,
    "suite": read_suite_text,
    "suite file": read_suite_file,
    "sweep": read_sweep_text,
}


def complaint(seed: int) -> str | None:
    """What is wrong with how input number `seed` was taken; None if nothing is."""
    kind, text = draw(seed)
    memory, began = _memory_from_now(), time.process_time()
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        READERS[kind](Path("input.yaml"), text)
        wrong = None
    except RpatError as error:
        wrong = _wrong_message(error)
    except TooSlow:
        wrong = f"still not done after {PATIENCE} s"
    except BaseException:
        wrong = traceback.format_exc(limit=-4)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds, grown = time.process_time() - began, _peak() - memory
    if wrong is None and seconds > SECONDS:
        wrong = f"took {seconds:.1f} s"
    if wrong is None and grown > BYTES:
        wrong = f"took {grown / 2**30:.1f} GiB"
    return wrong and f"input {seed}, {kind}: {text[:300]!r}\n{wrong}"


def _wrong_message(error: RpatError) -> str | None:
    message = str(error)
    if not message.strip() or error.exit_code not in (1, 2):
        return f"no message, or exit code {error.exit_code}"
    if "Traceback" in message or "bug" in message:
        return f"the message is: {message}"
    return f"a message of {len(message)} characters" if len(message) > 20_000 else None


def _memory_from_now() -> int:
    """The bytes that the process holds; on Linux its peak is counted anew from here, so that what
    one input takes is not hidden behind what another took before it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """The most bytes that the process held."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts it anew")
def test_memory_is_counted_for_each_input_anew() -> None:
    for _ in range(2):  # the second time, the peak of the first is gone
        before = _memory_from_now()
        # Not from the heap, where earlier tests may have left as much memory free.
        with mmap.mmap(-1, 2**28) as held:
            for page in range(0, 2**28, mmap.PAGESIZE):
                held[page] = 1
        assert abs(_peak() - before - 2**28) < 2**24


@pytest.mark.parametrize("part", range(PARTS))
def test_strange_inputs_are_read_or_refused_with_one_message(
    part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGALRM, _too_slow)
    try:
        # Imports torch and torchvision, which takes longer than any input.
        use_recipe(layers_of(assignments=["data.augment=[autoaugment]"]))
        numbers = range(SEED * 1_000_000 + part, SEED * 1_000_000 + COUNT, PARTS)
        found = [text for text in map(complaint, numbers) if text]
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not found, f"{len(found)} of {len(numbers)} inputs:\n\n" + "\n\n".join(found)
