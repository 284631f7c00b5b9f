"""Batches of tokens, from memory or streamed from a store. The seed alone decides their order.

Both sources start at any step without reading the tokens of earlier steps, so an interrupted run can continue. With
several ranks, each rank takes its share of every batch. Together the ranks see the batches that one process would see.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stages.core.run.compute import ALONE, Ranks
from stages.core.run.errors import StudyError
from stages.core.store import Store

CHUNK = 65536  # tokens processed at once


class BufferTooSmall(StudyError):
    """Too few tokens for the batch size, in the shuffle buffer or in all. The message names the settings to change."""


@dataclass(frozen=True)
class InMemory:
    """Tokens held in the memory of the device, from which batches are drawn.

    Each epoch (pass over the tokens) visits the tokens in a new random order. Each batch takes the next `size` tokens.
    Tokens at the end of an epoch that do not fill a batch are skipped. If there are fewer than `size` tokens in all,
    each batch holds all of these tokens.
    size: tokens in a batch, summed over processes. seed: decides the order of the tokens.
    ranks: number of this process, and number of processes that share every batch.
    """

    tokens: Float[Tensor, "n d_in"]
    size: int
    seed: int
    ranks: Ranks = ALONE

    @property
    def d_in(self) -> int:
        """Width of a token."""
        return self.tokens.shape[1]

    def chunks(self) -> Iterator[Float[Tensor, "chunk d_in"]]:
        """Yield all tokens once, in stored order, CHUNK (65536) tokens at a time."""
        return iter(self.tokens.split(CHUNK))

    def starting_at(self, step: int) -> Iterator[Float[Tensor, "share d_in"]]:
        """Yield the share of this process in each batch, without end. An epoch is one pass over all tokens.

        step: number of the first batch to yield, counted from 0. Earlier batches are not read.
        Batch number i is the same, whatever `step` is. So an interrupted run can continue.
        """
        size = min(self.size, len(self.tokens))
        per_epoch = len(self.tokens) // size
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            order = torch.randperm(len(self.tokens), generator=generator)
            for batch in order.split(size)[step:per_epoch]:
                yield self.tokens[batch[self.ranks.share(size)].to(self.tokens.device)]
            step = max(0, step - per_epoch)


@dataclass(frozen=True)
class Streamed:
    """Tokens of a store too large for memory, read shard by shard (a shard is one file of the store).

    Each epoch (pass over the tokens) visits the shards in a new order. A buffer in memory has two halves. Batches are
    drawn at random from the tokens in one half. Meanwhile a thread reads the next shards into the other half. When
    the tokens left in a half do not fill a batch, they are skipped in this epoch.
    rows: row numbers of the images to read from the store, ascending.
    size: tokens in a batch, summed over processes. seed: decides the order of shards and tokens.
    capacity: tokens that the buffer holds. The buffer is larger if one shard alone exceeds half of `capacity`.
    device: where the tokens are put.
    ranks: number of this process, and number of processes that share every batch.
    """

    store: Store
    rows: np.ndarray
    size: int
    seed: int
    capacity: int
    device: torch.device
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        """Raise BufferTooSmall if half the buffer holds fewer than two batches, or if all tokens together do."""
        n = len(self.rows) * self.store.shape[1]
        if n < 2 * self.size:
            raise BufferTooSmall(
                f"{len(self.rows)} images have {n:,} tokens, too few for batches of {self.size:,}: lower "
                "train_sae.batch_size"
            )
        if self.capacity // 2 < 2 * self.size:
            raise BufferTooSmall(
                f"train_sae.memory_gib leaves a shuffle buffer of {self.capacity:,} tokens, too small for batches of "
                f"{self.size:,}: raise it, or lower train_sae.batch_size"
            )

    @property
    def d_in(self) -> int:
        """Width of a token."""
        return self.store.shape[2]

    def chunks(self) -> Iterator[Float[Tensor, "chunk d_in"]]:
        """Yield all tokens of the images `rows` once, in stored order.

        The buffer holds `capacity` tokens. Each array has the tokens of about half a buffer.
        Raises DamagedError if a shard is damaged.
        """
        return self._read(iter(self._buffers(np.array(list(self._rows_of)))))

    def starting_at(self, step: int) -> Iterator[Float[Tensor, "share d_in"]]:
        """Yield the share of this process in each batch, without end. An epoch is one pass over all tokens.

        step: number of the first batch to yield, counted from 0. Shards that serve only earlier batches are not read.
        Batch number i is the same, whatever `step` is. So an interrupted run can continue.
        Raises DamagedError if a shard is damaged.
        """
        plan = self._plan(step)
        orders: list[tuple[Tensor, int]] = []

        def wanted() -> Iterator[np.ndarray]:
            for rows, order, first in plan:
                orders.append((order, first))
                yield rows

        for tokens in self._read(wanted()):
            order, first = orders.pop(0)
            for batch in order.split(self.size)[first : len(order) // self.size]:
                yield tokens[batch[self.ranks.share(self.size)].to(self.device)]

    @cached_property
    def _rows_of(self) -> dict[int, np.ndarray]:
        """Rows to train on, by shard. Shards without any are left out."""
        shards, starts = np.unique(self.rows // self.store.shard_images, return_index=True)
        return dict(zip(shards.tolist(), np.split(self.rows, starts[1:]), strict=True))

    def _buffers(self, shards: np.ndarray) -> list[np.ndarray]:
        """Rows of consecutive shards, grouped: as many as half the capacity holds, but at least one shard."""
        images = max(1, self.capacity // 2 // self.store.shape[1])
        buffers = [np.empty(0, int)]
        for shard in shards:
            rows = self._rows_of[shard]
            if len(buffers[-1]) and len(buffers[-1]) + len(rows) > images:
                buffers.append(rows)
            else:
                buffers[-1] = np.concatenate([buffers[-1], rows])
        return buffers

    def _plan(self, step: int) -> Iterator[tuple[np.ndarray, Tensor, int]]:
        """The coming buffers, from `step` on: rows, order of their tokens, first batch to take."""
        generator = torch.Generator().manual_seed(self.seed)
        shards = np.array(list(self._rows_of))
        while True:
            for rows in self._buffers(shards[torch.randperm(len(shards), generator=generator).numpy()]):
                order = torch.randperm(len(rows) * self.store.shape[1], generator=generator)
                n_batches = len(order) // self.size
                if step < n_batches:
                    yield rows, order, step
                step = max(0, step - n_batches)

    def _read(self, wanted: Iterator[np.ndarray]) -> Iterator[Float[Tensor, "buffer d_in"]]:
        """Tokens of each set of rows. A thread reads the next set meanwhile."""

        def tokens(rows: np.ndarray) -> Tensor:
            return torch.from_numpy(self.store.read(np.sort(rows))).flatten(0, 1).to(self.device)

        with ThreadPoolExecutor(1) as pool:
            coming = None
            for rows in wanted:
                coming, ready = pool.submit(tokens, rows), coming
                if ready is not None:
                    yield ready.result()
            if coming is not None:
                yield coming.result()
