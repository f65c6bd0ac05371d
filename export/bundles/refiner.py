"""Export a CRM to the graphs and arrays of the runtime's refiner, and to a bundle of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskrt.export.architectures.configs import read_config
from maskrt.export.architectures.crm import CrmConfig, CrmNet, build_crm
from maskrt.export.architectures.kinds import split_kind
from maskrt.export.architectures.networks import Architecture, load_network
from maskrt.export.bundles.crm_cascade import refine_plainly
from maskrt.export.bundles.entries import fitness_lines, is_bundle, maskrt_version, model_entry, total_mb
from maskrt.export.bundles.folder import whole_folder
from maskrt.export.graph_tools.graph import OPSET, TOLERANCE, export_graph
from maskrt.export.graphs.crm_graphs import BackboneGraph, CoarseGraph, FusionGraph, decoder_weights
from maskrt.kernels import sets
from maskrt.runtime.bundle.bundle import MANIFEST, Bundle, open_bundle
from maskrt.runtime.bundle.manifest import SCHEMA, ModelEntry, Parity, RefineManifest, encode_manifest
from maskrt.runtime.bundle.specs import RefinementSpec, RefinerSpec
from maskrt.runtime.engines.loading import Sessions
from maskrt.runtime.errors import ExportError
from maskrt.runtime.pipelines.refine.refiner import MAX_SIDE, Refiner
from maskrt.runtime.pipelines.refine.selections import selection_of
from maskrt.runtime.pipelines.refine.stage import STRIDE
from maskrt.runtime.types import Report

CRM_CONFIGS = {"resnet50": CrmConfig()}
CUSTOM = "custom"
MAX_PIXELS = MAX_SIDE + 256
MAX_CELLS = MAX_PIXELS // 2
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read_crm(spec: str, report: Report = lambda _: None) -> CrmNet:
    """Read the network of "resnet50:FILE", a public checkpoint, or of "custom:FILE" with its CrmConfig in FILE's .json.

    Raises:
        InputError: the kind is unknown, or the config cannot be used.
        CheckpointError: the checkpoint is damaged, holds code, or has other sizes.
    """
    kind, file = split_kind(spec, {**CRM_CONFIGS, CUSTOM: None}, "refiner")
    config = CRM_CONFIGS[kind] if kind in CRM_CONFIGS else read_config(file.with_suffix(".json"), CrmConfig)
    architecture = Architecture(lambda _: build_crm(config), anchor="imnet.layers.0.weight")
    net = load_network(file, kind, architecture, {}, report)
    assert isinstance(net, CrmNet)
    return net


def halo_of(config: CrmConfig) -> int:
    """Return the pixels around a window beyond which nothing changes the backbone's answer in it, a multiple of 8.

    It is half of the receptive field: 3 for the stem, 2 for its pooling, and per 3 x 3 convolution its dilation, each
    times the stride at which it works.
    """
    first, second, third = config.blocks[:3]
    reach = 3 + 2 + 4 * first + 4 + 8 * (second - 1) + 8 + 16 * (third - 1)
    return -(-reach // STRIDE) * STRIDE


def write_backbone(net: CrmNet, path: Path, report: Report) -> Parity:
    """Export the graph from pixels [1, 4, h, w] to middle and coarse; see BackboneGraph.

    Raises:
        ExportError: the graph differs from PyTorch.
    """

    def case(height: int, width: int) -> tuple[torch.Tensor]:
        return (torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(height)),)

    return export_graph(
        BackboneGraph(net),
        case(72, 91),
        path,
        inputs=("pixels",),
        outputs=("middle", "coarse"),
        dynamic={"pixels": {2: ("height", MAX_PIXELS), 3: ("width", MAX_PIXELS)}},
        cases=(case(64, 64), case(101, 47)),
        report=report,
    )


def write_coarse(net: CrmNet, path: Path, report: Report) -> Parity:
    """Export the graph from the coarsest scale to its products with the fusion's nine taps; see CoarseGraph.

    Raises:
        ExportError: the graph differs from PyTorch.
    """

    def case(height: int, width: int) -> tuple[torch.Tensor]:
        random = torch.Generator().manual_seed(height)
        return (torch.rand(1, net.config.fused[2], height, width, generator=random),)

    return export_graph(
        CoarseGraph(net),
        case(4, 5),
        path,
        inputs=("coarse",),
        outputs=("taps",),
        dynamic={"coarse": {2: ("rows", MAX_PIXELS), 3: ("columns", MAX_PIXELS)}},
        cases=(case(1, 1), case(6, 3)),
        report=report,
    )


def write_fusion(net: CrmNet, path: Path, report: Report) -> Parity:
    """Export the graph from a window of pixels and of the coarser scales to features [m, n, hidden]; see FusionGraph.

    Raises:
        ExportError: the graph differs from PyTorch.
    """
    middle = net.config.fused[1]

    def case(rows: int, columns: int) -> tuple[torch.Tensor, ...]:
        random = torch.Generator().manual_seed(rows)
        pixels = torch.randn(1, 4, 2 * rows + 9, 2 * columns + 9, generator=random)
        inside = torch.ones(1, 1, rows + 2, columns + 2)
        inside[..., 0, :] = 0
        coarse = torch.randn(1, net.config.features, rows, columns, generator=random)
        return pixels, inside, torch.rand(1, middle, rows + 2, columns + 2, generator=random), coarse

    rows, columns = torch.export.Dim("rows", min=1, max=MAX_CELLS), torch.export.Dim("columns", min=1, max=MAX_CELLS)
    return export_graph(
        FusionGraph(net),
        case(11, 14),
        path,
        inputs=("pixels", "inside", "middle", "coarse"),
        outputs=("features",),
        dynamic={
            "pixels": {2: 2 * rows + 9, 3: 2 * columns + 9},
            "inside": {2: rows + 2, 3: columns + 2},
            "middle": {2: rows + 2, 3: columns + 2},
            "coarse": {2: rows, 3: columns},
        },
        cases=(case(1, 1), case(9, 23)),
        report=report,
    )


def write_decoder(net: CrmNet, path: Path, report: Report) -> None:
    """Write the pixel decoder's arrays, DecoderWeights."""
    weights = decoder_weights(net.imnet)
    with path.open("wb") as file:
        np.savez(file, **vars(weights))


