"""What the primary comparisons say, in few words: at the top of the page, and as sentences for
README.md and docs/results.md."""

import textwrap
from collections import Counter
from collections.abc import Sequence

from claim_data import LIMIT, LONG, Row
from claim_further import ENOUGH, hours_for
from claim_numbers import MOST_PAIRS, pairs_needed
from claim_pairs import (
    CRITERION,
    HELPS,
    HURTS,
    NO_EFFECT,
    NOT_SIGNIFICANT,
    NOT_TESTED,
    OF_THE_ATTACK,
    PLANNED,
    UNCHECKED,
    Pair,
    all_compared,
    collapsed,
    contrasts,
    failed,
)
from claim_parts import FIRST, PARTS, Tables, extent, no_result, primary, reported, seeds_of
from claim_text import EXPLORATORY, points, sentence, signed, signed_n, span

from rpat_cli.sweep.intervals import Stat
from rpat_cli.text import counted

SENTENCES = {
    "README.md": "docs/experiments/robust-perception.md",
    "docs/results.md": "experiments/robust-perception.md",
}
"""The pages that say what came out between <!-- claim --> and <!-- /claim -->, and their link."""

BEFORE = {
    "README.md": (
        "On these 1,600 images robust perception shows no consistent gain; the gains on CIFAR-10, "
        "0.3 to 1.3\npoints in the paper (Linf, ResNet-18), are of the size of the seed noise here."
    ),
    "docs/results.md": (
        "More seeds and real data decide "
        "([the plan of that experiment](experiments/robust-perception.md))."
    ),
}
"""What they say while there is no answer, or no longer one."""

NOTHING = "No result yet: this page is the plan, written down before the first run."

VERDICTS = (HELPS, HURTS, NO_EFFECT, OF_THE_ATTACK, NOT_SIGNIFICANT, UNCHECKED, NOT_TESTED)
"""In the order in which they are said."""

IN_SHORT = {OF_THE_ATTACK: "an effect that a stronger attack does not confirm"}
"""What a verdict is called where nothing explains it."""

ALWAYS = (HELPS, HURTS)
"""Said also of no method."""

PUBLISHED = (0.003, 0.013)
"""The gains of the paper on CIFAR-10 (second-hand), as fractions."""

GAINS = f"{100 * PUBLISHED[0]:+g} to {100 * PUBLISHED[1]:+g}"


def answer(tables: Tables) -> str:
    """A list for each part with primary comparisons: what came out, or why nothing is said yet."""
    said = []
    for name in tables:
        if PARTS[name].primary and reported(tables, name):
            said.append(_part(tables, name))
        elif PARTS[name].primary:
            said.append(f"{PARTS[name].title}: {no_result(tables, name)}.")
    return "\n\n".join(said) or NOTHING


def _part(tables: Tables, name: str) -> str:
    rows, pairs = reported(tables, name), primary(tables, name)
    headline = (
        f"**On {PARTS[name].title}, robust perception {_headline(rows, pairs)}.** Published, on "
        f"CIFAR-10: {GAINS} points."
    )
    seen = f"{_count(pairs)} of each method; " if pairs else ""
    how = (
        f"{seen}{extent(tables[name])}. Mean differences in robust accuracy (`{rows[0].attack}`), "
        f"in points, with 95 % intervals; an effect has {CRITERION}."
    )
    lines = [_losses(rows)]
    for verdict in VERDICTS:
        those = [pair for pair in pairs if pair.verdict == verdict]
        if those:
            lines.append(_line(verdict, those))
    if lost := _without_pair(rows, pairs):
        lines.append(f"Without any pair: {', '.join(lost)}.")
    if clean := all_compared(rows, contrasts(rows), "clean"):
        lines.append(f"Clean accuracy ({EXPLORATORY[:-1].lower()}): {_named(clean)}.")
    lines.append(_what_it_takes(rows, pairs))
    bullets = (_wrapped(line, "- ") for line in lines if line)
    return "\n".join([_wrapped(headline), "", _wrapped(how), "", *bullets])


