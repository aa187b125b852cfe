"""The networks that stand in for a victim while fitting, and the losses they are trained with."""

from __future__ import annotations

from collections.abc import Callable

from monai.losses import DiceCELoss
from monai.networks.nets import ResNet, UNet
from torch import Tensor, nn
from torch.nn import functional

from MedProtectLib.methods.base import CLASSIFICATION, Purpose

SURROGATE_CHANNELS = (16, 32, 64, 128)
CLASSIFIER_CHANNELS = (16, 32, 64, 128)
SMALLEST_EDGE, ALIGNMENT = 16, 8

Loss = Callable[[Tensor, Tensor], Tensor]


def surrogate_unet(dimension: int, classes: int, image_channels: int = 1) -> nn.Module:
    """A U-Net from an image (b, c, [k,] j, i) to the logits of every voxel; edges are multiples of ``ALIGNMENT``."""
    strides = (2,) * (len(SURROGATE_CHANNELS) - 1)
    return UNet(dimension, image_channels, classes, SURROGATE_CHANNELS, strides, num_res_units=1, norm="instance")


def surrogate_classifier(dimension: int, classes: int, image_channels: int = 1) -> nn.Module:
    """A small residual network from an image (b, c, [k,] j, i) of any size to the logits (b, class)."""
    return ResNet(
        "basic",
        [1, 1, 1, 1],
        list(CLASSIFIER_CHANNELS),
        spatial_dims=dimension,
        n_input_channels=image_channels,
        conv1_t_size=3,
        conv1_t_stride=1,
        no_max_pool=True,
        num_classes=classes,
    )


def surrogate_for(purpose: Purpose) -> nn.Module:
    """The surrogate of a purpose's task, fresh."""
    build = surrogate_classifier if purpose.task == CLASSIFICATION else surrogate_unet
    return build(purpose.dimension, purpose.outputs, purpose.image_channels)


def segmentation_loss() -> Loss:
    """Dice + cross-entropy of logits (b, class, ...) against int64 classes (b, 1, ...)."""
    loss: Loss = DiceCELoss(to_onehot_y=True, softmax=True)
    return loss


def loss_for(purpose: Purpose) -> Loss:
    """The loss of a purpose's task against targets as :func:`targets_of` gives them."""
    return functional.cross_entropy if purpose.task == CLASSIFICATION else segmentation_loss()


def targets_of(classes: Tensor, purpose: Purpose) -> Tensor:
    """What a surrogate is to say of label classes (b, 1, ...): themselves, or in classification the class (b,) from 0 on."""
    return classes.flatten(1).amax(dim=1) - 1 if purpose.task == CLASSIFICATION else classes
