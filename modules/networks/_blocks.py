"""Building blocks of all small-image networks, and the chain of stem, blocks and classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.checks import one_of


class BlockNetwork(nn.Module):
    """Network of stem, blocks, norm, pooling and classifier, with timm's interface.

    The body is a plain sequence of ``stem`` and ``blocks``, so the network can be cut after every block. ``norm``,
    ``pool`` and ``classifier`` are the head. The network maps images ``(N, in_chans, H, W)`` to logits
    ``(N, num_classes)``.

    Args:
        stem: First layers, or an identity.
        blocks: The blocks, in order.
        num_features: Number of pooled features.
        num_classes: Number of logits; 0 returns the pooled features.
        norm: Layers between the last block and the pooling, such as the norm of pre-activated blocks. They belong to
            `forward_features`, as in timm.
        pool: Layers from the last feature map to features ``(N, num_features)``; by default the mean per channel.
    """

    def __init__(
        self,
        stem: nn.Module,
        blocks: Iterable[nn.Module],
        *,
        num_features: int,
        num_classes: int,
        norm: nn.Module | None = None,
        pool: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.Sequential(*blocks)
        self.norm = norm if norm is not None else nn.Identity()
        self.pool = pool if pool is not None else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.num_features = num_features
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new one for ``num_classes`` classes, or remove it for 0."""
        self.num_classes = num_classes
        self.classifier: nn.Module = nn.Identity()
        if num_classes:
            like = next(self.parameters())
            self.classifier = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)

    def get_classifier(self) -> nn.Module:
        """Return the classifier."""
        return self.classifier

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map ``(N, C, h, w)``."""
        return self.norm(self.blocks(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits from the last feature map, or the pooled features ``(N, num_features)`` if ``pre_logits``."""
        x = self.pool(x)
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)``."""
        return self.forward_head(self.forward_features(x))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; if the shape changes, the shortcut is a 1x1 convolution (option B).

    Paper: https://arxiv.org/abs/1512.03385. The pre-activated form (https://arxiv.org/abs/1605.07146) has batch norm
    and ReLU before each convolution, and before the 1x1 convolution of the shortcut.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        stride: Stride of the first convolution.
        pre_activation: True puts batch norm and ReLU before each convolution.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, pre_activation: bool = False) -> None:
        super().__init__()
        self.pre_activation = pre_activation
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.norm1 = nn.BatchNorm2d(inputs if pre_activation else outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            if not pre_activation:
                self.shortcut = nn.Sequential(self.shortcut, nn.BatchNorm2d(outputs))
        if not pre_activation:
            self.act = nn.ReLU()  # a layer, so that features before it can be captured

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        if self.pre_activation:
            active = F.relu(self.norm1(x))
            x = x if self.shortcut is None else self.shortcut(active)
            return x + self.conv2(F.relu(self.norm2(self.conv1(active))))
        out = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return self.act(out + (x if self.shortcut is None else self.shortcut(x)))


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a padded 3x3 convolution without bias, to be followed by a norm."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def residual_stages(
    widths: Iterable[int], blocks: int, *, inputs: int, pre_activation: bool = False
) -> Iterable[BasicBlock]:
    """Yield ``blocks`` basic blocks per stage; every stage except the first halves the feature map."""
    for stage, width in enumerate(widths):
        for index in range(blocks):
            stride = 2 if stage and not index else 1
            yield BasicBlock(inputs, width, stride=stride, pre_activation=pre_activation)
            inputs = width


def image_norm(norm: str) -> Callable[..., nn.Module]:
    """Return a function that builds a norm layer, per image ("instance") or over the batch ("batch").

    Raises:
        InputError: If ``norm`` is something else.
    """
    one_of(("instance", "batch"), norm=norm)
    return nn.BatchNorm2d if norm == "batch" else _instance_norm


def _instance_norm(channels: int, **place: Any) -> nn.Module:
    return nn.GroupNorm(channels, channels, **place)


def he_initialization(network: nn.Module) -> None:
    """Draw convolution weights with variance 2 / fan-out (https://arxiv.org/abs/1502.01852); set biases to 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
