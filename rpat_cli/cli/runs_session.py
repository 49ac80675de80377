"""The bodies of the commands about finished runs. Imported when one runs, since it needs torch."""

import json
from collections.abc import Sequence

from rpat_cli.cli import console
from rpat_cli.recipe.plugins import load_plugins
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.reports.gather import build_report
from rpat_cli.reports.terminal import remarks_text, report_table
from rpat_cli.runs.listing import summarize
from rpat_cli.text import DASH, counted, duration, file_size
from rpat_cli.user_code import speaking_on_stderr


def show(folder: RunFolder, *, plugins: Sequence[str], as_json: bool) -> None:
    """`rpat runs show`: one run."""
    with speaking_on_stderr():
        load_plugins((file, "--plugin") for file in plugins)
        report = build_report(folder)
    summary = summarize(folder)
    files = {
        str(path.relative_to(folder.path)): path.lstat().st_size
        for path in sorted(folder.path.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    if as_json:
        answer = {**summary.to_dict(), "report": report.to_dict(), "files": files}
        print(json.dumps(answer))
        return
    best = DASH if report.best_epoch is None else report.best_epoch
    lines = {
        "run": report.path,
        "state": f"{summary.state}, {summary.epochs} of {summary.epochs_planned} epochs",
        "began": summary.began.replace("T", " "),
        **report.summary,
        "best": f"epoch {best}",
        "time": f"{duration(report.seconds)} of training on {report.device or 'an unknown device'}",
        "rpat": str(report.environment.get("rpat", DASH)),
        "size": f"{file_size(summary.bytes)} in {counted(len(files), 'file')}",
        "page": str(folder.html),
    }
    for label, text in lines.items():
        console.out.print(f"{label:>9}  {text}", markup=False, soft_wrap=True)
    console.out.print(report_table(report))
    for name, size in files.items():
        if name.startswith(("checkpoints", "evals")):
            line = f"{file_size(size):>9}  {name}"
            console.out.print(line, markup=False, soft_wrap=True)
    console.out.print(remarks_text([*report.remarks, *summary.remarks]))
