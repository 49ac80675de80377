"""The page of results: tables in Markdown, between the markers of robust-perception.md."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from claim_data import Row, primary_checkpoint
from claim_further import smoothness, sure
from claim_pairs import Pair, all_compared, by_seed, collapsed, contrasts, decided, failed, gap
from claim_parts import (
    PARTS,
    Part,
    Tables,
    extent,
    no_result,
    part_of,
    reported,
    seeds_of,
)
from claim_plots import forest, pareto
from claim_text import EXPLORATORY, sentence, signed, signed_n, spread_n, table

from rpat_cli.sweep.intervals import Stat, paired_difference
from rpat_cli.sweep.table import spread
from rpat_cli.text import percent

CHECKPOINTS = ("best", "last", "best_wa", "last_wa")
STEPS = (
    ("best - last", "best", "last"),
    ("best_wa - last_wa", "best_wa", "last_wa"),
    ("EMA - plain, best", "best_wa", "best"),
    ("EMA - plain, last", "last_wa", "last"),
)

REBAT = (
    "`rebat`: ReBAT with the piecewise schedule of its paper. Its term is the form `teacher-kl`, "
    "with which it is RPAT++."
)


def results(tables: Tables, plots: Path) -> str:
    """All sections; writes the plots into the folder `plots`."""
    sections: list[str] = []
    for name, part in PARTS.items():
        if name in tables:
            sections += _part(name, part, tables, plots)
    return "\n\n".join([*sections, *smoothness(tables), *sure(tables)]) or "None yet."


def _part(name: str, part: Part, tables: Tables, plots: Path) -> Iterator[str]:
    yield f"### {part.title}"
    rows = reported(tables, name)
    if not rows:
        yield sentence(no_result(tables, name))
        return
    attack = rows[0].attack
    if not part.primary:
        yield EXPLORATORY
    yield _counts(tables[name], rows)
    made = sorted(file.stem for file in plots.glob("*.csv") if part_of(file.stem) == name)
    links = ", ".join(f"[{stem}.csv](data/{stem}.csv)" for stem in made or [name])
    yield f"`robust` is under `{attack}`; raw table{'s' if made[1:] else ''}: {links}."
    wider = [*rows, *reported(tables, part.beside)]
    pairs = all_compared(rows, contrasts(rows), "robust")
    pairs += all_compared(wider, [*_against(rows, part), *part.also], "robust")
    pairs = decided(rows, pairs) if part.primary else pairs
    clean = {}
    for pair in pairs:
        [found] = all_compared(wider, [(pair.variant, pair.baseline)], "clean")
        clean[pair.variant, pair.baseline] = found
    yield _comparisons(pairs, clean, primary=part.primary)
    if any(pair.collapsed for pair in pairs):
        yield "Exploratory, without the pairs in which a training collapsed, in points (n):"
        yield _without_collapses(pairs, clean)
    if any(row.variant == "rebat" for row in rows):
        yield REBAT
    if part.against:
        yield (
            f"Each variant is compared with its baseline and, on the seeds that both have, with "
            f"`{part.against}` of the primary part, the published scale."
        )
    if part.beside in tables:
        yield _repeated(rows, tables[part.beside])
    title = f"{part.title}: robust accuracy"
    yield _picture(plots / f"{name}-forest.svg", forest(pairs, title), "Paired differences")
    yield _picture(plots / f"{name}-pareto.svg", pareto(rows), "Clean against robust accuracy")
    if part.primary:
        yield EXPLORATORY
    yield "Selection and averaging, within each run, in points of robust accuracy (n):"
    yield _selection(rows)
    if lacking := _without_a_run(rows):
        yield f"Without a finished run, so no mean over all: {', '.join(lacking)}."
    yield "The term's difference in robust accuracy at each checkpoint (n):"
    yield _at_checkpoints(rows)
    if any(row.best_1000 is not None for row in rows):
        yield "The metric against `best` on the same 1,000 images, and perception (n):"
        yield _checks(rows)
    if any(row.audited is not None for row in rows):
        yield "`best` and an audit on all test images:"
        yield _audits(rows)


def _against(rows: Sequence[Row], part: Part) -> list[tuple[str, str]]:
    """Each variant of the term with the published one."""
    return [(variant, part.against) for variant, _ in contrasts(rows)] if part.against else []


def _counts(every: Sequence[Row], rows: Sequence[Row]) -> str:
    seeds = seeds_of(rows)
    left_out = len(seeds_of(every)) - len(seeds)
    count = len({(row.variant, row.seed) for row in rows})
    lost, broken = (
        f"{len(those)} of {count}" + "".join(f"; {row.variant}, seed {row.seed}" for row in those)
        for those in (failed(rows), collapsed(rows))
    )
    took = {(row.variant, row.seed): row.seconds for row in rows if row.seconds is not None}
    cost = f" A training took {spread_n(list(took.values()), ' s')}." if took else ""
    return (
        f"{extent(every)} (summed over the trials). Complete: seeds "
        f"{', '.join(map(str, seeds))}; {left_out} incomplete and left out. "
        f"Failed trainings: {lost}. Collapsed: {broken}.{cost}"
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


def _without_collapses(pairs: Sequence[Pair], clean: Mapping[tuple[str, str], Pair]) -> str:
    lines = []
    for pair in pairs:
        if pair.collapsed:
            both = (clean[pair.variant, pair.baseline], pair)
            shown = [signed_n(each.without_collapses()) for each in both]
            lines.append([f"{pair.variant} to {pair.baseline}", *shown])
    return table(["", "clean", "robust"], lines)


def _selection(rows: Sequence[Row]) -> str:
    """Each variant, and all of them: the mean over them is one value for each seed."""
    variants = list(dict.fromkeys(row.variant for row in rows))
    lines = [[variant] for variant in variants]
    everywhere = ["all, by seed"]
    for _, one, other in STEPS:
        found = [
            (by_seed(rows, each, "robust", one), by_seed(rows, each, "robust", other))
            for each in variants
        ]
        for line, (values, others) in zip(lines, found, strict=True):
            line.append(signed_n(paired_difference(values, others)))
        first, second = (_mean([pair[side] for pair in found]) for side in (0, 1))
        everywhere.append(signed_n(paired_difference(first, second)))
    return table(["", *(name for name, _, _ in STEPS)], [*lines, everywhere])


def _without_a_run(rows: Sequence[Row]) -> list[str]:
    finished = {row.variant for row in rows if not row.failed}
    return [each for each in dict.fromkeys(row.variant for row in rows) if each not in finished]


def _mean(found: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Over variants, for each seed that all of them have."""
    seeds = set.intersection(*(set(each) for each in found))
    return {seed: Stat.of([each[seed] for each in found]).mean for seed in sorted(seeds)}


