"""Twice the images take no more memory: what is read and drawn is held a shard at a time, and a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.core.data import dataset
from stages.core.run import labels
from tests.memory import peak
from tests.studies import change_params, clone, run

pytestmark = pytest.mark.slow

GROWTH = 1.1
SIZE, N = 64, 1500
STUDY = {
    "compute": {"threads": 1},
    "ingest": {"image_size": 224},
    "world": {"n_women": 4},
    "demo": {"n_portraits": 32, "width": 128, "layers": 4, "steps": 20, "batch_size": 16, "min_accuracy": 0.0},
    "extract": {"batch_size": 64, "shard_images": 256},
}


def noise(folder: Path, n_corpus: int) -> None:
    """A dataset of two pairs, and as many corpus images as are asked for."""
    pairs = [
        (f"{woman}_{condition}", woman, condition, "happy", "", "a happy woman", split, pair)
        for pair, (woman, split) in enumerate((("anna", "discovery"), ("bea", "confirmation")))
        for condition in labels.CONDITIONS
    ]
    corpus = [(f"c{i}", "", "", "", "", "", "corpus", -1) for i in range(n_corpus)]
    table = pd.DataFrame(
        [*pairs, *corpus],
        columns=["image", "identity", "condition", "emotion", "intensity", "prompt", "split", "pair"],
    )
    rng = np.random.default_rng(0)
    prompts = {"happy": ["a happy woman"], "sad": ["a sad woman"]}
    with dataset.create(folder / "data" / "dataset", table, SIZE, prompts) as append:
        for some in np.array_split(np.arange(len(table)), len(table) // 100):
            images = rng.integers(0, 255, (len(some), SIZE, SIZE, 3), dtype=np.uint8)
            append(images, *np.full((2, len(some), SIZE, SIZE), 255, np.uint8))


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return clone(tmp_path_factory.mktemp("memory"), STUDY)


def test_ingest(study):
    peaks = []
    for n_corpus in (600, 1200):
        change_params(study, {"world": {"n_corpus": n_corpus}})
        peaks.append(peak(study, "stages.ingest"))
    assert peaks[1] < GROWTH * peaks[0], peaks


def test_extract(study):
    change_params(study, {"ingest": {"image_size": SIZE}})
    peaks = []
    for n_corpus in (N, 2 * N):
        noise(study, n_corpus)
        if not peaks:
            run(study, "python", "-m", "stages.prepare_clip")
        peaks.append(peak(study, "stages.extract"))
    assert peaks[1] < GROWTH * peaks[0], peaks
