"""Prompt policies: what each changes, on a tiny bundle."""

import dataclasses
import sys
from contextlib import ExitStack

import msgspec
import numpy as np

from maskrt.benchmarks.harness import tables
from maskrt.benchmarks.harness.measure import Spread
from maskrt.benchmarks.reports import policies
from maskrt.benchmarks.scenes.bedside import Instance, draw_scene
from maskrt.runtime.kinds.open import open_pipeline


def test_every_policy_is_measured_against_the_grid(tiny_bundle, tmp_path):
    with ExitStack() as stack:
        opened = {
            name: stack.enter_context(open_pipeline(tiny_bundle, settings={"prompts": name, "points_per_side": 8}))
            for name in policies.POLICIES
        }
        found = policies.measure_policies(opened, [3, 4])
    grid, *others = found.rows
    assert [row.name for row in found.rows] == list(policies.POLICIES)
    assert grid.iou_with_grid == 1
    assert grid.grid_time_ratio == Spread(1, 1, 1)
    assert found.thin_cable_pixels > 0
    for row in (grid, *others):
        assert 0 <= row.thin_cable_recall <= 1
        assert row.grid_time_ratio.min <= row.grid_time_ratio.median <= row.grid_time_ratio.max
    assert others[1].masks < grid.masks  # coarse_to_fine asks less
    (tmp_path / "policies.json").write_bytes(msgspec.json.encode(found))
    text = tables.policies_markdown(tmp_path / "policies.json")
    assert text.count("| `prompts=") == 3


def test_command_line(tiny_bundle, tmp_path, monkeypatch, capsys):
    file = tmp_path / "policies.json"
    command = f"policies --bundle {tiny_bundle} --scenes 1 --first-seed 7 --json {file}"
    monkeypatch.setattr(sys, "argv", command.split())
    policies.main()
    printed = capsys.readouterr()
    assert printed.err == "seed 7 done\n"
    assert printed.out == file.read_text()
    found = msgspec.json.decode(file.read_bytes(), type=policies.Policies)
    assert (found.scenes, found.first_seed, len(found.rows)) == (1, 7, 3)


def test_thin_cables_are_those_no_square_fits_into():
    instances = np.zeros((40, 60), np.uint16)
    instances[10:15, :] = 1  # 5 wide
    instances[20:26, :] = 2  # 6 wide
    instances[30:33, :] = 3  # 3 wide, no cable
    objects = tuple(Instance(i, kind, True) for i, kind in ((1, "cable"), (2, "cable"), (3, "tube")))
    drawn = dataclasses.replace(draw_scene(0), instances=instances, objects=objects)
    assert (policies.thin_cables(drawn) == (instances == 1)).all()
