"""Reports on disk, and the tables made of them."""

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from maskrt.benchmarks.harness import tables
from maskrt.benchmarks.harness.measure import Row, Spread
from maskrt.benchmarks.harness.report_json import (
    CaseReport,
    EqualityCounts,
    environment,
    print_report,
    read_report,
    total,
    write_report,
)
from maskrt.benchmarks.harness.summary import COMPARISONS, summary_markdown
from maskrt.benchmarks.reports.refine_plots import memory_figure, quality_figure, write_figure
from maskrt.benchmarks.reports.refine_quality import RefineQuality, SelectionRow
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
    """Arguments that point at a README with a stale table, at a page with every other table, and at results."""
    (tmp_path / "README.md").write_text(MARKED)
    page = tmp_path / "docs" / "deep" / "page.md"
    page.parent.mkdir(parents=True)
    page.write_text("".join(f"<!-- bench:{name} -->\n<!-- /bench -->\n" for name in tables.TABLES if name != "soss"))
    write_report(report, tmp_path / "results" / "soss.json")
    return ["--root", str(tmp_path), "--results", str(tmp_path / "results")]


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
        (
            "<!-- bench:other -->\n<!-- /bench -->",
            "no table is called 'other'; known: summary, quality, policies, refine_quality, clicks, ",
        ),
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


