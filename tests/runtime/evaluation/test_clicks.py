"""Sequences of objects: what is clicked on, what is kept, and that a stop changes nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from fake_interactive import FakeSession
from PIL import Image
from safetensors.numpy import save

from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.click_metrics import Limit
from maskrt.runtime.evaluation.click_objects import ClickPicture, Planned, Survey, read_pictures, survey
from maskrt.runtime.evaluation.click_sequence import ClickSequence, SequenceSettings, read_sequence, write_sequence
from maskrt.runtime.evaluation.clicks import CONFIGURATIONS, learnt_from, run_sequence
from maskrt.runtime.io.sources import open_source

LIMIT = Limit(6, 85)
LEARNING = CONFIGURATIONS["R+E+x"]
SETTINGS = SequenceSettings("b" * 64, LEARNING, "cpu", LIMIT.name, "accept", 20, "p" * 64)
MAX_PIXELS = 100_000


def write_pictures(folder: Path, rng: np.random.Generator, count: int = 4, dtype: type = np.uint8) -> None:
    """Pictures with three disks each, of radius 4 to 10, and an object of 4 pixels."""
    for name in ("images", "truth"):
        (folder / name).mkdir()
    rows, columns = np.mgrid[:66, :70]
    for index in range(count):
        truth: np.ndarray = np.zeros((66, 70), dtype)
        for at, label in enumerate((3, 7, 12)):
            x, radius = rng.integers(12, 58), rng.integers(4, 11)
            truth[(rows - 11 - 22 * at) ** 2 + (columns - x) ** 2 <= radius**2] = label
        truth[64:, 68:] = 9
        Image.fromarray(rng.integers(0, 256, (66, 70, 3), np.uint8)).save(folder / "images" / f"{index}.png")
        Image.fromarray(truth).save(folder / "truth" / f"{index}.png")


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    write_pictures(tmp_path, rng)
    return tmp_path


def surveyed(folder: Path, min_area: int = 20) -> Survey:
    with open_source(str(folder / "images")) as source:
        return survey(source, folder / "truth", min_area, MAX_PIXELS)


def run(
    session: FakeSession,
    folder: Path,
    file: str = "s",
    limit: Limit = LIMIT,
    told: list | None = None,
    settings: SequenceSettings = SETTINGS,
) -> ClickSequence:
    planned = surveyed(folder).planned

    def read(some: list[Planned]) -> Iterator[ClickPicture]:
        with open_source(str(folder / "images")) as source:
            yield from read_pictures(source, folder / "truth", some, MAX_PIXELS)

    path, seen = folder / f"{file}.safetensors", [] if told is None else told
    return run_sequence(session, FakeSession(**LEARNING).state(), planned, read, limit, settings, path, seen.append)


def without_seconds(sequence: ClickSequence) -> list[tuple]:
    return [(r.name, r.label, r.clicks, r.iou) for r in sequence.records]


def test_the_configurations_are_the_papers() -> None:
    assert list(CONFIGURATIONS) == ["none", "R+E+x", "R", "C", "E", "x", "R+x", "R+U+x"]
    for name, options in CONFIGURATIONS.items():
        assert options == {
            "click_adaptation": next((letter for letter in "RC" if letter in name), "off"),
            "result_mask": next((letter for letter in "EU" if letter in name), "off"),
            "click_mask": "x" in name,
        }


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_objects_in_order_and_small_ones_left_out(tmp_path: Path, rng: np.random.Generator, dtype: type) -> None:
    write_pictures(tmp_path, rng, 11, dtype)
    found = surveyed(tmp_path)
    assert [picture.name for picture in found.planned] == [str(index) for index in range(11)]
    assert {picture.labels for picture in found.planned} == {(3, 7, 12)}
    assert (found.objects, found.left_out, found.failed) == (33, 11, {})
    assert {picture.labels for picture in surveyed(tmp_path, min_area=4).planned} == {(3, 7, 9, 12)}
    assert surveyed(tmp_path, min_area=4).sha256() != found.sha256() == surveyed(tmp_path).sha256()
    with Image.open(tmp_path / "truth" / "10.png") as image:
        altered = np.array(image)
    altered[0, 0] ^= 1
    Image.fromarray(altered).save(tmp_path / "truth" / "10.png")
    assert surveyed(tmp_path, min_area=20).sha256() != found.sha256()


def test_pictures_that_cannot_be_used_are_named(folder: Path) -> None:
    Image.fromarray(np.ones((66, 71), np.uint8)).save(folder / "truth" / "0.png")
    Image.fromarray(np.zeros((66, 70), np.uint8)).save(folder / "truth" / "1.png")
    (folder / "truth" / "2.png").unlink()
    (folder / "images" / "3.png").write_text("no image")
    Image.fromarray(np.full((66, 70), 255, np.uint8)).save(folder / "truth" / "4.png")
    Image.fromarray(np.zeros((66, 70, 3), np.uint8)).save(folder / "images" / "4.png")
    told: list[tuple[str, str | None]] = []
    with open_source(str(folder / "images")) as source:
        found = survey(source, folder / "truth", 20, MAX_PIXELS, lambda *of: told.append(of))
    assert [(picture.name, picture.labels) for picture in found.planned] == [("4", (255,))]
    assert dict(told) == {**found.failed, "4": None}
    for name, reason in {
        "0": "71 x 66, the image 70 x 66",
        "1": "no object",
        "2": "no such file",
        "3": "not an",
    }.items():
        assert reason in found.failed[name]


def test_clicks_until_the_limit_and_accepts_all(folder: Path) -> None:
    session = FakeSession(**LEARNING)
    told: list[Any] = []
    sequence = run(session, folder, told=told)
    assert [(r.name, r.label) for r in sequence.records] == [(str(i), label) for i in range(4) for label in (3, 7, 12)]
    assert told == [True] * 12
    assert session.images == 4
    assert session.clicked == sum(record.clicks for record in sequence.records)
    assert sequence.steps == session.steps == 12  # failures too are accepted
    assert sequence.skipped_steps == session.skipped_steps
    assert all(record.clicks == 6 or record.iou >= 0.85 for record in sequence.records)
    assert {record.clicks == 6 for record in sequence.records} == {True, False}
    assert all(record.seconds > 0 for record in sequence.records)


def test_failures_are_given_up_if_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given_up, give_up = [], FakeSession.give_up

    def counted(session: FakeSession, learn: bool = True) -> None:
        given_up.append(len(session.clicks))
        give_up(session, learn)

    monkeypatch.setattr(FakeSession, "give_up", counted)
    settings = msgspec.structs.replace(SETTINGS, failed="give-up")
    sequence = run(FakeSession(**LEARNING), folder, settings=settings)
    failed = [record for record in sequence.records if record.iou < 0.85]
    assert given_up == [record.clicks for record in failed] != []
    assert len(failed) < len(sequence.records)
    assert without_seconds(sequence) != without_seconds(run(FakeSession(**LEARNING), folder, "accepted"))


def test_the_later_code_learns_nothing_from_an_object_that_took_all_clicks(folder: Path) -> None:
    settings = msgspec.structs.replace(SETTINGS, failed="skip", protocol="wseseg")
    session = FakeSession(**LEARNING)
    sequence = run(session, folder, settings=settings)
    in_time = [record for record in sequence.records if record.clicks < LIMIT.clicks]
    assert 0 < len(in_time) < len(sequence.records)
    assert session.steps == len(in_time)  # one at the end of each; the fake's clicks teach nothing


def test_the_later_code_never_undoes_what_clicks_taught() -> None:
    for name, options in CONFIGURATIONS.items():
        assert learnt_from(name, "paper") == options
        kept = options["click_adaptation"].replace("R", "C")
        assert learnt_from(name, "wseseg") == options | {"click_adaptation": kept}


def test_a_file_from_before_the_protocols_is_the_papers(tmp_path: Path) -> None:
    file = tmp_path / "s.safetensors"
    content = msgspec.to_builtins(ClickSequence(SETTINGS))
    del content["settings"]["protocol"]
    file.write_bytes(save({"a": np.arange(3)}, {"maskrt": msgspec.json.encode(content).decode()}))
    assert read_sequence(file, SETTINGS)[0].settings.protocol == "paper"


def test_an_object_written_out(tmp_path: Path) -> None:
    """A disk of the fake's size takes one click; one pixel less wide, the limit decides."""
    for name in ("images", "truth"):
        (tmp_path / name).mkdir()
    rows, columns = np.mgrid[:40, :50]
    disk = (rows - 20) ** 2 + (columns - 25) ** 2 <= 36
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    Image.fromarray(disk.astype(np.uint8)).save(tmp_path / "truth" / "a.png")
    (record,) = run(FakeSession(**LEARNING), tmp_path, limit=Limit(3, 100)).records
    assert (record.clicks, record.iou) == (1, 1.0)


