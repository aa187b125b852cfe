"""Several processes that fit one profile together: started by torchrun, on one machine or several with a common file system."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

from MedProtectLib.errors import UsageError
from MedProtectLib.fitting.batch import Batch


class Team:
    """This process among those of torchrun; a team of one where there is no torchrun.

    Every process draws the same patches and works on its share of them; the gradients are averaged, so that all processes
    keep the same networks. Only the first one writes files.
    """

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        if self.size > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        self.rank = distributed.get_rank() if self.size > 1 else 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process goes through the block, then the others."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def share_of(self, batch: Batch) -> Batch:
        """This process's patches of a batch.

        Raises:
            UsageError: the batch cannot be divided evenly.
        """
        if len(batch.image) % self.size:
            raise UsageError(f"a batch of {len(batch.image)} patches cannot be divided among {self.size} processes. Start fewer.")
        return Batch(*(part[self.rank :: self.size] for part in batch))

    def whole(self, share: Tensor) -> Tensor:
        """The patches of a batch in order, put together from the shares of all processes."""
        if self.size == 1:
            return share
        shares = [torch.empty_like(share) for _ in range(self.size)]
        distributed.all_gather(shares, share.contiguous())
        return torch.stack(shares, dim=1).flatten(0, 1)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the mean over all processes in the place of every gradient."""
        for parameter in parameters:
            if self.size > 1 and parameter.grad is not None:
                distributed.all_reduce(parameter.grad)
                parameter.grad /= self.size

    def mean(self, value: Tensor) -> float:
        """The mean of a number over all processes."""
        value = value.detach().clone()
        if self.size > 1:
            distributed.all_reduce(value)
        return float(value) / self.size


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch where the networks are."""
    return Batch(*(part.to(device) for part in batch))
