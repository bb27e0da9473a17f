"""ResNet-50 in plain PyTorch: 25,557,032 parameters (He et al. 2015, arXiv 1512.03385, table 1).

The stride of a bottleneck is in its 3x3 convolution, as in most implementations since 2017.
"""

import torch.nn.functional as F
from torch import Tensor, nn

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # width of the 3x3 convolution, number of blocks


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions, each with a batch norm, added to the input (or to its projection)."""

    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(into, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if into != out or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, into, height, width) to (batch, 4 width, height / stride, width / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    """Images (batch, 3, height, width) to logits (batch, classes).

    `stages`: (width, blocks) of each; `stem`: channels of the first convolution. Smaller ones suit a CPU.
    """

    def __init__(self, classes: int = 1000, stages: tuple[tuple[int, int], ...] = STAGES, stem: int = 64) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, stem, 7, 2, padding=3, bias=False), nn.BatchNorm2d(stem)
        blocks, into = list[nn.Module](), stem
        for number, (width, count) in enumerate(stages):
            for block in range(count):
                blocks.append(Bottleneck(into, width, 2 if number and block == 0 else 1))
                into = 4 * width
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(into, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images)), inplace=True), 3, 2, padding=1)
        logits: Tensor = self.fc(self.blocks(x).mean((2, 3)))
        return logits


def resnet50(classes: int = 1000) -> ResNet:
    """The full size."""
    return ResNet(classes)
