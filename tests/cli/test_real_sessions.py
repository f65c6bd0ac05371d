"""Everything that is built on sessions, on a real one: an exported SAM of random weights, whose masks mean nothing."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import maskrt
from maskrt.kernels.arrays import Mask
from maskrt.runtime.annotate import states
from maskrt.runtime.annotate.desk import Desk
from maskrt.runtime.annotate.pictures import find_pictures
from maskrt.runtime.annotate.store import Store
from maskrt.runtime.interactive.clicks import Click
from maskrt.runtime.io.images import read_image
from maskrt.runtime.serve.predictor import Predictor, Prompt

Maskrt = Callable[..., tuple[int, str, str]]
Exported = tuple[Path, tuple[str, ...]]


@pytest.fixture
def images(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two pictures of 70 x 45, and a label picture with two objects for each, in truth/ beside them."""
    folder = tmp_path / "images"
    for name in ("images", "truth"):
        (tmp_path / name).mkdir()
    truth = np.zeros((45, 70), np.uint8)
    truth[5:25, 5:30], truth[20:40, 40:65] = 1, 2
    for index in range(2):
        Image.fromarray(rng.integers(0, 256, (45, 70, 3), np.uint8)).save(folder / f"{index}.png")
        Image.fromarray(truth).save(tmp_path / "truth" / f"{index}.png")
    return folder


def test_the_simulated_user_works_and_learns(maskrt: Maskrt, tiny_interactive: Exported, images: Path) -> None:
    report = images.parent / "report.json"
    code, said, wrong = maskrt(
        "eval-interactive", tiny_interactive[0], images, "--truth", images.parent / "truth", "--out",
        images.parent / "out", "--limits", "3@85", "--configs", "none,R+E+x", "--json", report,
        "--set", "learning_rate=0.001",
    )  # fmt: skip
    assert code == 0, said + wrong
    none, learnt = json.loads(report.read_text())["sequences"]
    assert [len(each["records"]) for each in (none, learnt)] == [4, 4]
    assert none["steps"] == 0
    assert learnt["steps"] == sum(record["clicks"] for record in learnt["records"]) + 4


def test_the_simulated_user_works_on_engines(
    tensorrt_device: Any, maskrt: Maskrt, tiny_interactive: Exported, images: Path
) -> None:
    bundle = shutil.copytree(tiny_interactive[0], images.parent / "bundle")
    code, said, wrong = maskrt("build", bundle, "--engine", "tensorrt")
    assert code == 0, said + wrong
    found = []
    for provider in ("cpu", "tensorrt"):
        out = images.parent / provider
        code, said, wrong = maskrt(
            "eval-interactive", bundle, images, "--truth", images.parent / "truth", "--out", out, "--limits", "2@85",
            "--configs", "R+E+x", "--json", out / "report.json", "--provider", provider,
        )  # fmt: skip
        assert code == 0, said + wrong
        (learnt,) = json.loads((out / "report.json").read_text())["sequences"]
        found.append((learnt["steps"], [record["clicks"] for record in learnt["records"]]))
    assert found[0] == found[1]
    assert tensorrt_device.refitted > 4  # once for an object at the least


def test_the_desk_clicks_learns_and_keeps(tiny_interactive: Exported, images: Path) -> None:
    out = images.parent / "out"
    with maskrt.open_interactive(tiny_interactive[0], settings={"learning_rate": 0.001}) as session:
        desk = Desk(session, find_pictures(str(images)), Store(out, ("cable", "tube")))
        for do in (states.Click(10, 10), states.Click(60, 40, False), states.Undo(), states.Accept()):
            desk.act(states.Request(desk.state().turn, do))
        assert session.decoder == "cable"
        assert session.steps == 4  # two clicks, one again for the undo, and the object
        desk.finish()
        session.load_decoder("again", out / "decoders" / "cable.safetensors")
    assert [each["category_id"] for each in json.loads((out / "annotations.json").read_text())["annotations"]] == [1]
    assert np.asarray(Image.open(out / "masks" / "0.png")).shape == (45, 70)


def test_the_server_predicts_and_learns_nothing(tiny_interactive: Exported, images: Path) -> None:
    async def stays() -> bool:
        return False

    async def both(predictor: Predictor, files: list[Path], prompts: list[Prompt]) -> list[list[Mask]]:
        asked = [predictor.draw(file.read_bytes(), lambda _: prompts, np.copy, stays) for file in files]
        return await asyncio.gather(*asked)

    files = sorted(images.glob("*.png"))[:2]
    prompts = [Prompt((Click(10, 10), Click(50, 30, False))), Prompt((), (5, 5, 40, 30)), Prompt((Click(20, 20),))]
    with maskrt.open_interactive(tiny_interactive[0]) as session:
        found = asyncio.run(both(Predictor(session, 10**6), files, prompts))
        for file, masks in zip(files, found, strict=True):  # which alternated, prompt by prompt
            session.set_image(read_image(file))
            for prompt, mask in zip(prompts, masks, strict=True):
                np.testing.assert_array_equal(mask, session.predict(prompt.clicks, prompt.box))
        assert not np.array_equal(found[0], found[1])
        assert session.steps == 0
