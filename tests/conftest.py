"""Fixtures shared by all tests: images, and a SAM small enough to run in milliseconds."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from prebuilt import prebuilt

# Kernels compile inside the first example, and a busy machine is no failure: examples have no time limit.
settings.register_profile("maskrt", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("maskrt")

# As the command line does: threads that spin while they wait starve on a busy machine (maskrt.cli.main).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


TENSORRT = ("10.16", "11.4")  # whose bindings tests/data has


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded: a failure repeats."""
    return np.random.default_rng(20240521)


@pytest.fixture
def blobs() -> Callable[..., NDArray[np.float32]]:
    """Smooth random fields, as logits of masks are: blobs(rng, height, width, cells) -> float32 [H, W] about 0."""
    import cv2

    def draw(rng: np.random.Generator, height: int, width: int, cells: int = 5) -> NDArray[np.float32]:
        coarse = rng.standard_normal((cells, cells)).astype(np.float32) * 4
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)

    return draw


@pytest.fixture(scope="session")
def tiny_sam() -> Callable[..., Any]:
    """tiny_sam(image_size, seed) -> a segment_anything Sam with 32 channels and random weights.

    Random weights alone give flat masks and one predicted IoU for all: the last layers are scaled so that logits change
    sign over the image and predicted IoUs lie on both sides of 0.9.
    """
    import torch

    from maskrt.benchmarks.peers.sam_upstream import torchvision_or_stand_ins

    with torchvision_or_stand_ins():
        from segment_anything.modeling.image_encoder import ImageEncoderViT
        from segment_anything.modeling.mask_decoder import MaskDecoder
        from segment_anything.modeling.prompt_encoder import PromptEncoder
        from segment_anything.modeling.sam import Sam
        from segment_anything.modeling.transformer import TwoWayTransformer

    def build(image_size: int = 128, seed: int = 0) -> Any:
        torch.manual_seed(seed)
        embedding = image_size // 16
        encoder = ImageEncoderViT(
            img_size=image_size,
            patch_size=16,
            embed_dim=32,
            depth=2,
            num_heads=2,
            mlp_ratio=2,
            out_chans=32,
            use_rel_pos=True,
            window_size=3,
            global_attn_indexes=(1,),
        )
        prompt = PromptEncoder(32, (embedding, embedding), (image_size, image_size), mask_in_chans=8)
        transformer = TwoWayTransformer(depth=2, embedding_dim=32, mlp_dim=64, num_heads=2)
        decoder = MaskDecoder(transformer_dim=32, transformer=transformer, iou_head_depth=2, iou_head_hidden_dim=32)
        sam = Sam(encoder, prompt, decoder).eval()
        with torch.no_grad():
            # Smooth over the image, and stronger than the patches: masks become a few blobs.
            coarse = torch.randn(1, 32, 3, 3) * 3
            smooth = torch.nn.functional.interpolate(coarse, (embedding, embedding), mode="bicubic")
            encoder.pos_embed.copy_(smooth.permute(0, 2, 3, 1))
            encoder.patch_embed.proj.weight.mul_(0.2)
            prompt.pe_layer.positional_encoding_gaussian_matrix.mul_(0.3)
            _spread(sam, image_size)
        return sam

    return build


