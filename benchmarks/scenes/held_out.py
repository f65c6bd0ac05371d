"""The command line of the reports that measure on held-out scenes."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from maskrt.benchmarks.reports.demo import BUNDLE, HELD_OUT
from maskrt.runtime.files import write_bytes

Progress = Callable[[int], None]  # called with each seed that is done


def measure_held_out(
    about: str | None, scenes: int, measure: Callable[[Path, Sequence[int], Progress], msgspec.Struct]
) -> None:
    """Measure a bundle on scenes that no model was trained on, print the figures, and write them where asked.

    Args:
        about: first line of --help.
        scenes: their number, unless the command line gives another.
        measure: takes the bundle's folder, the scenes' seeds and the progress callback.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="the demo's where not given")
    parser.add_argument("--scenes", type=int, default=scenes)
    parser.add_argument("--first-seed", type=int, default=HELD_OUT)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.scenes)
    measured = measure(options.bundle, seeds, lambda seed: print(f"seed {seed} done", file=sys.stderr, flush=True))
    text = msgspec.json.format(msgspec.json.encode(measured), indent=2) + b"\n"
    print(text.decode(), end="")
    if options.json is not None:
        write_bytes(options.json, text)