@pytest.mark.parametrize("stop_after", [1, 13, 25, 30, 41])
def test_a_stop_changes_nothing(folder: Path, stop_after: int) -> None:
    whole = run(FakeSession(**LEARNING), folder, "whole")
    total = sum(record.clicks for record in whole.records)
    assert total > 41
    with pytest.raises(KeyboardInterrupt):
        run(FakeSession(stop_after, **LEARNING), folder)
    before = read_sequence(folder / "s.safetensors", SETTINGS)[0].records
    session = FakeSession(**LEARNING)
    told: list[Any] = []
    session.radius[0] = 99  # whatever it was when it was opened
    continued = run(session, folder, told=told)
    assert without_seconds(continued) == without_seconds(whole)
    assert continued.records[: len(before)] == before
    assert (continued.steps, continued.skipped_steps) == (whole.steps, whole.skipped_steps)
    assert told == [False] * len(before) + [True] * (12 - len(before))
    assert session.clicked == total - sum(record.clicks for record in before)
    assert len(before) == 5 * sum(sum(r.clicks for r in whole.records[:n]) < stop_after for n in (5, 10))


def test_what_is_done_is_not_done_again(folder: Path) -> None:
    whole = run(FakeSession(**LEARNING), folder)
    again = FakeSession(**LEARNING)
    assert run(again, folder) == whole
    assert again.clicked == again.images == 0
    assert read_sequence(folder / "s.safetensors", SETTINGS) == (whole, {})  # without the session's state


