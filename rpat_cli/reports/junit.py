"""JUnit's XML, as most CI systems read it: a suite of test cases for each group of rules."""

import re
from xml.etree import ElementTree as ET

from rpat_cli.reports.cases import Case, Told

FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 may hold; the name of a file can."""


def junit(told: Told) -> str:
    """PASS is a test that passed, FAIL one that failed. WARN is skipped with the reason: CI systems
    show it, and it does not turn the build red, as it does not change the exit code."""
    root = ET.Element("testsuites", name="rpat")
    for group in dict.fromkeys(case.rule.group for case in told.cases):
        cases = [case for case in told.cases if case.rule.group == group]
        root.append(_suite(told, group, cases))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _suite(told: Told, group: str, cases: list[Case]) -> ET.Element:
    levels = [case.level for case in cases]
    counts = {"tests": len(cases), "failures": levels.count("FAIL"), "errors": 0}
    counts["skipped"] = levels.count("WARN")
    numbers = {name: str(number) for name, number in counts.items()}
    suite = ET.Element("testsuite", {"name": f"rpat.{group}", **numbers})
    properties = ET.SubElement(suite, "properties")
    about = {"model": told.model, **told.figures}
    for name, value in about.items():
        ET.SubElement(properties, "property", name=_clean(name), value=_clean(str(value)))
    for case in cases:
        suite.append(_case(case))
    return suite


def _case(case: Case) -> ET.Element:
    name = f"{case.rule.name}: {case.subject}" if case.subject else case.rule.name
    element = ET.Element("testcase", classname=f"rpat.{case.rule.group}", name=_clean(name))
    text = _clean(case.message)
    if case.level == "FAIL":
        failure = ET.SubElement(element, "failure", message=text, type=case.rule.id)
        failure.text = f"{text}\n{case.rule.help}"
    elif case.level == "WARN":
        ET.SubElement(element, "skipped", message=f"WARN: {text}")
    else:
        ET.SubElement(element, "system-out").text = text
    return element


def _clean(text: str) -> str:
    return FORBIDDEN.sub("?", text)
