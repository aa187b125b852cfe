"""What a trainer may do against perturbations without knowing the tool: image processing, training tricks, warm start.

Image processing works on images (c, [k,] j, i) in window units and is done to every image, in training and in use; JPEG and the
bilateral filter go plane by plane. JPEG and bit depth work on the window's [0, 1]. Sources: Liu et al., ICML 2023 (JPEG, bit depth);
Qin et al., "APBench", 2023 (cutout, mixup, blur); Madry et al., ICLR 2018 (adversarial training, here 3 steps); Qin et al., "Learning
the Unlearnable" (UEraser), 2023: the worst of 5 draws of a strong augmentation.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, median_filter
from skimage.restoration import denoise_bilateral
from torch import Tensor, nn
from torch.nn import functional

from MedProtectLib.audit.augmentation import ueraser_like
from MedProtectLib.audit.batches import Batch, Purifier, augmented
from MedProtectLib.audit.data import TRAIN, AuditData, as_pictures
from MedProtectLib.audit.regimes import Knowledge, Loss, Strategy
from MedProtectLib.audit.restorer import EDGE, cut_around, fit_restorer
from MedProtectLib.audit.training import train_victim
from MedProtectLib.errors import UsageError

BILATERAL_SPATIAL, BILATERAL_RANGE, BILATERAL_WINDOW = 1.5, 0.05, 5
ATTACK_STEPS, ATTACK_STEP = 3, 0.75
MIXUP_ALPHA = 0.4
DRAWS = 5
LARGEST_NOISE = 8 / 255
COARSEST = 4


def _by_plane(image: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    planes = image.reshape(-1, *image.shape[-2:])
    return np.stack([function(plane) for plane in planes]).reshape(image.shape).astype(np.float32)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Through a JPEG file of that quality."""

    def through(plane: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(np.rint(plane.clip(0, 1) * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file), np.float32) / 255

    return _by_plane(image, through)


def gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, ``sigma`` in voxels."""
    return gaussian_filter(image, (0, *(sigma,) * (image.ndim - 1)))


def median(image: np.ndarray, size: int) -> np.ndarray:
    """Median of the ``size``-wide square or cube."""
    return median_filter(image, (1, *(size,) * (image.ndim - 1)))


def bilateral(image: np.ndarray) -> np.ndarray:
    """Bilateral filter, 1.5 voxels and 0.05 of the window."""
    return _by_plane(
        image,
        lambda plane: denoise_bilateral(
            plane.clip(0, 1), win_size=BILATERAL_WINDOW, sigma_color=BILATERAL_RANGE, sigma_spatial=BILATERAL_SPATIAL
        ),
    )


def bit_depth(image: np.ndarray, bits: int) -> np.ndarray:
    """2^bits grey levels in the window."""
    steps = 2**bits - 1
    return (np.rint(image.clip(0, 1) * steps) / steps).astype(np.float32)


def half_size(image: np.ndarray) -> np.ndarray:
    """Shrunk to half its edges by averaging, and enlarged again, linearly."""
    dimension, shape = image.ndim - 1, image.shape[1:]
    pool, mode = (functional.avg_pool2d, "bilinear") if dimension == 2 else (functional.avg_pool3d, "trilinear")
    small = pool(torch.from_numpy(image)[None], [min(2, n) for n in shape], ceil_mode=True)
    return functional.interpolate(small, shape, mode=mode)[0].numpy()


def denoiser(knowledge: Knowledge) -> Purifier:
    """A network trained on public clean images to take away bounded noise, fine and coarse."""
    public = public_like(knowledge)
    images = [sample.image for sample in public.samples(TRAIN)]
    edge = EDGE[public.dimension]

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        image = images[int(rng.integers(len(images)))]
        patch = cut_around(image, rng.integers(image.shape[1:]), edge)
        grain = int(rng.integers(1, COARSEST + 1))
        coarse = rng.uniform(-1, 1, (len(patch), *(-(-edge // grain),) * public.dimension))
        for axis in range(1, coarse.ndim):
            coarse = coarse.repeat(grain, axis).take(range(edge), axis)
        noise = (rng.uniform(0, LARGEST_NOISE) * coarse).astype(np.float32)
        return patch + noise, noise

    restore = fit_restorer(
        draw, public.dimension, public.channels, public.channels, knowledge.seed, LARGEST_NOISE, "train the denoiser", knowledge.report
    )
    return lambda image: image - restore(image)


def mixup(network: nn.Module, batch: Batch, loss_of: Loss, rng: np.random.Generator) -> Tensor:
    """Images and losses mixed pairwise. Zhang et al., ICLR 2018."""
    share = float(rng.beta(MIXUP_ALPHA, MIXUP_ALPHA))
    partner = torch.from_numpy(rng.permutation(len(batch.images)))
    logits = network(share * batch.images + (1 - share) * batch.images[partner])
    return share * loss_of(logits, batch.targets) + (1 - share) * loss_of(logits, batch.targets[partner])


def adversarial(epsilon: float) -> Strategy:
    """Training on the worst change of at most ``epsilon`` (window units) that projected gradient steps find."""

    def strategy(network: nn.Module, batch: Batch, loss_of: Loss, rng: np.random.Generator) -> Tensor:
        reach = epsilon * batch.units
        delta = torch.from_numpy(rng.uniform(-1, 1, batch.images.shape).astype(np.float32)) * reach
        for _ in range(ATTACK_STEPS):
            delta.requires_grad_()
            (slope,) = torch.autograd.grad(loss_of(network(batch.images + delta), batch.targets), delta)
            delta = (delta.detach() + ATTACK_STEP * reach * slope.sign()).clamp(-reach, reach)
        return loss_of(network(batch.images + delta), batch.targets)

    return strategy


def ueraser(network: nn.Module, batch: Batch, loss_of: Loss, rng: np.random.Generator) -> Tensor:
    """Training on that of several strongly augmented draws of every image at which the loss is largest."""
    transform = ueraser_like(batch.images.ndim - 2)
    transform.set_random_state(int(rng.integers(2**31)))
    draws = [augmented(batch, transform) for _ in range(DRAWS)]
    with torch.no_grad():
        losses = torch.stack([_loss_of_each(network(d.images), d.targets, loss_of) for d in draws])
    worst = [draws[int(n)] for n in losses.argmax(0)]
    images = torch.stack([d.images[n] for n, d in enumerate(worst)])
    return loss_of(network(images), torch.stack([d.targets[n] for n, d in enumerate(worst)]))


def _loss_of_each(logits: Tensor, targets: Tensor, loss_of: Loss) -> Tensor:
    return torch.stack([loss_of(logits[n : n + 1], targets[n : n + 1]) for n in range(len(logits))])


def warm_start(network: nn.Module, knowledge: Knowledge) -> None:
    """Begin with the weights of the same victim trained on public clean data; layers of other shapes stay fresh."""
    public = public_like(knowledge)
    trained = train_victim(
        public,
        public.samples(TRAIN),
        victim=knowledge.victim,
        seed=knowledge.seed,
        steps=knowledge.steps,
        report=lambda progress: knowledge.report(replace(progress, stage="train on public data")),
    ).network.state_dict()
    own = network.state_dict()
    network.load_state_dict({name: trained[name] if trained[name].shape == value.shape else value for name, value in own.items()})


def public_like(knowledge: Knowledge) -> AuditData:
    """The public data in the dimension and with the setting of the released data.

    Raises:
        UsageError: there is none, or it does not fit.
    """
    public, data = knowledge.public, knowledge.data
    if public is None:
        raise UsageError("this regime needs public clean data. Give another data set with --public.")
    if public.dimension > data.dimension:
        public = as_pictures(public)
    if (public.dimension, public.channels, public.task) != (data.dimension, data.channels, data.task):
        raise UsageError(f"the public data '{public.name}' do not fit: dimension, channels and task must be those of the audited data.")
    return replace(public, setting=data.setting)
