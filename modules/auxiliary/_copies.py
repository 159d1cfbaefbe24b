"""Copies of a network's units with new weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.feature_maps import ToMaps
from ..partition.cuts import LocalUnit


def fresh_copy(module: nn.Module) -> nn.Module:
    """Return a copy with new weights from the same distributions as the original ones.

    Weights with two or more dimensions are shuffled. If they were drawn independently, this is a new draw from the same
    distribution. Vectors are copied, because they start at constants.
    """
    module = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.requires_grad_(True)
            if parameter.ndim > 1 and not parameter.is_meta:
                order = torch.randperm(parameter.numel()).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return module


def check_copied(unit: LocalUnit, who: str) -> None:
    """Raise an `InputError` if running the unit's layers in order does not reproduce the unit."""
    if not unit.complete:
        raise InputError(
            f"{who} copies units of the network, but the unit {unit.name} cannot be copied: {unit.obstacle}. Choose"
            " DGL, or other units"
        )


class Adapter(nn.Module):
    """Layers that change the shape of features: a strided 1x1 convolution, or a linear layer for tokens, and a norm.

    Args:
        inputs: Shape of the features, including the batch.
        outputs: Target shape, including the batch.
        channels_last: True if maps are ``(N, h, w, C)`` before and after.

    Raises:
        InputError: If only one of the shapes is a map, or the number of tokens differs.
    """

    def __init__(self, inputs: tuple[int, ...], outputs: tuple[int, ...], *, channels_last: bool = False) -> None:
        super().__init__()
        self.channels_last = channels_last
        before, after = (ToMaps(shape, channels_last=channels_last).shape for shape in (inputs, outputs))
        maps = len(inputs) == len(outputs) == 4
        if not maps and (len(inputs) != len(outputs) or inputs[1:-1] != outputs[1:-1]):
            raise InputError(
                f"features of shape {inputs[1:]} cannot be brought to the shape {outputs[1:]} of a later unit:"
                " choose DGL, or other units"
            )
        if maps:
            rows, columns = (max(1, round(b / a)) for b, a in zip(before[1:], after[1:], strict=True))
            layers = [nn.Conv2d(before[0], after[0], 1, (rows, columns), bias=False), nn.BatchNorm2d(after[0])]
            if ((before[1] - 1) // rows + 1, (before[2] - 1) // columns + 1) != after[1:]:
                # No stride gives this size.
                layers = [nn.AdaptiveAvgPool2d(after[1:]), nn.Conv2d(before[0], after[0], 1, bias=False), layers[1]]
            self.layers = nn.Sequential(*layers)
        else:
            self.layers = nn.Sequential(nn.Linear(before[0], after[0], bias=False), nn.LayerNorm(after[0]))

    def forward(self, features: Tensor) -> Tensor:
        """Return the features in the target shape."""
        if features.ndim == 4 and self.channels_last:
            return self.layers(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.layers(features)


class Readout(nn.Module):
    """Classifier for networks with an end that cannot be copied: the mean, or the class token, and a linear layer.

    Args:
        shape: Shape of the features, including the batch.
        num_classes: Number of logits.
        channels_last: True if maps are ``(N, h, w, C)``.
        class_token: True if the first token is a class token.
    """

    def __init__(
        self, shape: tuple[int, ...], num_classes: int, *, channels_last: bool = False, class_token: bool = False
    ) -> None:
        super().__init__()
        self.maps = ToMaps(shape, channels_last=channels_last)
        self.class_token = class_token and len(shape) == 3
        self.classifier = nn.Linear(self.maps.channels, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)``."""
        return self.classifier(features[:, 0] if self.class_token else self.maps(features).mean((2, 3)))
