"""DeepLabV3 with the state-dict keys of torchvision's deeplabv3_resnet50 and deeplabv3_resnet101.

Source: Chen et al. 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation"; torchvision defines the
layout of keys and the dilations.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from maskrt.export.architectures.backbones import RESNET_BLOCKS, ResNet
from maskrt.export.architectures.deeplab import Aspp
from maskrt.runtime.errors import CheckpointError

# The first block of a dilated stage keeps the dilation of the stage before it.
TORCHVISION_DILATIONS = ((1, 2), (2, 4))
CHANNELS = 256


class TorchvisionDeepLabV3(nn.Module):
    """Logits at the input's resolution, for any size."""

    def __init__(self, blocks: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.backbone = ResNet(blocks, TORCHVISION_DILATIONS)
        self.classifier = nn.Sequential(
            Aspp(self.backbone.out_channels, CHANNELS, separable=False),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(),
            nn.Conv2d(CHANNELS, classes, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised float32 [N, 3, H, W] to logits float32 [N, classes, H, W]."""
        _, features = self.backbone(x)
        return functional.interpolate(self.classifier(features), x.shape[2:], mode="bilinear", align_corners=False)


def torchvision_deeplabv3_for(encoder: str, state: Mapping[str, Tensor]) -> TorchvisionDeepLabV3:
    """Build the DeepLabV3 with the number of classes of a state dict, to load it into.

    Raises:
        CheckpointError: the key that gives the classes is missing, so this is not torchvision's DeepLabV3.
    """
    last = state.get("classifier.4.weight")
    if last is None:
        raise CheckpointError(f"not torchvision's DeepLabV3 with {encoder}: the checkpoint has no classifier.4.weight")
    return TorchvisionDeepLabV3(RESNET_BLOCKS[encoder], int(last.shape[0]))
