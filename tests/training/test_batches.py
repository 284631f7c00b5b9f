"""The order of tokens: from the seed alone, whole, resumable, streamed or not, shared among ranks or not."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from stages.core import store
from stages.core.run.compute import Ranks
from stages.core.training import Normalisation, TrainConfig, train
from stages.core.training.batches import BufferTooSmall, InMemory, Streamed

N_IMAGES, N_TOKENS, WIDTH, SHARD = 23, 10, 3, 4
CPU = torch.device("cpu")


@pytest.fixture
def tokens() -> np.ndarray:
    """Each token says which it is."""
    numbers = np.arange(N_IMAGES * N_TOKENS, dtype=np.float32).reshape(N_IMAGES, N_TOKENS, 1)
    return np.concatenate([numbers, -numbers, np.sqrt(numbers)], axis=2)


@pytest.fixture
def opened(tokens, tmp_path):
    with store.create(tmp_path / "a.zarr", N_IMAGES, N_TOKENS, WIDTH, shard_images=SHARD) as new:
        new.append(tokens)
    return store.open(tmp_path / "a.zarr")


def sources(opened, rows, size, ranks=Ranks()):  # noqa: B008 (frozen)
    yield InMemory(torch.from_numpy(opened.read(rows)).flatten(0, 1), size, 5, ranks)
    yield Streamed(opened, rows, size, 5, capacity=16 * N_TOKENS, device=CPU, ranks=ranks)


def test_an_epoch_is_every_token_once(opened):
    rows = np.array([0, 1, 3, 4, 5, 6, 9, 12, 13, 14, 15, 16, 17, 20, 21, 22])
    for source in sources(opened, rows, size=N_TOKENS):  # no remainder is left of any buffer
        per_epoch = len(rows)
        seen = torch.cat(list(islice(source.starting_at(0), 2 * per_epoch)))[:, 0].int() // N_TOKENS
        assert set(seen.tolist()) == set(rows.tolist())
        first_epoch = torch.cat(list(islice(source.starting_at(0), per_epoch)))[:, 0]
        assert len(first_epoch.unique()) == len(first_epoch)
        assert not torch.equal(first_epoch, first_epoch.sort().values)


def test_a_later_start_gives_the_same_batches(opened):
    for source in sources(opened, np.arange(N_IMAGES), size=12):
        whole = list(islice(source.starting_at(0), 60))
        for start in (1, 7, 19, 41):
            assert all(
                torch.equal(a, b) for a, b in zip(islice(source.starting_at(start), 5), whole[start:], strict=False)
            )


def test_a_stream_reads_each_shard_once_an_epoch_and_shuffles_across_shards(opened, monkeypatch):
    _, source = sources(opened, np.arange(N_IMAGES), size=20)
    reads = []
    read = store.Store.read
    monkeypatch.setattr(store.Store, "read", lambda self, rows: reads.append(rows) or read(self, rows))
    batches = list(islice(source.starting_at(0), 8))
    assert all(len(rows) <= 8 for rows in reads)  # half the capacity, in images
    assert all((np.diff(rows // SHARD) >= 0).all() for rows in reads)
    assert np.mean([len(set((batch[:, 0].int() // N_TOKENS // SHARD).tolist())) > 1 for batch in batches]) > 0.5


def test_ranks_share_the_batches_of_one_process(opened):
    for k, alone in enumerate(sources(opened, np.arange(N_IMAGES), size=15)):
        shares = [list(sources(opened, np.arange(N_IMAGES), 15, Ranks(rank, 4)))[k].starting_at(0) for rank in range(4)]
        for batch in islice(alone.starting_at(0), 20):
            assert torch.equal(torch.cat([next(share) for share in shares]), batch)


def test_normalisation_is_the_same_in_chunks_and_at_once(opened, tokens):
    at_once = Normalisation.from_tokens(torch.from_numpy(tokens).flatten(0, 1))
    for source in sources(opened, np.arange(N_IMAGES), size=8):
        found = Normalisation.from_tokens(source.chunks())
        assert torch.allclose(found.mean, at_once.mean) and found.scale == pytest.approx(at_once.scale)


def test_a_stream_trains_as_well_as_memory(opened):
    config = TrainConfig(d_sae=12, steps=60, batch_size=20, target_l0=2, dead_after_steps=5)
    in_memory, streamed = (
        train(source, config)[1]["fvu"].iloc[-1] for source in sources(opened, np.arange(N_IMAGES), 20)
    )
    assert streamed == pytest.approx(in_memory, rel=0.3)


def test_a_buffer_smaller_than_a_batch_is_refused(opened):
    with pytest.raises(BufferTooSmall, match=r"train_sae.memory_gib .* too small for batches of 64"):
        Streamed(opened, np.arange(N_IMAGES), 64, 0, capacity=100, device=CPU)


def test_too_few_tokens_are_not_blamed_on_the_memory(opened):
    with pytest.raises(BufferTooSmall) as caught:
        Streamed(opened, np.arange(2), 64, 0, capacity=10**6, device=CPU)
    says = f"2 images have {2 * N_TOKENS} tokens, too few for batches of 64: lower train_sae.batch_size"
    assert says in str(caught.value) and "memory_gib" not in str(caught.value)
