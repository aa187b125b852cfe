"""The networks that an audit trains: none of them is a surrogate of a fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from monai.networks.layers import Conv
from monai.networks.nets import UNETR, AttentionUnet, DenseNet, DynUNet, ResNet, SegResNet, UNet
from torch import nn

from MedProtectLib.errors import UsageError
from MedProtectLib.methods.base import CLASSIFICATION, SEGMENTATION

LEVELS = (1, 2, 4, 8, 8)
RESNET_LEVELS = (1, 2, 4, 8)
STRIDES = (2, 2, 2, 2)
HEADS, HIDDEN_PER_WIDTH = 4, 8


@dataclass(frozen=True)
class Shape:
    """What a victim must fit: image dimension and channels, outputs, the edges ([k,] j, i) that it sees, its width."""

    dimension: int
    channels: int
    outputs: int
    size: tuple[int, ...]
    width: int


def _channels(shape: Shape) -> tuple[int, ...]:
    return tuple(shape.width * level for level in LEVELS)


def unet(shape: Shape) -> nn.Module:
    """A plain U-Net with instance normalisation; its first level is at half the resolution."""
    return UNet(shape.dimension, shape.channels, shape.outputs, _channels(shape), STRIDES, num_res_units=0, norm="instance")


def dynunet(shape: Shape) -> nn.Module:
    """The network of nnU-Net, which has a level at full resolution; several times as slow as ``unet``."""
    kernels, strides = (3,) * len(LEVELS), (1, *STRIDES)
    return DynUNet(
        shape.dimension, shape.channels, shape.outputs, kernels, strides, STRIDES, filters=_channels(shape), norm_name="instance"
    )


def residual_unet(shape: Shape) -> nn.Module:
    """A U-Net with two residual units a level."""
    return UNet(shape.dimension, shape.channels, shape.outputs, _channels(shape), STRIDES, num_res_units=2, norm="instance")


def attention_unet(shape: Shape) -> nn.Module:
    """A U-Net with attention gates."""
    return AttentionUnet(shape.dimension, shape.channels, shape.outputs, _channels(shape), STRIDES)


def segresnet(shape: Shape) -> nn.Module:
    """A residual encoder with a light decoder."""
    return SegResNet(shape.dimension, shape.width, shape.channels, shape.outputs, norm="instance")


def unetr(shape: Shape) -> nn.Module:
    """A small vision transformer with a convolutional decoder."""
    hidden = HIDDEN_PER_WIDTH * shape.width
    return UNETR(
        shape.channels,
        shape.outputs,
        shape.size,
        feature_size=max(4, shape.width // 2),
        hidden_size=hidden,
        mlp_dim=2 * hidden,
        num_heads=HEADS,
        spatial_dims=shape.dimension,
    )


def resnet_18(shape: Shape) -> nn.Module:
    """ResNet-18 with a 3x3 stem of stride 1 and no pooling after it, as for small images; at width 64 as wide as the original."""
    return ResNet(
        "basic",
        [2, 2, 2, 2],
        [shape.width * level for level in RESNET_LEVELS],
        spatial_dims=shape.dimension,
        n_input_channels=shape.channels,
        num_classes=shape.outputs,
        conv1_t_size=3,
        conv1_t_stride=1,
        no_max_pool=True,
        shortcut_type="B",
    )


def densenet(shape: Shape) -> nn.Module:
    """A small DenseNet with a 3x3 stem of stride 1 and no pooling after it."""
    network = DenseNet(
        shape.dimension, shape.channels, shape.outputs, init_features=2 * shape.width, growth_rate=shape.width, block_config=(3, 6, 6)
    )
    network.features.conv0 = Conv[Conv.CONV, shape.dimension](shape.channels, 2 * shape.width, 3, padding=1, bias=False)
    network.features.pool0 = nn.Identity()
    return network


@dataclass(frozen=True)
class Victim:
    """A network by its task; ``build`` gives it fresh, with logits (b, output, [k,] j, i) or (b, output)."""

    task: str
    build: Callable[[Shape], nn.Module]


VICTIMS = {
    "unet": Victim(SEGMENTATION, unet),
    "dynunet": Victim(SEGMENTATION, dynunet),
    "residual_unet": Victim(SEGMENTATION, residual_unet),
    "attention_unet": Victim(SEGMENTATION, attention_unet),
    "segresnet": Victim(SEGMENTATION, segresnet),
    "unetr": Victim(SEGMENTATION, unetr),
    "resnet18": Victim(CLASSIFICATION, resnet_18),
    "densenet": Victim(CLASSIFICATION, densenet),
}


def victim_for(name: str, task: str) -> Victim:
    """The victim of that name.

    Raises:
        UsageError: there is none, or it is for the other task.
    """
    known = [key for key, victim in VICTIMS.items() if victim.task == task]
    if name not in known:
        raise UsageError(f"no victim '{name}' for {task}. Known: {', '.join(known)}.")
    return VICTIMS[name]
