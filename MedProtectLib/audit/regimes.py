"""How a victim trains: a regime is made of parts, each a small function and one line in the table of its kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from torch import Tensor, nn

from MedProtectLib.audit.augmentation import Augmentation
from MedProtectLib.audit.batches import Batch, Purifier
from MedProtectLib.audit.data import AuditData, Sample
from MedProtectLib.progress import Report, ignore

Loss = Callable[[Tensor, Tensor], Tensor]
Strategy = Callable[[nn.Module, Batch, Loss, np.random.Generator], Tensor]
Attack = Callable[[Sample], np.ndarray]
Start = Callable[[nn.Module, "Knowledge"], None]


@dataclass(frozen=True)
class Knowledge:
    """What whoever trains the victim has besides the release: public clean data, a few clean originals, the tool itself.

    ``data`` gives the labels of the release and, through ``leaked``, the originals of a few of its cases. ``public`` is another
    clean data set, None where there is none. ``steps``: those of the victim, the setting's when None; ``report``: told what is
    trained before it.
    """

    data: AuditData = field(repr=False)
    released: Sequence[Sample] = field(repr=False)
    public: AuditData | None
    victim: str
    seed: int
    steps: int | None = None
    report: Report = field(default=ignore, repr=False)

    def leaked(self, count: int) -> list[tuple[Sample, Sample]]:
        """(original, released) of the first ``count`` labelled cases that hold a change, or of as many as there are."""
        originals = {sample.case.name: sample for sample in self.data.samples("train")}
        pairs = ((originals[sample.case.name], sample) for sample in self.released if sample.case.labelled)
        return list(islice((pair for pair in pairs if not np.array_equal(pair[0].image, pair[1].image)), count))


@dataclass(frozen=True)
class Regime:
    """``purify``: done to every image, in training and in use. ``attack``: done to the training images, whose labels are known.
    ``augment``: a MONAI transform of patches. ``strategy``: how a step finds its loss. ``start``: where the weights begin.
    ``requires``: what must be there; each raises UsageError where it is not.
    """

    name: str = "none"
    purify: tuple[Callable[[Knowledge], Purifier], ...] = ()
    attack: tuple[Callable[[Knowledge], Attack], ...] = ()
    augment: Augmentation | None = None
    strategy: Strategy | None = None
    start: Start | None = None
    requires: tuple[Callable[[Knowledge], object], ...] = ()