def test_a_page_of_docs_can_hold_a_table(place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text("no table here\n")
    page = tmp_path / "docs" / "page.md"
    page.write_text(MARKED)
    assert tables.main([*place, "--check"]) == 1
    assert capsys.readouterr().err == f"{page} is stale: run python -m maskrt.benchmarks.harness.tables\n"
    assert tables.main(place) == 0
    assert "| maskrt (demo) | 500 ms |" in page.read_text()
    assert (tmp_path / "README.md").read_text() == "no table here\n"


def test_a_table_without_a_place_is_an_error(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "docs" / "deep" / "page.md"
    page.write_text(page.read_text().replace("bench:voting", "voting").replace("bench:summary", "summary"))
    before = page.read_text()
    assert tables.main(place) == 2
    assert "no page has a place for summary, voting: write <!-- bench:summary -->" in capsys.readouterr().err
    assert page.read_text() == before
    assert (tmp_path / "README.md").read_text() == MARKED  # nothing is written where a table has no place


def test_the_summary_compares_time_memory_and_answers(tmp_path: Path) -> None:
    assert summary_markdown(tmp_path) == ""
    rows = (
        Row("maskrt (demo)", 0.5, 0.6, 5, 300.0),
        Row("pytorch_upstream (demo)", 200.25, 210.0, 5, 4000.0),
    )
    ratios = {"vs_pytorch_upstream_demo": SPREAD}
    write_report(
        CaseReport("soss", environment(2), rows, ratios, EQUALITY, {"demo": EQUALITY}, ()), tmp_path / "soss-demo.json"
    )
    pair = (
        Row("baseline", 0.13, 0.2, 80, 829.0, dice=0.7207, gflops=3.669),
        Row("sliding, 40% of 8 x 8", 0.068, 0.1, 80, 631.0, dice=0.7241, gflops=1.609),
    )
    ratios = {"sliding, 40% of 8 x 8_vs_baseline": Spread(1.9, 1.4, 3.1)}
    write_report(CaseReport("two-stage", environment(2), pair, ratios, EQUALITY, {}, ()), tmp_path / "two-stage.json")
    text = summary_markdown(tmp_path)
    first = "500 ms against 200 s, 400.50 times; 300 MB against 4000 MB"
    assert f"PyTorch | {first} | 10 masks: 8 identical, 2 ties, 0 different | `soss-demo.json` |" in text
    second = "68 ms against 130 ms, 1.90 times; 631 MB against 829 MB; 1.61 GFLOPs against 3.67 GFLOPs"
    assert f"| {second} | Dice 0.724 against Dice 0.721 | `two-stage.json` |" in text
    assert text.count(".json` |") == 2
    write_report(CaseReport("two-stage", environment(2), pair, {}, EQUALITY, {}, ()), tmp_path / "two-stage.json")
    with pytest.raises(InputError, match=r"two-stage\.json has no 'sliding, 40% of 8 x 8_vs_baseline'"):
        summary_markdown(tmp_path)


def test_what_was_not_measured_is_an_empty_block(place: list[str], tmp_path: Path) -> None:
    (tmp_path / "results" / "soss.json").unlink()
    assert tables.main(place) == 0
    assert (tmp_path / "README.md").read_text() == MARKED.replace("old\n", "")


def test_quality_is_a_table_of_scores(place: list[str], tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="needs maskrt[demo]")
    from maskrt.benchmarks.reports.quality import Quality
    from maskrt.runtime.evaluation.metrics import Metrics

    scores = {"soss": Metrics(0.9, 0.8, math.nan, 0.6, 0.5, 0.4)}
    quality = Quality(20, 1000, scores, scores, 0.71, {}, 0.72, 9, 8, 0.5)
    (tmp_path / "results" / "quality.json").write_bytes(msgspec.json.encode(quality))
    (tmp_path / "README.md").write_text("<!-- bench:quality -->\n<!-- /bench -->\n" + MARKED)
    assert tables.main(place) == 0
    text = (tmp_path / "README.md").read_text()
    assert "|  | accuracy | f1 | precision | recall | iou | auc | dice |\n| --- | ---: |" in text
    assert "| soss | 0.900 | 0.800 | - | 0.600 | 0.500 | 0.400 | - |" in text
    assert "seeds 1000 to 1019" in text


def test_the_committed_pages_are_up_to_date() -> None:
    assert tables.main(["--check"]) == 0


def test_the_summary_has_every_row() -> None:
    text = summary_markdown(tables.RESULTS)
    assert len(COMPARISONS) == 5
    for each in COMPARISONS:
        assert f"| {each.what} | {each.peer} | " in text


def test_a_refiners_rows_have_quality(tmp_path: Path) -> None:
    row = Row("adaptive (demo_2k)", 1.5, 1.6, 3, 900.0, iou=0.912, mba=0.8034, decoded_fraction=0.0512)
    plain = Row("full (resnet50_6k)", 50.0, 50.0, 1, 2900.0, decoded_fraction=1.0)
    ratios = {"adaptive_vs_strided4": Spread(1.2, 1.1, 1.3), "adaptive_vs_strided4_demo_2k": Spread(1.2, 1.1, 1.3)}
    counts = EqualityCounts(1, 1, 0, 0, 0, True, 1e-6)
    report = CaseReport("refine", environment(2), (row, plain), ratios, counts, {"demo_2k": counts}, ("a note",))
    write_report(report, tmp_path / "refine-demo.json")
    text = tables.with_tables("<!-- bench:refine -->\n<!-- /bench -->\n", tmp_path)
    assert "|  | median | p95 | runs | peak memory | decoded | IoU | mBA |" in text
    assert "| adaptive (demo_2k) | 1.50 s | 1.60 s | 3 | 900 MB | 5.12 | 91.20 | 80.34 |" in text
    assert "| full (resnet50_6k) | 50.00 s | 50.00 s | 1 | 2900 MB | 100.00 | - | - |" in text
    assert text.count("Ratio ") == 1  # the one without a size is among the others
    assert "- A note" in text


def test_clicks_with_and_without_learning(tmp_path: Path) -> None:
    rows = [
        {"configuration": name, "limit": limit, "failures": failures, "noc": noc, "fr_percent": 100 * failures / 40}
        for name, limit, failures, noc in [
            ("none", "20@85", 20, 12.0),
            ("none", "30@90", 0, 9.5),
            ("R", "20@85", 15, 11),
        ]
    ]
    where = msgspec.to_builtins(environment(2))
    found = {
        "images": 7,
        "objects": 40,
        "options": {"erosions": 9},
        "failed_objects": "give-up",
        "environment": where,
        "sequences": rows,
    }
    (tmp_path / "clicks.json").write_bytes(msgspec.json.encode(found))
    text = tables.with_tables("<!-- bench:clicks -->\n<!-- /bench -->\n", tmp_path)
    assert "|  | NoC 20@85 | FR 20@85 | failures, against none | NoC 30@90 |" in text
    assert "| none | 12.00 | 50.0 | +0.0% | 9.50 | 0.0 | +0.0% |" in text
    assert "| R | 11.00 | 37.5 | -25.0% |" in text
    assert "40 objects in 7 pictures; set: erosions=9; failed ones are given up" in text


def test_what_selections_cost(tmp_path: Path) -> None:
    rows = (
        SelectionRow("rough", 0.8, 0.6),
        SelectionRow("full", 0.9, 0.75, 1.0, Spread(1.0, 1.0, 1.0)),
        SelectionRow("adaptive", 0.899, 0.749, 0.04, Spread(2.5, 2.0, 3.0)),
    )
    found = RefineQuality(20, 900000, ((2000, 1500), (3840, 2160)), environment(2), rows)
    (tmp_path / "refine_quality.json").write_bytes(msgspec.json.encode(found))
    text = tables.with_tables("<!-- bench:refine_quality -->\n<!-- /bench -->\n", tmp_path)
    assert "| rough | 80.00 | 60.00 | - | - |" in text
    assert "| adaptive | 89.90 | 74.90 | 4.00 | 2.50 (2.00 to 3.00) |" in text
    assert "seeds 900000 to 900019, 2000x1500, 3840x2160 in turns" in text
    (tmp_path / "refine_quality.json").write_text("{}")
    with pytest.raises(InputError, match="does not hold a refiner's quality"):
        tables.with_tables("<!-- bench:refine_quality -->\n<!-- /bench -->\n", tmp_path)


def test_plots_depend_on_the_figures_alone(tmp_path: Path) -> None:
    rows = (SelectionRow("rough", 0.8, 0.6), SelectionRow("full", 0.9, 0.75, 1.0, Spread(1.0, 1.0, 1.0)))
    quality = RefineQuality(1, 900000, ((200, 150),), environment(2), rows)
    counts = EqualityCounts(1, 1, 0, 0, 0, True, 0.0)
    measured = tuple(Row(f"full (resnet50_{p})", 1.0, 1.0, 1, mb) for p, mb in (("2k", 900.0), ("6k", 2900.0)))
    write_report(CaseReport("refine", environment(2), measured, {}, counts, {}, ()), tmp_path / "refine-a.json")
    pictures = []
    for turn in range(2):
        write_figure(quality_figure(quality), tmp_path / f"quality{turn}.svg")
        write_figure(memory_figure(tmp_path / "refine-a.json"), tmp_path / f"memory{turn}.svg")
        pictures.append([(tmp_path / f"{name}{turn}.svg").read_bytes() for name in ("quality", "memory")])
    assert pictures[0] == pictures[1]
    assert all(b"<svg" in picture for picture in pictures[0])
    (line,) = (line for line in memory_figure(tmp_path / "refine-a.json").axes[0].lines)
    assert line.get_xydata().tolist() == [[3.0, 0.9], [24.0, 2.9]]