def test_pictures_that_change_meanwhile_are_refused(folder: Path) -> None:
    planned = surveyed(folder).planned
    Image.fromarray(np.zeros((66, 70, 3), np.uint8)).save(folder / "images" / "1.png")
    with open_source(str(folder / "images")) as source:
        pictures = read_pictures(source, folder / "truth", planned, MAX_PIXELS)
        assert next(pictures).planned.name == "0"
        with pytest.raises(InputError, match="1: the picture or its truth has changed meanwhile"):
            next(pictures)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bundle_sha256", "c" * 64),
        ("options", {**LEARNING, "learning_rate": 1e-5}),
        ("provider", "cuda"),
        ("limit", "20@85"),
        ("failed", "give-up"),
        ("min_area", 21),
        ("pictures_sha256", "q" * 64),
        ("protocol", "wseseg"),
    ],
)
def test_a_file_of_another_run_is_refused(tmp_path: Path, field: str, value: object) -> None:
    file = tmp_path / "s.safetensors"
    write_sequence(file, ClickSequence(SETTINGS), {"a": np.arange(3)})
    other = SequenceSettings(**{**{n: getattr(SETTINGS, n) for n in SETTINGS.__struct_fields__}, field: value})
    with pytest.raises(InputError, match=rf"another {field}: choose another --out"):
        read_sequence(file, other)


def test_states_come_back_as_they_were(tmp_path: Path, rng: np.random.Generator) -> None:
    state: dict[str, np.ndarray] = {
        "weights": rng.standard_normal((3, 5), dtype=np.float32),
        "turned": rng.standard_normal((4, 3)).T,
        "step": np.array(7, np.int64),
        "none": np.zeros((0, 2), np.float32),
    }
    file = tmp_path / "s.safetensors"
    write_sequence(file, ClickSequence(SETTINGS), state)
    found = read_sequence(file, SETTINGS)[1]
    assert found.keys() == state.keys()
    for name, array in state.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "s.safetensors"
    write_sequence(file, ClickSequence(SETTINGS), {"a": np.arange(100)})
    data = file.read_bytes()
    for damaged in (data[:-10], data[:40], b"", data.replace(b"records", b"recards")):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"cannot be read .*: remove it, or choose another --out"):
            read_sequence(file, SETTINGS)