# Role -> the function that writes its file, and the file's ending.
WRITERS: dict[str, tuple[Callable[[CrmNet, Path, Report], Parity | None], str]] = {
    "refiner_backbone": (write_backbone, ".onnx"),
    "refiner_coarse": (write_coarse, ".onnx"),
    "refiner_fusion": (write_fusion, ".onnx"),
    "refiner_decoder": (write_decoder, ".npz"),
}


def write_refiner(spec: str, folder: Path, report: Report) -> tuple[dict[str, ModelEntry], RefinerSpec]:
    """Write a refiner's files into a folder, and compare the runtime on them with PyTorch.

    Args:
        spec: KIND:FILE; see read_crm.

    Raises:
        InputError, CheckpointError: see read_crm.
        ExportError: a graph, or the whole cascade, differs from PyTorch.
    """
    net = read_crm(spec, report)
    kind, _, file = spec.partition(":")
    entries = {}
    for role, (write, ending) in WRITERS.items():
        path = folder / f"{role}{ending}"
        entries[role] = model_entry(path, kind, Path(file), write(net, path, report))
    refiner = RefinerSpec(mean=IMAGENET_MEAN, std=IMAGENET_STD, halo=halo_of(net.config), scales=net.config.scales)
    _check_cascade(net, refiner, Bundle(folder, RefineManifest(**_common(entries), refiner=refiner)), report)
    return entries, refiner


def export_refiner(
    crm: str,
    out: Path,
    *,
    refinement: RefinementSpec | None = None,
    note: str = "",
    overwrite: bool = False,
    report: Report = lambda _: None,
) -> Bundle:
    """Export a refiner, check it, and put its bundle at `out`. A failure or an interruption leaves nothing.

    Args:
        crm: resnet50:FILE, a public checkpoint, or custom:FILE with its CrmConfig in FILE's .json.
        refinement: settings that the bundle keeps.
        overwrite: replace a bundle that is at `out`.
        report: called with one line per finished step.

    Raises:
        InputError: an option, a checkpoint or the place cannot be used.
        ExportError: a graph, or the whole cascade, differs from PyTorch.
    """
    settings = refinement or RefinementSpec()
    selection_of(settings.select, sets.CPU)
    with whole_folder(out, overwrite=overwrite, ours=is_bundle) as folder:
        entries, refiner = write_refiner(crm, folder, report)
        manifest = RefineManifest(**_common(entries), note=note, refiner=refiner, refinement=settings)
        (folder / MANIFEST).write_bytes(encode_manifest(manifest))
        open_bundle(folder)
    for line in fitness_lines({entry.file: entry.tensorrt for entry in entries.values()}):
        report(line)
    report(f"{out}: {total_mb(entries):.0f} MB, verified")
    return Bundle(Path(out), manifest)


def _common(entries: dict[str, ModelEntry]) -> dict[str, Any]:
    return {"schema": SCHEMA, "maskrt": maskrt_version(), "precision": "fp32", "opset": OPSET, "models": entries}


def _check_cascade(net: CrmNet, spec: RefinerSpec, bundle: Bundle, report: Report) -> None:
    """Refine a random picture in PyTorch and in the runtime, in several tiles.

    Raises:
        ExportError: a probability differs by more than TOLERANCE.
    """
    random = np.random.default_rng(0)
    rgb = random.integers(0, 256, (150, 170, 3), np.uint8)
    rough = np.zeros((150, 170), np.float32)
    rough[30:110, 50:140] = 1
    expected = refine_plainly(net, spec, rgb, rough)
    with Refiner(Sessions(bundle), spec, RefinementSpec(tile=96)) as refiner:
        found = refiner(rgb, rough).probability
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        raise ExportError(f"the refiner's cascade differs from PyTorch by {difference:.1e}: report this")
    report(f"refiner: the cascade differs from PyTorch by at most {difference:.1e} in probability")
