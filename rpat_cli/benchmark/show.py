"""A benchmark as tables for the terminal, readable without color, and as an HTML page."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from rpat_cli.benchmark.evaluation import EvaluationTimes
from rpat_cli.benchmark.race import Spread
from rpat_cli.benchmark.results import Benchmark
from rpat_cli.benchmark.training import FLOOR, Row, TrainingTimes
from rpat_cli.reports.html import template
from rpat_cli.reports.words import show_threat
from rpat_cli.text import DASH, counted, duration, percent
from rpat_cli.version import __version__

NAMES = {
    "published": "published",
    "exact": "rpat, exact",
    "floor of exact": "its passes",
    "fast": "rpat, fast",
    "floor of fast": "its passes",
    "pyautoattack": "pyautoattack",
}


TIMES = "\N{MULTIPLICATION SIGN}"


def tables(benchmark: Benchmark) -> Iterator[Table | Text]:
    """What to print."""
    if benchmark.training:
        yield training_table(benchmark.training)
        yield Text(data_line(benchmark.training))
        yield from map(Text, (f"! {remark}" for remark in benchmark.training.remarks))
    if benchmark.evaluation:
        yield evaluation_table(benchmark.evaluation)
        yield from map(Text, (f"! {remark}" for remark in benchmark.evaluation.remarks))
    machine = benchmark.machine
    device = machine["gpu"] or machine["cpu"]
    yield Text(f"{device}, {counted(machine['threads'], 'thread')}, torch {machine['torch']}")


def training_table(times: TrainingTimes) -> Table:
    """A column for each contestant: medians with quartiles, ratios, shares of the step."""
    shape = TIMES.join(map(str, times.batch))
    passes = ", ".join(f"{number} {kind}" for kind, number in sorted(times.passes.items()))
    rounds = times.rows[0].seconds.n
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"A training step on {shape}: {of_rounds(rounds)}",
        title_justify="left",
        caption=f"Passes of a step, by what their gradient is for: {passes}.",
        caption_justify="left",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    for row in times.rows:
        table.add_column(NAMES[row.name].removeprefix("rpat, "), justify="right", no_wrap=True)
    for heading, show in LINES.items():
        table.add_row(heading, *map(show, times.rows), end_section=heading in END_SECTION)
    return table


LINES: dict[str, Callable[[Row], str]] = {
    "precision": lambda row: row.precision,
    "seconds": lambda row: f"{row.seconds.median:.3g}{below(row.seconds)}",
    "CPU seconds": lambda row: f"{row.cpu_seconds.median:.3g}",
    "per epoch": lambda row: duration(row.seconds_per_epoch),
    "images/s": lambda row: f"{row.images_per_second:.3g}",
    "peak memory": lambda row: memory(row.peak_memory),
    "against published": lambda row: ratio(row.speedup, TIMES),
    "  by CPU time": lambda row: ratio(row.speedup_cpu, TIMES),
    "to its bare passes": lambda row: ratio(row.to_floor, ""),
    "  by CPU time ": lambda row: ratio(row.to_floor_cpu, ""),
    "passes, %": lambda row: percent(row.shares.get("passes"), 1),
    "data, %": lambda row: percent(row.shares.get("data"), 1),
    "bookkeeping, %": lambda row: percent(row.shares.get("bookkeeping"), 1),
}
"""Line of the table -> what it shows of a contestant."""

END_SECTION = ("peak memory", "  by CPU time ")


def of_rounds(rounds: int) -> str:
    return "one round" if rounds == 1 else f"medians of {rounds} rounds, quartiles below"


def memory(peak: int | None) -> str:
    """In MiB."""
    return DASH if peak is None else f"{peak / 2**20:.0f} MiB"


def shares(row: Row) -> str:
    """Of a step's time in per cent: `97/0.4/2.6`; unknown ones are dashes."""
    if not row.shares:
        return ""
    keys = ("passes", "data", "bookkeeping")
    return " / ".join(percent(row.shares.get(key), 1) for key in keys)


def ratio(spread: Spread | None, sign: str) -> str:
    """The median with quartiles below it."""
    return DASH if spread is None else f"{spread.median:.2f}{sign}{below(spread)}"


def below(spread: Spread) -> str:
    """A second line with the quartiles, where there was more than one round."""
    return f"\n{quartiles(spread)}" if spread.n > 1 else ""


def quartiles(spread: Spread) -> str:
    return f"{spread.low:.3g}{DASH}{spread.high:.3g}"


def data_line(times: TrainingTimes) -> str:
    """Both data paths in a sentence."""
    parts = [f"{name} {1000 * spread.median:.3g} ms" for name, spread in times.data.items()]
    spread = times.data_ratio
    return (
        f"A batch of {TIMES.join(map(str, times.batch))} takes {', '.join(parts)}: "
        f"{spread.median:.1f}{TIMES} ({quartiles(spread)})."
    )


def evaluation_table(times: EvaluationTimes) -> Table:
    """A row for each contestant: seconds, ratio to the library, robust accuracy, disagreement."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"AutoAttack, {show_threat(times.threat)}, {times.images} images, one process",
        title_justify="left",
    )
    table.add_column("", no_wrap=True)
    for heading in ("batch", "seconds", "speed", "by CPU time", "robust", "flags that differ"):
        table.add_column(heading, justify="right")
    for row in times.rows:
        table.add_row(
            NAMES[row.name],
            str(row.batch_size),
            f"{row.seconds.median:.1f}",
            f"{row.speedup.median:.2f}{TIMES}",
            f"{row.speedup_cpu.median:.2f}{TIMES}",
            percent(row.robust_acc),
            str(row.differing),
        )
    return table


@dataclass(frozen=True)
class Bar:
    """One bar of the plot, in the coordinates of the picture; `low` and `high` are quartiles."""

    name: str
    kind: str
    y: int
    width: float
    low: float
    high: float
    text: str


LEFT, WIDTH, STEP = 130, 420, 34


def bars(rows: Sequence[tuple[str, Spread]]) -> list[Bar]:
    """Horizontal bars from zero, the longest as wide as the picture."""
    longest = max(spread.high for _, spread in rows)
    made = []
    for number, (name, spread) in enumerate(rows):
        low, median, high = (
            round(WIDTH * value / longest, 1) for value in (spread.low, spread.median, spread.high)
        )
        kind = "floor" if name.startswith(FLOOR) else name
        text = f"{spread.median:.3g} s"
        made.append(Bar(NAMES[name], kind, 10 + number * STEP, median, low, high, text))
    return made


def page(benchmark: Benchmark, command: str) -> str:
    """The whole HTML page. External text is escaped."""
    plots = []
    if training := benchmark.training:
        rows = [(row.name, row.seconds) for row in training.rows]
        plots.append(("Seconds per training step", bars(rows)))
    if evaluation := benchmark.evaluation:
        rows = [(row.name, row.seconds) for row in evaluation.rows]
        plots.append(("Seconds for AutoAttack", bars(rows)))
    remarks = [*(training.remarks if training else ()), *(evaluation.remarks if evaluation else ())]
    return template("bench.html.j2").render(
        benchmark=benchmark,
        plots=plots,
        names=NAMES,
        remarks=remarks,
        shares=shares,
        quartiles=quartiles,
        data_line=data_line,
        left=LEFT,
        command=command,
        version=__version__,
    )
