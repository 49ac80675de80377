"""From the recorded table of RobustBench's zoo to the one that rpat ships.

    python tests/loading/robustbench_table.py

writes rpat_cli/loading/robustbench.tsv again, and prints the counts of docs/models.md.
"""

import csv
import re
from collections import Counter
from pathlib import Path

from rpat_cli.loading.robustbench import COLUMNS, Entry
from rpat_cli.models import MODELS

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "golden" / "robustbench_entries.tsv"
SHIPPED = ROOT / "rpat_cli" / "loading" / "robustbench.tsv"

NAMED = {
    "0.5,0.5,0.5/0.5,0.5,0.5": "half",
    "0.485,0.456,0.406/0.229,0.224,0.225": "imagenet",
}


def recorded() -> list[dict[str, str]]:
    with RECORDED.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def shipped_rows() -> list[list[str]]:
    """A row for each entry that has a checkpoint in the zoo, in the order of `COLUMNS`."""
    return [shipped(row) for row in recorded() if row["architecture"] != "none"]


def shipped(row: dict[str, str]) -> list[str]:
    needs = re.split(r";(?![^(]*\))", row["needs"])
    network = network_of(row["architecture"], needs)
    files = next((need.split()[0] for need in needs if re.match(r"\d+ files", need)), "1")
    crop = next((need.partition("=")[2] for need in needs if "preprocessing=" in need), "")
    key = next((need.split()[1] for need in needs if need.startswith("sub-key")), "")
    return [
        *(row["dataset"], row["threat"], row["entry"], row["architecture"], network),
        *(normalization(needs[0]), key, files, crop, row["eps"], row["clean_acc"]),
    ]


def network_of(architecture: str, needs: list[str]) -> str:
    """What rpat calls the network (each, of several), "" if it has none."""
    if "preprocessing=Crop288" in needs:  # of images that are not resized
        return ""
    ensemble = re.fullmatch(r"ensemble-\dx-(.+)", architecture)
    if ensemble:
        return ensemble[1]
    if architecture.startswith("torchvision:") and "timm" not in needs:
        return architecture
    plain = architecture.replace("-sub", "")  # the block that is in the file, and never used
    return MODELS.spelled(plain) if plain in MODELS else ""


def normalization(need: str) -> str:
    """As `--normalize` takes it; or `per-image`, or `file` where only the file knows."""
    text = re.sub(r"\(.*\)", "", need.removeprefix("norm=")).strip()
    if text.startswith("per image"):
        return "per-image"
    if text.startswith("read from the file"):
        return "file"
    return NAMED.get(text, text) if re.fullmatch(r"none|[\d.,/]+", text) else ""


def counts(entries: list[Entry]) -> list[str]:
    """The lines of the table in docs/models.md: how many of the zoo's entries can be loaded."""
    every = Counter((entry.dataset, entry.threat) for entry in entries)
    loaded = Counter((entry.dataset, entry.threat) for entry in entries if entry.network)
    lines = ["| data set | threat | can be loaded | of |", "|---|---|---|---|"]
    for dataset, threat in every:
        lines.append(
            f"| {dataset} | {threat} | {loaded[dataset, threat]} | {every[dataset, threat]} |"
        )
    lines.append(f"| all | | {loaded.total()} | {every.total()} |")
    return lines


if __name__ == "__main__":
    rows = [COLUMNS, *shipped_rows()]
    SHIPPED.write_text("".join("\t".join(row) + "\n" for row in rows))
    from rpat_cli.loading.robustbench import entries

    print("\n".join(counts(entries())))
