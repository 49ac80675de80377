"""The page of results: tables in Markdown, between the markers of robust-perception.md."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from claim_data import Row, complete_blocks
from claim_numbers import pairs_needed, rank_correlation
from claim_pairs import (
    OF_THE_ATTACK,
    PLANNED,
    Pair,
    all_compared,
    by_seed,
    collapsed,
    contrasts,
    decided,
    failed,
    gap,
)
from claim_plots import forest, pareto

from rpat_cli.sweep.intervals import Stat, paired_difference
from rpat_cli.sweep.table import signed, spread

PAGE = Path(__file__).parent / "robust-perception.md"


@dataclass(frozen=True)
class Part:
    """A part of the experiment. `primary`: its comparisons are corrected and decide. `least`: how
    many complete blocks the plan wants before anything is reported. `also`: more comparisons, of
    variants that may be in the part `beside` it."""

    title: str
    primary: bool
    least: int = 3
    also: tuple[tuple[str, str], ...] = ()
    beside: str = ""


RAAT = (("raat", "pgd"), ("raat", "pgd + ra"), ("raat", "consistency"))
PARTS = {
    "claim-fashion-mnist": Part("Fashion-MNIST, small-cnn", primary=True, least=5),
    "claim-fashion-mnist-terms": Part(
        "Other scales and forms, and RAAT: Fashion-MNIST, small-cnn",
        primary=False,
        also=RAAT,
        beside="claim-fashion-mnist",
    ),
    "claim-cifar10": Part("CIFAR-10, preact-resnet18", primary=True),
    "claim-cifar10-jpeg": Part("CIFAR-10 (JPEG copies), small-cnn", primary=True),
    "claim-selection": Part("120 epochs on fashion-mini, small-cnn", primary=False),
}

CHECKPOINTS = ("best", "last", "best_wa", "last_wa")
STEPS = (
    ("best - last", "best", "last"),
    ("best_wa - last_wa", "best_wa", "last_wa"),
    ("EMA - plain, best", "best_wa", "best"),
    ("EMA - plain, last", "last_wa", "last"),
)
SIZES = (0.003, 0.005, 0.01, 0.013)


def results(tables: Mapping[str, Sequence[Row]], plots: Path, hours: float | None) -> str:
    """All sections; writes the plots into the folder `plots`."""
    sections = []
    for name, part in PARTS.items():
        if name in tables:
            sections += _part(name, part, tables, plots)
    pairs = [pair for name in tables if PARTS[name].primary for pair in primary(tables, name)]
    sections += _smoothness(tables)
    sections += _sure(pairs, hours)
    return "\n\n".join(sections)


def reported(tables: Mapping[str, Sequence[Row]], name: str) -> list[Row]:
    """The complete blocks of a part; none of them as long as they are fewer than planned."""
    rows = complete_blocks(tables.get(name, ()))
    return rows if rows and len(_seeds(rows)) >= PARTS[name].least else []


def primary(tables: Mapping[str, Sequence[Row]], name: str) -> list[Pair]:
    rows = reported(tables, name)
    return decided(rows, all_compared(rows, contrasts(rows), "robust"))


def answer(tables: Mapping[str, Sequence[Row]]) -> str:
    """What the primary comparisons say, a paragraph for each part."""
    said = []
    for name in tables:
        if not PARTS[name].primary:
            continue
        pairs = primary(tables, name)
        if not pairs:
            said.append(f"{PARTS[name].title}: no answer yet; {_count(name, tables)}.")
            continue
        means = [100 * pair.difference.mean for pair in pairs]
        tops = [100 * pair.difference.interval[1] for pair in pairs if pair.difference.interval]
        words = ("helps", "hurts", OF_THE_ATTACK)
        count = {word: sum(pair.verdict == word for pair in pairs) for word in words}
        attack = count[OF_THE_ATTACK]
        of_attack = f", and for {attack} the effect is one of the attack" if attack else ""
        text = (
            f"{PARTS[name].title}: of {len(pairs)} methods the term helps {count['helps']} and "
            f"hurts {count['hurts']}{of_attack}; mean paired differences in robust accuracy from "
            f"{min(means):+.2f} to {max(means):+.2f} points"
        )
        if tops:
            text += f", and no 95 % interval reaches above {max(tops):+.2f}"
        sizes = sorted({pair.difference.n for pair in pairs})
        said.append(f"{text} (n = {', '.join(map(str, sizes))} seeds).{_unchecked(pairs)}")
    return "\n\n".join(said)


def _count(name: str, tables: Mapping[str, Sequence[Row]]) -> str:
    there = len(_seeds(complete_blocks(tables[name])))
    return f"{there} complete blocks are there, of the {PARTS[name].least} that are the least"


def _unchecked(pairs: Sequence[Pair]) -> str:
    """Which effects may still turn out to be the attack's."""
    names = [pair.variant for pair in pairs if pair.effect and pair.gap is None]
    if not names:
        return ""
    return f" Not yet checked against `best` in all pairs: {', '.join(names)}."