def _headline(rows: Sequence[Row], pairs: Sequence[Pair]) -> str:
    """`helps 1 of 5 methods, hurts 0; no effect found in 4`"""
    numbers = Counter(pair.verdict for pair in pairs)
    methods = counted(len(contrasts(rows)), "method")
    said = [f"helps {numbers[HELPS]} of {methods}, hurts {numbers[HURTS]}"]
    for verdict in VERDICTS:
        if numbers[verdict] and verdict not in ALWAYS:
            said.append(f"{IN_SHORT.get(verdict, verdict)} in {numbers[verdict]}")
    if lost := _without_pair(rows, pairs):
        said.append(f"no pair in {len(lost)}")
    return "; ".join(said)


def _line(verdict: str, those: Sequence[Pair]) -> str:
    """A verdict, of which methods, and what else is to be known of it."""
    if verdict == OF_THE_ATTACK:
        named = "; ".join(f"{_named([pair])}, but {_gap(pair)}" for pair in those)
        return sentence(f"{verdict}, since `{LONG}` changes it by more than a third: {named}")
    if verdict == NO_EFFECT:
        return sentence(f"{verdict}: {_named(those)}. There, {_excluded(those)}")
    return sentence(f"{verdict}: {_named(those)}")


def _gap(pair: Pair) -> str:
    """On which side the stronger attack takes more."""
    assert pair.gap is not None
    more = "more" if pair.gap > 0 else "less"
    taken = f"{100 * abs(pair.gap):.2f} points {more}"
    return f"`{LONG}` takes {taken} from the side with the term ({LIMIT:,} images)"


def _excluded(those: Sequence[Pair]) -> str:
    """What the highest end of the intervals of comparisons without an effect leaves of the
    published gains."""
    top = _highest(those)
    if top is None:
        return "no gain is excluded, since trainings collapsed"
    if top < PUBLISHED[0]:
        left = "and with them all published ones"
    elif top < PUBLISHED[1]:
        left = f"which leaves room for published ones up to {points(top)}"
    else:
        left = "which leaves room for all published ones"
    if collapsing := [pair.baseline for pair in those if pair.collapsed]:
        left += f"; not so for {', '.join(collapsing)}, where trainings collapsed"
    return f"gains above {points(top)} points are excluded, {left}"


def _highest(those: Sequence[Pair]) -> float | None:
    """The highest end of the intervals of comparisons in which no training collapsed."""
    intervals = [pair.difference.interval for pair in those if not pair.collapsed]
    return max((interval[1] for interval in intervals if interval), default=None)


def _losses(rows: Sequence[Row]) -> str:
    """Trainings that collapsed or failed."""
    said = []
    if broken := collapsed(rows):
        said.append(f"Collapsed, and in all means: {_by_variant(broken, rows)}.")
        robust = all_compared(rows, contrasts(rows), "robust")
        kept = [
            f"{pair.baseline} {signed_n(pair.without_collapses()) or 'none'}"
            for pair in robust
            if pair.collapsed
        ]
        said.append(f"Without the pairs in which one collapsed (exploratory): {'; '.join(kept)}.")
    if lost := failed(rows):
        said.append(f"Failed: {_by_variant(lost, rows)}.")
    return " ".join(said)


def _free_of_collapse(pairs: Sequence[Pair]) -> tuple[list[Pair], str]:
    """Those without a collapsed training, which says nothing of the size of a difference or of the
    spread of others, and words that say so; all of them if there is no other."""
    found = [pair for pair in pairs if not pair.collapsed]
    if not found or len(found) == len(pairs):
        return list(pairs), ""
    return found, " where no training collapsed"


def _by_variant(those: Sequence[Row], rows: Sequence[Row]) -> str:
    """`pgd + ra, seed 3; trades, 8 of 8 seeds`"""
    named = []
    for variant in dict.fromkeys(row.variant for row in rows):
        seeds = [row.seed for row in those if row.variant == variant]
        if len(seeds) == 1:
            named.append(f"{variant}, seed {seeds[0]}")
        elif seeds:
            named.append(f"{variant}, {len(seeds)} of {len(seeds_of(rows))} seeds")
    return "; ".join(named)


