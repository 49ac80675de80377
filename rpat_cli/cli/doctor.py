"""`rpat doctor`."""

import json

import typer
from rich.text import Text

from rpat_cli.cli import console
from rpat_cli.cli.run_options import AsJson
from rpat_cli.signals import importing

MARKS = {"ok": "ok", "missing": "-", "problem": "!!"}


def doctor(as_json: AsJson = False) -> None:
    """Say what this machine has, and what is missing for what: versions, devices, extras, folders.

    Ends with exit code 1 if something is missing that every command needs.

    Examples:

      rpat doctor

      rpat doctor --json
    """
    with importing():
        from rpat_cli.runs.doctor import as_dict, examine, healthy
    findings = examine()
    if as_json:
        print(json.dumps(as_dict(findings)))
    else:
        topic = ""
        for each in findings:
            if each.topic != topic:
                topic = each.topic
                console.out.print(topic, style="bold")
            line = f"  {MARKS[each.state]:<2} {each.name:<13} {each.text}"
            console.out.print(Text(line), soft_wrap=True)
            if each.remedy and each.state != "ok":
                console.out.print(Text(f"{'':<19}{each.remedy}"), soft_wrap=True)
        console.say("all that is needed is there" if healthy(findings) else "see the lines with !!")
    if not healthy(findings):
        raise typer.Exit(1)