def _spread(sam: Any, image_size: int) -> None:
    """Scale the two heads on a probe: logits to a deviation of 6 about 0, predicted IoU to 0.9 +- 0.05."""
    import torch

    embedding = sam.image_encoder(sam.preprocess(torch.rand(1, 3, image_size, image_size) * 255))
    coords = torch.rand(64, 1, 2) * image_size
    sparse, dense = sam.prompt_encoder((coords, torch.ones(64, 1)), None, None)
    decoder = sam.mask_decoder
    positions = sam.prompt_encoder.get_dense_pe()
    # One value per 4 x 4 pixels, as random kernels would scatter dots over every mask and make every box full.
    for convolution in (decoder.output_upscaling[0], decoder.output_upscaling[3]):
        convolution.weight.copy_(convolution.weight.mean(dim=(2, 3), keepdim=True).expand_as(convolution.weight) * 4)
    seen: list[Any] = []
    hooks = [m.register_forward_hook(lambda _m, _i, o: seen.append(o)) for m in decoder.output_hypernetworks_mlps]
    decoder.predict_masks(embedding, positions, sparse, dense)
    for hook in hooks:
        hook.remove()
    # What all points have in common goes, so that masks differ from point to point.
    for mlp, output in zip(decoder.output_hypernetworks_mlps, seen, strict=True):
        mlp.layers[-1].bias.sub_(output.mean(dim=0))
    logits, pred_iou = decoder.predict_masks(embedding, positions, sparse, dense)
    for index, mlp in enumerate(decoder.output_hypernetworks_mlps):
        gain = 6 / logits[:, index].std()
        mlp.layers[-1].weight.mul_(gain)
        mlp.layers[-1].bias.mul_(gain)
        # Channel 0 is the same everywhere and lowers the logits, so that masks are small and their boxes differ.
        mlp.layers[-1].weight[0], mlp.layers[-1].bias[0] = 0, -7
    decoder.output_upscaling[3].weight[:, 0], decoder.output_upscaling[3].bias[0] = 0, 1
    last = decoder.iou_prediction_head.layers[-1]
    gain = 0.05 / pred_iou.std(dim=0)
    last.weight.mul_(gain[:, None])
    last.bias.copy_((last.bias - pred_iou.mean(dim=0)) * gain + 0.9)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole SOSS bundle that runs in milliseconds; do not change it in place."""
    from tiny_bundle import write_tiny_bundle

    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def sam_sessions() -> Callable[[Any], tuple[Any, Any]]:
    """sam_sessions(sam) -> (encoder, decoder): sessions with the contract of the exported graphs, run by PyTorch."""
    import torch

    class Encoder:
        def __init__(self, sam: Any) -> None:
            self.inputs = {"image": ("tensor(uint8)", (None, None, None, 3))}
            self.outputs = {"image_embeddings": ("tensor(float)", (None, 32, None, None))}
            self.sam = sam
            self.batches: list[int] = []

        @torch.no_grad()
        def run(self, feeds: dict[str, Any], check: Any = None, *, keep_on_device: Any = ()) -> dict[str, Any]:
            images = feeds["image"]
            assert images.dtype == np.uint8
            assert max(images.shape[1:3]) == self.sam.image_encoder.img_size
            self.batches.append(len(images))
            planes = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
            return {"image_embeddings": self.sam.image_encoder(self.sam.preprocess(planes)).numpy()}

    class Decoder:
        def __init__(self, sam: Any) -> None:
            self.inputs = {
                "image_embeddings": ("tensor(float)", (1, 32, None, None)),
                "point_coords": ("tensor(float)", (None, None, 2)),
                "point_labels": ("tensor(float)", (None, None)),
                "mask_input": ("tensor(float)", (None, 1, None, None)),
                "has_mask_input": ("tensor(float)", (1,)),
            }
            self.outputs = {
                "low_res_masks": ("tensor(float)", (None, 3, None, None)),
                "pred_iou": ("tensor(float)", (None, 3)),
            }
            self.sam = sam
            self.batches: list[int] = []

        @torch.no_grad()
        def run(self, feeds: dict[str, Any], check: Any = None, *, keep_on_device: Any = ()) -> dict[str, Any]:
            coords, labels = torch.from_numpy(feeds["point_coords"]), torch.from_numpy(feeds["point_labels"])
            assert coords.dtype == labels.dtype == torch.float32
            assert feeds["has_mask_input"].tolist() == [0]  # automatic masks have none
            self.batches.append(len(coords))
            prompt = self.sam.prompt_encoder
            size = prompt.image_embedding_size
            low_res_masks, pred_iou = self.sam.mask_decoder(
                image_embeddings=torch.from_numpy(feeds["image_embeddings"]),
                image_pe=prompt.get_dense_pe(),
                # pad=False: the caller has appended the padding point.
                sparse_prompt_embeddings=prompt._embed_points(coords, labels, pad=False),
                dense_prompt_embeddings=prompt.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(len(coords), -1, *size),
                multimask_output=True,
            )
            return {"low_res_masks": low_res_masks.numpy(), "pred_iou": pred_iou.numpy()}

    return lambda sam: (Encoder(sam), Decoder(sam))


@pytest.fixture(scope="session")
def split_sessions() -> Callable[[Any], tuple[Any, Any, Any]]:
    """split_sessions(sam) -> image_side, token_side and upscale as sessions, run by PyTorch."""
    import torch

    from maskrt.export.graphs.split_decoder import ImageSide, TokenSide, Upscale

    class Module:
        def __init__(self, module: Any, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
            self.module = module.eval()
            self.inputs = dict.fromkeys(inputs)
            self.outputs = dict.fromkeys(outputs)

        @torch.no_grad()
        def run(self, feeds: dict[str, Any], check: Any = None, *, keep_on_device: Any = ()) -> dict[str, Any]:
            found = self.module(*(torch.from_numpy(np.array(feeds[name])) for name in self.inputs))
            values = found if isinstance(found, tuple) else (found,)
            return {name: value.numpy() for name, value in zip(self.outputs, values, strict=True)}

    def sessions(sam: Any) -> tuple[Any, Any, Any]:
        image_side = ImageSide(sam)
        token_side = TokenSide(sam, image_side.names)
        return (
            Module(image_side, ("image_embeddings",), image_side.names),
            Module(token_side, ("point_coords", "point_labels", *token_side.names), token_side.outputs),
            Module(upscale := Upscale(sam), upscale.inputs, ("low_res_masks",)),
        )

    return sessions


@pytest.fixture(scope="session")
def tiny_config() -> Any:
    """The sizes of a SAM that is exported in seconds."""
    pytest.importorskip("torch", reason="needs maskrt[export]")
    from tiny_sam import TINY_SAM

    return TINY_SAM


@pytest.fixture(scope="session")
def tiny_interactive() -> tuple[Path, tuple[str, ...]]:
    """A bundle that is clicked on, its checkpoint beside it, and what its export has said; do not change it."""
    pytest.importorskip("torch", reason="needs maskrt[export]")
    from tiny_interactive import SAID, write_tiny_interactive

    folder = prebuilt("interactive", write_tiny_interactive, "tiny_interactive.py")
    return folder / "bundle", tuple(json.loads((folder / SAID).read_text()))


@pytest.fixture(scope="session")
def crm_spec() -> str:
    """KIND:FILE of a tiny refiner's checkpoint; the network is tiny_refiner.tiny_crm()."""
    pytest.importorskip("torch", reason="needs maskrt[export]")
    from tiny_refiner import SOURCES, spec_in, write_tiny_refiner

    return spec_in(prebuilt("refiner", write_tiny_refiner, *SOURCES))


