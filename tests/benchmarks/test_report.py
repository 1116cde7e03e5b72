"""What a run wrote becomes tables and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from capture_lib import report
from capture_lib.picture import picture


def result(row: str, contender: str, ratio: float, **more: Any) -> report.Result:
    return {
        "row": row,
        "title": "some traffic: with details",
        "contender": contender,
        "requests": 10,
        "ratio": ratio,
        "ratio_with_output": ratio,
        "bound": 0.1,
        "capture": 1 - ratio,
        "refused": 0,
        "planning_ms": [1.0, 2.0],
        **more,
    }


RESULTS = [
    result("A10", report.FAST, 0.2),
    result("A2", report.FAST, 0.125),
    result("A2", report.MAIN, 0.125, planning_ms=None),
    result("A2", "Strands", 1.25, refused=3),
]


def test_a_row_has_its_bound_bill_capture_and_planning_time() -> None:
    lines = report.rows_table(RESULTS).splitlines()

    assert [line.split(" ")[1] for line in lines[2:]] == ["A2", "A10"]
    assert lines[2].split(" | ")[2:] == ["0.100", "**0.125**", "0.875", "0.125", "0", "1.0 / 2.0 |"]


def test_refused_requests_stand_beside_the_bill() -> None:
    assert report.contenders_table(RESULTS, ("Strands",)).splitlines()[2] == "| A2 | 0.100 | 1.250 (3 refused) |"


def test_results_of_another_run_replace_those_of_the_same_row_and_contender(tmp_path: Path) -> None:
    kept = tmp_path / "results.json"
    report.merge(kept, "rows", RESULTS)
    report.merge(kept, "rows", [result("A2", "Strands", 0.5)])

    found = report.load(kept)["rows"]
    assert len(found) == len(RESULTS)
    assert found[-1]["ratio"] == 0.5


def test_tables_go_between_their_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- rows -->\nold\n<!-- /rows -->\nafter\n", "utf-8")

    report.put_tables(page, {"rows": "new"})

    assert page.read_text("utf-8") == "before\n<!-- rows -->\nnew\n<!-- /rows -->\nafter\n"


def test_the_picture_is_well_formed_and_marks_everyone() -> None:
    drawn = ET.fromstring(picture(RESULTS, ["A2"]))

    assert any(element.tag.endswith("circle") for element in drawn)
