"""The body of `rpat compare`: match, show, write. Imported when the command runs, since it needs
torch."""

import json
from pathlib import Path

from rpat_cli.cli import console
from rpat_cli.records.files import new_file, write_new
from rpat_cli.reports.comparison import MAX_LISTED, changed_images, comparison_table
from rpat_cli.reports.terminal import remarks_text
from rpat_cli.runs.compare import match
from rpat_cli.runs.compare_page import comparison_page


def compare(
    a: Path,
    b: Path,
    *,
    checkpoint: str | None,
    changed: bool,
    as_json: bool,
    page: Path | None = None,
) -> None:
    """`rpat compare`: two models on the same images. Nothing is overwritten by the page."""
    file = None if page is None else new_file(page, "--page")
    matched = match(a, b, checkpoint)
    most = None if changed else MAX_LISTED
    if as_json:
        print(json.dumps(matched.to_dict()))
    else:
        for name, which, files in matched.measured:
            for path, labels in files.items():
                line = f"{name}: {path}  ({which}: {', '.join(labels)})"
                console.out.print(line, markup=False, soft_wrap=True)
        console.out.print(comparison_table(matched.comparisons))
        for line in changed_images(matched.comparisons, most):
            console.out.print(line, markup=False, soft_wrap=True)
        console.out.print(remarks_text(matched.remarks))
    if file is not None:
        file = file if file.suffix else file.with_suffix(".html")
        text = comparison_page(matched, (a, b), file=file, checkpoint=checkpoint, most=most)
        console.say(f"page: {write_new(file, text)}")
