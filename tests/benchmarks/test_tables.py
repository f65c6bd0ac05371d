"""Reports on disk, and the tables made of them."""

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from maskrt.benchmarks import tables
from maskrt.benchmarks.measure import Row, Spread
from maskrt.benchmarks.report_json import (
    CaseReport,
    EqualityCounts,
    environment,
    print_report,
    read_report,
    total,
    write_report,
)
from maskrt.runtime.errors import InputError

MARKED = "# Title\n\n<!-- bench:soss -->\nold\n<!-- /bench -->\n\nend\n"
SPREAD = Spread(400.5, 390.0, 410.0)
EQUALITY = EqualityCounts(10, 8, 2, 0, 3, True, 1e-6)


@pytest.fixture
def report() -> CaseReport:
    return CaseReport(
        case="soss",
        environment=environment(threads=2),
        rows=(
            Row("maskrt (demo)", 0.5, 0.6, 5, 300.0, {"encoder": 100.0, "decoder": 400.0}),
            Row("pytorch_upstream (demo)", 200.25, 210.0, 5, 4000.0),
        ),
        ratios={
            "vs_pytorch_upstream": Spread(400.5, 390.0, 410.0),
            "vs_pytorch_upstream_demo": Spread(400.5, 390, 410),
        },
        equality=EQUALITY,
        equality_by_size={"demo": EQUALITY},
        notes=("a note",),
    )


@pytest.fixture
def place(tmp_path: Path, report: CaseReport) -> list[str]:
    """Arguments that point at a README with a stale table, and at results."""
    (tmp_path / "README.md").write_text(MARKED)
    write_report(report, tmp_path / "results" / "soss.json")
    return ["--readme", str(tmp_path / "README.md"), "--results", str(tmp_path / "results")]


def test_a_report_survives_the_disk(report: CaseReport, tmp_path: Path) -> None:
    write_report(report, tmp_path / "deep" / "soss.json")
    assert read_report(tmp_path / "deep" / "soss.json") == report
    raw: dict[str, Any] = msgspec.json.decode((tmp_path / "deep" / "soss.json").read_bytes())
    assert {"case", "environment", "rows", "ratios", "equality", "notes"} <= set(raw)
    assert {"masks", "identical_rles", "ties", "different"} <= set(raw["equality"])
    assert {"processor", "cores", "threads", "memory_gb", "os", "python", "versions", "date"} == set(raw["environment"])
    assert {"name", "median_s", "p95_s", "runs", "peak_rss_mb"} == set(raw["rows"][1])
    assert raw["ratios"]["vs_pytorch_upstream"] == {"median": 400.5, "min": 390.0, "max": 410.0}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"case": "soss"}', b"\xff" * 9])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "soss.json").write_bytes(content)
    with pytest.raises(InputError, match=r"soss\.json is not a report"):
        read_report(tmp_path / "soss.json")
    with pytest.raises(InputError, match="missing"):
        read_report(tmp_path / "none.json")


def test_total_adds_up_and_keeps_the_worst() -> None:
    other = EqualityCounts(5, 4, 0, 1, 0, False, 1e-3)
    assert total({"demo": EQUALITY, "vit_b": other}) == EqualityCounts(15, 12, 2, 1, 3, False, 1e-3)


def test_printed_for_people(report: CaseReport, capsys: pytest.CaptureFixture[str]) -> None:
    print_report(report)
    out = capsys.readouterr().out
    for part in (
        "pytorch_upstream (demo)",
        "200.250",
        "encoder 100 ms, decoder 400 ms",
        "400.50 times",
        "note: a note",
    ):
        assert part in out


def test_rewritten_in_place_and_then_up_to_date(place: list[str], tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    assert tables.main([*place, "--check"]) == 1
    assert readme.read_text() == MARKED
    assert tables.main(place) == 0
    text = readme.read_text()
    assert text.startswith("# Title\n\n<!-- bench:soss -->\n\n|  | median |")
    assert text.endswith("\n<!-- /bench -->\n\nend\n")
    assert "| maskrt (demo) | 500 ms | 600 ms | 5 | 300 MB |" in text
    assert "| pytorch_upstream (demo) | 200 s | 210 s |" in text
    assert "vs_pytorch_upstream_demo: 400.50 times (390.00 to 410.00)" in text
    assert tables.main([*place, "--check"]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- bench:other -->\n<!-- /bench -->", "no table is called 'other'; known: quality, policies, soss"),
        ("<!-- bench:soss -->\nno end", "is not followed"),
        ("<!-- bench:soss -->\n<!-- bench:soss -->\n<!-- /bench -->", "is not followed"),
    ],
)
def test_broken_markers_are_told(
    text: str, message: str, place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text(text)
    assert tables.main(place) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == text


def test_what_was_not_measured_is_an_empty_block(place: list[str], tmp_path: Path) -> None:
    (tmp_path / "results" / "soss.json").unlink()
    assert tables.main(place) == 0
    assert (tmp_path / "README.md").read_text() == MARKED.replace("old\n", "")


def test_quality_is_a_table_of_scores(place: list[str], tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="needs maskrt[demo]")
    from maskrt.benchmarks.quality import Quality
    from maskrt.runtime.metrics import Metrics

    scores = {"soss": Metrics(0.9, 0.8, math.nan, 0.6, 0.5, 0.4)}
    quality = Quality(20, 1000, scores, scores, 0.71, {}, 0.72, 9, 8, 0.5)
    (tmp_path / "results" / "quality.json").write_bytes(msgspec.json.encode(quality))
    (tmp_path / "README.md").write_text("<!-- bench:quality -->\n<!-- /bench -->")
    assert tables.main(place) == 0
    text = (tmp_path / "README.md").read_text()
    assert "|  | accuracy | f1 | precision | recall | iou | auc |\n| --- | ---: |" in text
    assert "| soss | 0.900 | 0.800 | - | 0.600 | 0.500 | 0.400 |" in text
    assert "seeds 1000 to 1019" in text


def test_the_readme_is_up_to_date() -> None:
    assert tables.OPENING in tables.README.read_text()
    assert tables.main(["--check"]) == 0