def _part(name: str, part: Part, tables: Mapping[str, Sequence[Row]], plots: Path) -> Iterator[str]:
    yield f"### {part.title}"
    rows = reported(tables, name)
    if not rows:
        yield f"Nothing is reported yet: {_count(name, tables)}."
        return
    attack = rows[0].attack
    yield _counts(tables[name], rows)
    yield f"`robust` is under `{attack}`; raw table: [{name}.csv](data/{name}.csv)."
    wider = [*rows, *reported(tables, part.beside)]
    pairs = all_compared(rows, contrasts(rows), "robust")
    pairs += all_compared(wider, part.also, "robust") if part.also else []
    pairs = decided(rows, pairs) if part.primary else pairs
    clean = {}
    for pair in pairs:
        [found] = all_compared(wider, [(pair.variant, pair.baseline)], "clean")
        clean[pair.variant, pair.baseline] = found
    yield _comparisons(pairs, clean, primary=part.primary)
    if part.beside in tables:
        yield _repeated(rows, tables[part.beside])
    title = f"{part.title}: robust accuracy"
    yield _picture(plots / f"{name}-forest.svg", forest(pairs, title), "Paired differences")
    yield _picture(plots / f"{name}-pareto.svg", pareto(rows), "Clean against robust accuracy")
    yield "Selection and averaging, within each run, in points of robust accuracy:"
    yield _selection(rows)
    yield "The term's difference in robust accuracy at each checkpoint:"
    yield _at_checkpoints(rows)
    if any(row.best_1000 is not None for row in rows):
        yield "The metric against `best` on the same 1,000 images, and perception:"
        yield _checks(rows)


def _seeds(rows: Sequence[Row]) -> list[int]:
    return sorted({row.seed for row in rows if not row.pending})


def _counts(every: Sequence[Row], rows: Sequence[Row]) -> str:
    seeds = _seeds(rows)
    left_out = len(_seeds(every)) - len(seeds)
    broken = [f"{row.variant}, seed {row.seed}" for row in collapsed(rows)]
    lost = [f"{row.variant}, seed {row.seed}" for row in failed(rows)]
    return (
        f"{len(seeds)} complete blocks (seeds {', '.join(map(str, seeds))}), "
        f"{left_out} incomplete and left out. "
        f"Failed: {'; '.join(lost) or 'none'}. Collapsed: {'; '.join(broken) or 'none'}."
    )


def _comparisons(
    pairs: Sequence[Pair], clean: Mapping[tuple[str, str], Pair], *, primary: bool
) -> str:
    head = ["", "n", "clean", "difference", "robust", "difference"]
    head += ["p (Holm)", "verdict"] if primary else []
    lines = []
    for pair in pairs:
        also = clean[pair.variant, pair.baseline]
        cells = [f"{pair.variant}<br>to {pair.baseline}", str(pair.difference.n)]
        for each in (also, pair):
            cells.append(f"{spread(each.with_it)}<br>{spread(each.without)}")
            cells.append(signed(each.difference))
        if primary:
            cells += ["" if pair.p is None else f"{pair.p:.3g}", pair.verdict]
        lines.append(cells)
    return table(head, lines)


def _selection(rows: Sequence[Row]) -> str:
    lines = []
    for variant in dict.fromkeys(row.variant for row in rows):
        at = {name: by_seed(rows, variant, "robust", name) for name in CHECKPOINTS}
        found = [paired_difference(at[one], at[other]) for _, one, other in STEPS]
        lines.append([variant, *("" if each is None else signed(each) for each in found)])
    return table(["", *(name for name, _, _ in STEPS)], lines)


def _at_checkpoints(rows: Sequence[Row]) -> str:
    lines = []
    for variant, baseline in contrasts(rows):
        cells = [f"{variant} to {baseline}"]
        for checkpoint in CHECKPOINTS:
            found = all_compared(rows, [(variant, baseline)], "robust", checkpoint)
            cells.append(signed(found[0].difference) if found else "")
        lines.append(cells)
    return table(["", *CHECKPOINTS], lines)


def _checks(rows: Sequence[Row]) -> str:
    baselines = dict(contrasts(rows))
    lines = []
    for variant in dict.fromkeys(row.variant for row in rows):
        own = gap(rows, variant)
        within = paired_difference(own, gap(rows, baselines.get(variant, "")))
        cells = [variant]
        for difference in (paired_difference(own, dict.fromkeys(own, 0.0)), within):
            cells.append("" if difference is None else signed(difference))
        for name in ("bend", "unevenness"):
            found = by_seed(rows, variant, name)
            stat = Stat.of(list(found.values())) if found else None
            sd = f" ± {stat.sd:.3g}" if stat and stat.sd is not None else ""
            cells.append("" if stat is None else f"{stat.mean:.3g}{sd}")
        lines.append(cells)
    head = ["", "metric - best", "more than the baseline's", "RPAT's loss at mix 0.5", "unevenness"]
    return table(head, lines)