def sentences(tables: Tables, link: str) -> str:
    """What came out of each primary part that is reported, and what more would take, a line each;
    nothing of a part as long as an effect in it is not yet checked against `best`, and nothing
    without the first part. `link`: to the page of the experiment."""
    found = {name: primary(tables, name) for name in tables if PARTS[name].primary}
    checked = {name: pairs for name, pairs in found.items() if pairs and _checked(pairs)}
    if FIRST not in checked:
        return ""
    said: list[str] = []
    for name, pairs in checked.items():
        rows, where, term = reported(tables, name), f"On {PARTS[name].title}", ""
        if not said:
            where, term = f"[{where}]({link})", " at its published scale"
        outcome = f"{where}, robust perception{term} {_headline(rows, pairs)}"
        said.append(f"{outcome} ({'; '.join(_notes(rows, pairs))}).")
    said.append(_what_it_takes(reported(tables, FIRST), checked[FIRST]))
    return "\n".join(filter(None, said))


def _notes(rows: Sequence[Row], pairs: Sequence[Pair]) -> list[str]:
    """The numbers of a sentence, in points: of the effects with their intervals."""
    notes = [f"{_count(pairs)} of each method"]
    for those, what in ((collapsed(rows), "collapsed"), (failed(rows), "failed")):
        if those:
            count = len({(row.variant, row.seed) for row in rows})
            notes.append(f"{len(those)} of {count} trainings {what}")
    if effects := [pair for pair in pairs if pair.verdict in ALWAYS]:
        notes.append(f"{_named(effects)} points of robust accuracy, with 95 % intervals")
    robust, where = _free_of_collapse(pairs)
    clean, _ = _free_of_collapse(all_compared(rows, contrasts(rows), "clean"))
    means = [span([pair.difference.mean for pair in those]) for those in (robust, clean)]
    notes.append(f"in the mean {means[0]} points robust and {means[1]} clean{where}")
    notes.append(f"published on CIFAR-10: {GAINS} robust")
    top = _highest([pair for pair in pairs if pair.verdict == NO_EFFECT])
    if top is not None:
        there = "no effect was found" + (" and no training collapsed" if where else "")
        notes.append(f"where {there}, gains above {points(top)} are excluded")
    return notes


def _checked(pairs: Sequence[Pair]) -> bool:
    return all(pair.verdict != UNCHECKED for pair in pairs)


def _without_pair(rows: Sequence[Row], pairs: Sequence[Pair]) -> list[str]:
    compared = {(pair.variant, pair.baseline) for pair in pairs}
    return [each[1] for each in contrasts(rows) if each not in compared]


def _named(pairs: Sequence[Pair]) -> str:
    return "; ".join(f"{pair.baseline} {signed(pair.difference)}" for pair in pairs)


def _count(pairs: Sequence[Pair]) -> str:
    """`8 pairs`, or `5 to 8 pairs`: of each comparison."""
    sizes = sorted({pair.difference.n for pair in pairs})
    return counted(sizes[0], "pair") if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} pairs"


def _what_it_takes(rows: Sequence[Row], pairs: Sequence[Pair]) -> str:
    """For the middle one of the sizes that the plan names, by the method of the largest spread."""
    seen = {pair.baseline: Stat.of(list(pair.by_seed.values())).sd or 0.0 for pair in pairs}
    without = [method for _, method in contrasts(rows) if not seen.get(method)]
    if len(without) == len(contrasts(rows)):
        return ""
    free, where = _free_of_collapse([pair for pair in pairs if seen[pair.baseline]])
    spreads = {pair.baseline: seen[pair.baseline] for pair in free}
    most = max(spreads, key=lambda method: spreads[method])
    needed = pairs_needed(ENOUGH, spreads[most])
    but = f" (none was seen of {', '.join(without)})" if without else ""
    spread = f"With the spread seen of {most}, the largest{where}{but}"
    size = f"a true difference of {100 * ENOUGH:g} points"
    if needed is None:
        return f"{spread}, {size} takes more than {MOST_PAIRS:,} pairs of each method."
    return (
        f"{spread}, {needed} pairs of each method find {size} with 80 % probability: at the "
        f"paper's scale some {hours_for(needed):,.0f} GPU hours for {PLANNED} methods, if the "
        "spread there is as here."
    )


def _wrapped(text: str, bullet: str = "") -> str:
    return textwrap.fill(
        text,
        100,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )
