"""The result as JUnit XML, as pipelines read it: a case for each invariant, and a failure for each signature that is new."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any, Final

from ftmodel.invariants import INVARIANTS

FILE: Final = "junit.xml"


def render(total: dict[str, Any]) -> str:
    """The XML of a soak's result."""
    old = set(total.get("against", {}).get("still_there", ()))
    fresh = [found for found in total["violations"] if not found["known"] and found["signature"] not in old]
    cases = [cls for cls in INVARIANTS if cls.id in total["invariants"]]
    suite = ET.Element(
        "testsuite", name="ftmodel soak", tests=str(len(cases)), failures=str(len(fresh)),
        errors=str(int(bool(total["doubts"]))), time=str(total["seconds"]),
    )  # fmt: skip
    for cls in cases:
        case = ET.SubElement(suite, "testcase", classname="ftmodel", name=f"{cls.id} {cls.sentence}")
        why = total["invariants"][cls.id].get("not_applicable")
        if why:
            ET.SubElement(case, "skipped", message=why)
        for found in fresh:
            if found["invariant"] == cls.id:
                failure = ET.SubElement(case, "failure", type=found["signature"], message=found["message"])
                failure.text = f"{found['count']} times, {found['state']}; in {found['example']}"
    if total["doubts"]:
        ET.SubElement(suite, "system-err").text = "\n".join(total["doubts"])
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