def _at_checkpoints(rows: Sequence[Row]) -> str:
    lines = []
    for variant, baseline in contrasts(rows):
        cells = [f"{variant} to {baseline}"]
        for checkpoint in CHECKPOINTS:
            found = all_compared(rows, [(variant, baseline)], "robust", checkpoint)
            cells.append(signed_n(found[0].difference if found else None))
        lines.append(cells)
    return table(["", *CHECKPOINTS], lines)


def _checks(rows: Sequence[Row]) -> str:
    baselines = dict(contrasts(rows))
    lines = []
    for variant in dict.fromkeys(row.variant for row in rows):
        own = gap(rows, variant)
        within = paired_difference(own, gap(rows, baselines.get(variant, "")))
        cells = [variant]
        cells += [signed_n(paired_difference(own, dict.fromkeys(own, 0.0))), signed_n(within)]
        for name in ("bend", "unevenness"):
            cells.append(spread_n(list(by_seed(rows, variant, name).values())))
        lines.append(cells)
    head = ["", "metric - best", "more than the baseline's", "RPAT's loss at mix 0.5", "unevenness"]
    return table(head, lines)


def _audits(rows: Sequence[Row]) -> str:
    """How low AutoAttack on all test images can be, which is bounded below what `best` and the
    audit leave; at primary checkpoints, of which another one may share the weights."""
    lines = []
    for row in rows:
        if row.audited is None or row.checkpoint != primary_checkpoint(row.variant):
            continue
        assert row.audit_gap is not None
        numbers = (row.robust, row.audited, row.audited - row.audit_gap)
        sample = f"{row.audit_broken:.0f} of {row.audit_sampled:.0f}"
        shown = [percent(number) for number in numbers]
        lines.append([f"{row.variant}, seed {row.seed}", *shown, sample])
    head = ["", "metric", "`best` and audit", "AutoAttack at least (95 %)"]
    return table([*head, "broken in the sample"], lines)


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


def _picture(path: Path, svg: str, words: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(svg, encoding="utf-8")
    return f"![{words}]({path.parent.name}/{path.name})"