def _repeated(rows: Sequence[Row], others: Sequence[Row]) -> str:
    """Trials that both parts have trained, each on its own: are the figures the same?"""
    known = {(row.trial, row.checkpoint): row for row in others if not row.failed}
    both = [(row, known[row.trial, row.checkpoint]) for row in rows if _key(row) in known]
    same = sum((a.clean, a.robust) == (b.clean, b.robust) for a, b in both)
    return (
        f"Repeated: {len({a.trial for a, _ in both})} trials were trained in both parts; "
        f"{same} of their {len(both)} checkpoints have the same figures."
    )


def _key(row: Row) -> tuple[str, str]:
    return row.trial, row.checkpoint


def _smoothness(tables: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """Does unevenness go with accuracy: in what the term changes, and over the runs of a method?"""
    lines = []
    for name in tables:
        rows = reported(tables, name)
        groups = {"what the term changes": _changes(rows)}
        for method in dict.fromkeys(row.baseline or row.variant for row in rows):
            groups[f"runs of {method}"] = _values(rows, method)
        for group, values in groups.items():
            for metric in ("clean", "robust"):
                keys = sorted(values["unevenness"].keys() & values[metric].keys())
                found = rank_correlation(
                    [values["unevenness"][key] for key in keys],
                    [values[metric][key] for key in keys],
                )
                if found:
                    rho, (low, high) = found
                    shown = f"{rho:+.2f} [{low:+.2f}, {high:+.2f}]"
                    lines.append([PARTS[name].title, group, metric, str(len(keys)), shown])
    if lines:
        yield "### Smoothness"
        yield (
            "Rank correlation of unevenness with accuracy. Below 0: where the logits change more "
            "evenly, the accuracy is higher."
        )
        yield table(["", "over", "accuracy", "n", "Spearman [95 %]"], lines)


Values = dict[str, dict[tuple[str, str, int], float]]
"""metric -> variant, baseline, seed -> value"""

MEASURED = ("unevenness", "clean", "robust")


def _changes(rows: Sequence[Row]) -> Values:
    pairs = contrasts(rows)
    return {metric: _differences(all_compared(rows, pairs, metric)) for metric in MEASURED}


def _values(rows: Sequence[Row], method: str) -> Values:
    """Of all runs of a method, without and with the term."""
    values: Values = {metric: {} for metric in MEASURED}
    for variant in dict.fromkeys(
        row.variant for row in rows if method in (row.variant, row.baseline)
    ):
        for metric in MEASURED:
            for seed, value in by_seed(rows, variant, metric).items():
                values[metric][variant, "", seed] = value
    return values


def _differences(pairs: Sequence[Pair]) -> dict[tuple[str, str, int], float]:
    found = {}
    for pair in pairs:
        for seed, value in pair.by_seed.items():
            found[pair.variant, pair.baseline, seed] = value
    return found


def _sure(pairs: Sequence[Pair], hours: float | None) -> Iterator[str]:
    """How many pairs, and hours on one GPU for those of all methods, each size of a true
    difference would take."""
    stats = [Stat.of(list(pair.by_seed.values())) for pair in pairs]
    known = [(pair, stat.sd) for pair, stat in zip(pairs, stats, strict=True) if stat.sd]
    if not known:
        return
    yield "### What it would take to be sure"
    methods = f"both sides of all {PLANNED} methods"
    time = "" if hours is None else f"; in brackets the hours for {methods} at {hours:g} each"
    sd_from = f"from the sd of the differences seen{time}"
    yield f"Pairs for 80 % power at the level 0.05 / {PLANNED}, {sd_from}."
    lines = []
    for pair, sd in known:
        cells = [f"{pair.variant} to {pair.baseline}", f"{100 * sd:.2f}"]
        for size in SIZES:
            n = pairs_needed(size, sd)
            time = "" if hours is None or n is None else f" ({2 * n * PLANNED * hours:.0f} h)"
            cells.append("more than 10,000" if n is None else f"{n}{time}")
        lines.append(cells)
    yield table(["", "sd, points", *(f"{100 * size:g} points" for size in SIZES)], lines)


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *(["---:"] * (len(head) - 1))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def _picture(path: Path, svg: str, words: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(svg, encoding="utf-8")
    return f"![{words}]({path.parent.name}/{path.name})"


def between(text: str, marker: str, content: str) -> str:
    """`text` with `content` between `<!-- marker -->` and `<!-- /marker -->`."""
    head, start, rest = text.partition(f"<!-- {marker} -->\n")
    _, end, tail = rest.partition(f"<!-- /{marker} -->")
    if not start or not end:
        raise ValueError(f"the page has no markers <!-- {marker} --> and <!-- /{marker} -->")
    return f"{head}{start}{content}\n{end}{tail}"
