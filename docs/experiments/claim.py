"""The results of the experiment on robust perception, from the folders of its sweeps:

    python docs/experiments/claim.py --measure sweeps/claim-fashion-mnist    # best, perception
    python docs/experiments/claim.py sweeps/claim-fashion-mnist sweeps/claim-selection
    python docs/experiments/claim.py                 # the page again, from the tables in data/

Each folder becomes data/NAME.csv, the raw table; the page robust-perception.md and its plots are
made from these tables alone. A folder's name says which part of the experiment it is.
"""

import argparse
import sys
from pathlib import Path

from claim_data import DATA, collect, measure, read_csv, write_csv
from claim_page import PAGE, PARTS, answer, between, results


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, help="folders of sweeps")
    parser.add_argument("--measure", action="store_true", help="run what is missing first")
    parser.add_argument("--jobs", type=int, default=1, help="processes for --measure")
    parser.add_argument("--hours", type=float, help="hours of one training at the paper's scale")
    parser.add_argument("--data", type=Path, default=DATA, help="where the raw tables are")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to fill in")
    given = parser.parse_args(arguments)
    unknown = [str(folder) for folder in given.folders if folder.name not in PARTS]
    missing = [str(folder) for folder in given.folders if not (folder / "table.json").is_file()]
    if unknown:
        parser.error(f"{', '.join(unknown)}: must be named {' or '.join(PARTS)}")
    if missing:
        parser.error(f"{', '.join(missing)}: no table.json; run rpat sweep first")
    for folder in given.folders:
        if given.measure:
            measure(folder, given.jobs)
        write_csv(collect(folder), given.data / f"{folder.name}.csv")
    tables = {}
    for name in PARTS:
        path = given.data / f"{name}.csv"
        rows = read_csv(path) if path.is_file() else []
        if rows:
            tables[name] = rows
    if not tables:
        parser.error(f"there is no raw table in {given.data}; name the folder of a sweep")
    text = given.page.read_text(encoding="utf-8")
    text = between(text, "answer", answer(tables))
    text = between(text, "results", results(tables, given.data, given.hours))
    given.page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
