"""`maskrt bench`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from maskrt.cli.say import say


def command(
    case: Annotated[
        str,
        typer.Argument(
            metavar="CASE",
            help="Case to measure; the table above explains them.",
        ),
    ],
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON.")] = None,
    size: Annotated[
        str, typer.Option(help="Models: demo (trained); vit_b, or resnet50 for refine (random weights); or all.")
    ] = "all",
    pairs: Annotated[int, typer.Option(min=1, help="How often to measure each side, in turns.")] = 5,
    warmup: Annotated[int, typer.Option(min=0, help="Runs before the measurement, which do not count.")] = 1,
    points_per_side: Annotated[int, typer.Option(min=1, help="Points along each side of SAM's grid.")] = 40,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads that each side may use; all usable cores if left out.")
    ] = None,
    pictures: Annotated[str, typer.Option(help="refine: picture sizes 2k, 4k, 6k, with commas.")] = "2k",
    sides: Annotated[
        str, typer.Option(help="refine: what to measure beside our full, with commas; all if left out.")
    ] = "",
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="BUNDLE", help="two-stage, latency, throughput: bundle to run; the demo's if left out."),
    ] = None,
    provider: Annotated[
        str, typer.Option(help="latency: providers, with commas; throughput: one. cuda:1 is the second GPU.")
    ] = "cpu",
    frames: Annotated[int, typer.Option(min=1, help="two-stage, latency, throughput: how many scenes to draw.")] = 4,
    processes: Annotated[
        str | None, typer.Option(help="throughput: numbers of processes at a time, with commas.")
    ] = None,
    streams: Annotated[str | None, typer.Option(help="throughput: threads in each process, with commas.")] = None,
    batch: Annotated[str | None, typer.Option(help="throughput: frames at a time in each thread, with commas.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for models that a case makes; they are kept.")] = Path("out/bench"),
) -> None:
    """Measure maskrt against other implementations.

    The answers are compared in the same run.

    \b
    Case        measures
    soss        the whole of SOSS, against segment_anything in PyTorch, and the same with its networks in ONNX Runtime;
                with trained models also prompts=guided against the grid, on 20 held-out scenes
    masks       SAM's masks, against segment_anything in PyTorch
    encoder     SAM's encoder, against PyTorch and OpenVINO
    decoder     SAM's decoder in three graphs, against PyTorch and one graph in ONNX Runtime
    voting      voting on drawn segments at 1080p, against dense NumPy; --size does not matter
    precision   our int8 against our fp32
    refine      the refiner and its selections, against the public code
    two-stage   one U-Net on the whole picture, stage 1 alone, 2 to 16 patches and sliding windows: Dice, GFLOPs, time
                and memory; a pair is a frame, so --pairs is at least --frames
    adaptation  a click from which SAM's mask decoder learns, its parts, a step on a whole mask, and PyTorch's step
    latency     a bundle's whole pipeline, --pairs frames one at a time: p50, p95, p99, every --provider in turns
    throughput  frames per second of every combination of --processes, --streams and --batch, against one of each;
                a pair is all --frames

    In throughput, an option that is left out is 1. Without all three it measures two processes, two streams, both, and
    batches of 2 and 4. Batched results can differ by rounding.

    The figures are printed; --json writes them too. latency and throughput need maskrt[cpu,demo]; all other cases need
    maskrt[cpu,export,demo,openvino]. soss at vit_b with --points-per-side 16 took 66 s per pair on two cores. Exit
    codes: 0 done, 1 failed, 2 unusable input or options, 130 stopped with Ctrl-C.

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

    # main() sets it for shared machines; PyTorch would be measured with a setting that its users do not have.
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
    # Plain lines: a bar that redraws itself would disturb the measurement.
    result = run_case(case, options, lambda line: say(line, err=True))
    if json is not None:
        write_report(result, json)
    print_report(result)