@pytest.fixture(scope="session")
def refiner_bundle(crm_spec: str) -> Path:
    """A bundle of that refiner; do not change it in place."""
    return Path(crm_spec.partition(":")[2]).parent / "bundle"


@pytest.fixture(scope="session")
def sure_crm_spec() -> str:
    """As crm_spec, of a refiner that is sure of most pixels: selections decode a part of them."""
    pytest.importorskip("torch", reason="needs maskrt[export]")
    from tiny_refiner import SOURCES, spec_in, write_tiny_refiner

    return spec_in(prebuilt("sure-refiner", partial(write_tiny_refiner, sureness=5), *SOURCES))


@pytest.fixture(scope="session")
def sure_refiner_bundle(sure_crm_spec: str) -> Path:
    """A bundle of that refiner; do not change it in place."""
    return Path(sure_crm_spec.partition(":")[2]).parent / "bundle"


@pytest.fixture(scope="session")
def tiny_bundles(
    tiny_bundle: Path,
    refiner_bundle: Path,
    tiny_interactive: tuple[Path, tuple[str, ...]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """Kind -> a bundle of that kind; do not change them in place."""
    from tiny_two_stage import write_tiny_two_stage

    two_stage = write_tiny_two_stage(tmp_path_factory.mktemp("bundles") / "two_stage")
    return {"soss": tiny_bundle, "refine": refiner_bundle, "two_stage": two_stage, "interactive": tiny_interactive[0]}


@contextmanager
def _standin(version: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`tensorrt` of a version, and CUDA, on a stand-in's GPU, on which nothing may be left in the end."""
    from tensorrt_standin import install
    from tensorrt_standin.cuda import Device

    device = Device()
    install(monkeypatch, version, device)
    yield device
    assert device.problems == []
    assert device.held == {}


@pytest.fixture(params=TENSORRT)
def tensorrt_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The GPU of a stand-in, see tests/tensorrt_standin."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with _standin(request.param, monkeypatch) as device:
        yield device


@pytest.fixture(params=[*TENSORRT, pytest.param("gpu", marks=pytest.mark.gpu)])
def tensorrt_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The same, or None: the real TensorRT on a real GPU."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "gpu":
        yield None
    else:
        with _standin(request.param, monkeypatch) as device:
            yield device


@pytest.fixture
def maskrt(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """maskrt(*arguments) -> exit code, stdout, stderr."""
    from maskrt.cli.main import main

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(part) for part in arguments])
        output = capfd.readouterr()
        return int(stopped.value.code or 0), output.out, output.err

    return call
