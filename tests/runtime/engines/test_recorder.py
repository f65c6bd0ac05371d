"""A recorded session answers as it did, and a fair sample of its runs is kept."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.engines.recorder import Recorder, Run
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline


def test_a_watched_session_is_the_session(tiny_bundle: Path, rng: np.random.Generator) -> None:
    recorder = Recorder()
    feeds = {"image": rng.random((1, 3, 24, 32), dtype=np.float32)}
    session = open_session(tiny_bundle / "segmenter.onnx")
    with recorder.wrap_session("segmenter", session) as watched:
        assert (watched.inputs, watched.outputs) == (session.inputs, session.outputs)
        answer = watched.run(feeds, check=())
    (run,) = recorder.runs["segmenter"]
    assert run.feeds == feeds
    assert run.outputs == answer


def test_every_network_of_a_pipeline_is_recorded(tiny_bundle: Path, rng: np.random.Generator) -> None:
    recorder, rgb = Recorder(size=3), rng.integers(0, 256, (40, 60, 3), np.uint8)
    with SossPipeline(open_bundle(tiny_bundle), wrap_session=recorder.wrap_session) as watched:
        found = watched(rgb)
    with SossPipeline(open_bundle(tiny_bundle)) as plain:
        assert np.array_equal(plain(rgb).label, found.label)
    assert {role: len(runs) for role, runs in recorder.runs.items()} == {"segmenter": 1, "encoder": 1, "decoder": 2}


def test_each_run_is_as_likely_to_be_kept() -> None:
    kept = np.zeros(40)
    for seed in range(400):
        recorder = Recorder(size=10, seed=seed)
        for number in range(40):
            recorder.add("a", Run({}, {"number": np.array(number)}))
        numbers = [int(run.outputs["number"]) for run in recorder.runs["a"]]
        assert len(set(numbers)) == 10
        kept[numbers] += 1
    assert kept.min() / 400 > 0.15
    assert kept.max() / 400 < 0.35


def test_threads() -> None:
    recorder = Recorder(size=8)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: recorder.add("a", Run({}, {})), range(1000)))
    assert len(recorder.runs["a"]) == 8
