"""The report of a run on disk: report.json and report.html."""

import json

from rpat_cli.records.files import write_whole
from rpat_cli.records.run_folder import RunFolder
from rpat_cli.reports.gather import build_report
from rpat_cli.reports.html import render_html
from rpat_cli.reports.report import Report


def write_report(folder: RunFolder, baseline: Report | None = None) -> Report:
    """Build the report and write both files, each whole or not at all; the page with the curves of
    a `baseline`, if one is given.

    Raises `RunFolderError` when the folder cannot be written: earlier reports are untouched then.
    """
    report = build_report(folder)
    write_whole(folder.report, json.dumps(report.to_dict(), indent=1))
    write_whole(folder.html, render_html(report, baseline))
    return report
