"""`maskrt bench`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def command(
    case: Annotated[
        str,
        typer.Argument(
            metavar="CASE",
            help="soss, its parts encoder, decoder, masks, voting; refine; two-stage; adaptation; precision; "
            "latency, throughput.",
        ),
    ],
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there.")] = None,
    size: Annotated[
        str, typer.Option(help="demo (trained), or with random weights vit_b (refine: resnet50), or all.")
    ] = "all",
    pairs: Annotated[int, typer.Option(min=1, help="Measured runs of each side, in turns.")] = 5,
    warmup: Annotated[int, typer.Option(min=0, help="Runs before, not counted.")] = 1,
    points_per_side: Annotated[int, typer.Option(min=1, help="SAM's grid of points.")] = 40,
    threads: Annotated[int | None, typer.Option(min=1, help="Of each side; all usable cores if left out.")] = None,
    pictures: Annotated[str, typer.Option(help="Of refine: 2k, 4k, 6k; several with commas.")] = "2k",
    sides: Annotated[str, typer.Option(help="Of refine: contestants beside ours, with commas; all if left out.")] = "",
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="BUNDLE", help="Of two-stage, latency and throughput; the demo's if left out."),
    ] = None,
    provider: Annotated[
        str, typer.Option(help="Of latency, several with commas; of throughput, one. cuda:1 is the second GPU.")
    ] = "cpu",
    frames: Annotated[int, typer.Option(min=1, help="Scenes drawn for two-stage, latency and throughput.")] = 8,
    processes: Annotated[str | None, typer.Option(help="Of throughput: how many at a time, with commas.")] = None,
    streams: Annotated[str | None, typer.Option(help="Of throughput: threads in each process, with commas.")] = None,
    batch: Annotated[
        str | None, typer.Option(help="Of throughput: frames at a time in each thread, with commas.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder for models made on the way; kept.")] = Path("out/bench"),
) -> None:
    """Measure maskrt against other implementations, and compare the answers in the same run.

    masks: segment_anything in PyTorch. soss: that, and the same with the networks in ONNX Runtime; with trained models
    then prompts=guided against the grid too, on 20 held-out scenes. decoder: PyTorch, and one graph in ONNX Runtime.
    encoder: PyTorch and OpenVINO. precision: our own int8 against fp32. voting: dense NumPy, on drawn segments at
    1080p, whatever the size. Needs maskrt[cpu,export,demo,openvino]. soss at vit_b with --points-per-side 16 took 66 s
    per pair on two cores.

    two-stage: one U-Net on the whole picture, stage 1 alone, 2 to 16 patches and sliding windows, on --frames scenes:
    Dice, GFLOPs, time and memory; a pair is a frame, so --pairs is at least --frames.

    adaptation: a click of which SAM's mask decoder learns, its parts, a step on a whole mask, and PyTorch's step.

    latency: a bundle's whole pipeline, --pairs frames one at a time, p50, p95 and p99, every --provider in turns.
    throughput: frames per second of every combination of --processes, --streams and --batch against one of each; a
    pair is all --frames. What is left out is 1; without any of the three, two processes, two streams, both, and batches
    of 2 and 4. Both need maskrt[cpu,demo] alone.

    \b
    Example:
      maskrt bench soss --json out/bench/soss.json --size demo
      maskrt bench two-stage --frames 40 --pairs 60
      maskrt bench latency --pairs 100 --provider cpu,openvino
      maskrt bench throughput --frames 8 --batch 1,2,4,8
    """
    from maskrt.benchmarks.harness.registry import BenchOptions, run_case
    from maskrt.benchmarks.harness.report_json import print_report, write_report
    from maskrt.cli.options import parse_counts, parse_list

    # Set by main() for shared machines; PyTorch would be measured with a setting that its users do not have.
    os.environ.pop("OMP_WAIT_POLICY", None)
    options = BenchOptions(
        size,
        pairs,
        warmup,
        points_per_side,
        threads,
        work,
        parse_list(pictures),
        parse_list(sides),
        bundle,
        frames,
        parse_list(provider),
        parse_counts(processes, "--processes"),
        parse_counts(streams, "--streams"),
        parse_counts(batch, "--batch"),
    )
    # Plain lines: a bar that redraws itself would run beside what is measured.
    result = run_case(case, options, lambda line: print(line, file=sys.stderr, flush=True))
    if json is not None:
        write_report(result, json)
    print_report(result)
