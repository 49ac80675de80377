"""The results of the experiment on robust perception, from the folders of its sweeps:

    python docs/experiments/claim.py --measure sweeps/claim-fashion-mnist    # best, perception
    python docs/experiments/claim.py sweeps/claim-fashion-mnist sweeps/claim-selection
    python docs/experiments/claim.py --ended sweeps/claim-selection    # without its last seeds
    python docs/experiments/claim.py                 # the page again, from the tables in data/
    python docs/experiments/claim.py --repeat 1 sweeps/claim-fashion-mnist

Each folder becomes data/NAME.csv, the raw table; the page robust-perception.md, its plots and the
two sentences in README.md and docs/results.md are made from these tables alone. A folder's name
says which part of the experiment it is; of several machines that share a part, each has a folder
NAME.MACHINE and a table of its own, and each block counts once. A part is reported when all planned
seeds are complete, or before that with `--ended`, which says that its runs have ended. `--repeat`
trains a trial again that is drawn at random, compares, and writes nothing.
"""

import argparse
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from claim_answer import BEFORE, SENTENCES, answer, sentences
from claim_data import Row, collect
from claim_page import results
from claim_parts import FIRST, PARTS, Tables, combined, part_of
from claim_runs import measure, repeat
from raw_tables import DATA, between, read_csv, write_csv

from rpat_cli.errors import RpatError

DOCS = Path(__file__).parent.parent
PAGE = DOCS / "experiments" / "robust-perception.md"
ROOT = DOCS.parent


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, help="folders of sweeps")
    parser.add_argument("--measure", action="store_true", help="run what is missing first")
    parser.add_argument("--ended", action="store_true", help="no more trials, on any machine")
    parser.add_argument(
        "--jobs", type=positive, help="of --measure at once (default: as rpat sweep)"
    )
    parser.add_argument("--repeat", type=positive, metavar="N", help="so many trials of each again")
    parser.add_argument("--seed", type=int, help="which trials --repeat draws (default: random)")
    parser.add_argument("--data", type=Path, default=DATA, help="where the raw tables are")
    parser.add_argument("--root", type=Path, default=ROOT, help="where README.md and docs/ are")
    given = parser.parse_args(arguments)
    unknown = [str(folder) for folder in given.folders if part_of(folder.name) not in PARTS]
    missing = [str(folder) for folder in given.folders if not (folder / "table.json").is_file()]
    acting = [name for name in ("measure", "ended", "repeat") if getattr(given, name)]
    if acting and not given.folders:
        parser.error(f"--{acting[0]} needs the folder of a sweep, such as sweeps/{FIRST}")
    if unknown:
        parser.error(f"{', '.join(unknown)}: must be named {' or '.join(PARTS)}")
    if missing:
        parser.error(f"{', '.join(missing)}: no table.json; run rpat sweep first")
    try:
        if given.repeat:
            return _repeat(given.folders, given.repeat, given.seed)
        problems = _read(given)
        tables = tables_in(given.data)
    except RpatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # a second one; what ran was asked to save by the first
        return 130
    if not tables:
        parser.error(f"there is no raw table in {given.data}; name the folder of a sweep")
    fill(given.root, given.data, tables)
    for problem in problems:
        print(f"not measured: {problem}", file=sys.stderr)
    return 1 if problems else 0


def positive(text: str) -> int:
    """For argparse, which shows the message."""
    number = int(text) if text.lstrip("+-").isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; given {text!r}")
    return number


def _read(given: argparse.Namespace) -> list[str]:
    """The raw table of each folder, after what is missing was measured. Returns what failed."""
    problems = []
    for folder in given.folders:
        if given.measure:
            problems += measure(folder, given.jobs, audits=PARTS[part_of(folder.name)].audits)
        write_csv(collect(folder, ended=given.ended), given.data / f"{folder.name}.csv")
    return problems


def _repeat(folders: Sequence[Path], count: int, seed: int | None) -> int:
    """3 if anything differs, as a check of rpat that fails."""
    seed = secrets.randbelow(10**6) if seed is None else seed
    failed = False
    for folder in folders:
        for each in range(seed, seed + count):
            title, different = repeat(folder, each)
            said = "NOT the same: " + "; ".join(different) if different else "the same, bit for bit"
            print(f"{folder.name}, --seed {each}: {title}: {said}", flush=True)
            failed = failed or bool(different)
    return 3 if failed else 0


def tables_in(data: Path) -> Tables:
    """The raw tables that are there, in the order of the experiment's parts."""
    read: dict[str, list[list[Row]]] = {name: [] for name in PARTS}
    for file in sorted(data.glob("*.csv"), key=lambda file: file.stem):
        if part_of(file.stem) in read and (rows := read_csv(file, Row)):
            read[part_of(file.stem)].append(rows)
    return {name: combined(found) for name, found in read.items() if found}


def fill(root: Path, data: Path, tables: Tables) -> None:
    """Write the page and its plots, and the sentences, or what the pages say without any: the page
    may have taken its answer back."""
    page = root / PAGE.relative_to(ROOT)
    text = page.read_text(encoding="utf-8")
    text = between(text, "answer", answer(tables))
    text = between(text, "results", results(tables, data))
    page.write_text(text, encoding="utf-8")
    for name, link in SENTENCES.items():
        file = root / name
        said = sentences(tables, link) or BEFORE[name]
        text = between(file.read_text(encoding="utf-8"), "claim", said)
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
