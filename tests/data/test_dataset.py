"""The audit set reads back as it was written, and women are split whole."""

from __future__ import annotations

import numpy as np
import pytest

from stages.core.data import dataset
from stages.core.paired import Pairs


def test_the_dataset_reads_back(data):
    pairs = Pairs.from_images(data.table)
    assert len(pairs) == 8
    assert (data.table["condition"].to_numpy()[pairs.semi_nude] == "semi_nude").all()
    assert (data.table["identity"].to_numpy()[pairs.clothed] == pairs.women).all()
    assert data.emotion_index(np.array([0, 2])).tolist() == [0, 1]
    assert set(Pairs.from_images(data.table, "discovery").women) == {"w0", "w1"}


def test_splits_are_by_woman():
    splits = dataset.assign_splits(["a", "a", "b", "c", "d"], 0.5, seed=0)
    assert sorted(splits.values()) == ["confirmation", "confirmation", "discovery", "discovery"]
    with pytest.raises(ValueError, match="at least 2"):
        dataset.assign_splits(["a", "a"], 0.5, seed=0)
