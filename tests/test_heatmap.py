"""Maps of the spliced model."""

from __future__ import annotations

import numpy as np
import torch

from stages import heatmap
from stages.core.latents.error_kept_edits import LatentEdit
from stages.core.latents.spliced_clip import original


def test_nothing_edited_has_the_map_and_the_embedding_of_the_original_exactly(spliced):
    rows = np.arange(6)
    nothing = spliced.edit_arm(LatentEdit(latents=torch.tensor([], dtype=torch.long)), "all")
    some = spliced.edit_arm(LatentEdit(latents=torch.arange(8)), "all")
    (before, cosines), (after, same_cosines) = (heatmap.maps(spliced, rows, arm) for arm in (original, nothing))
    assert np.array_equal(before, after) and np.array_equal(cosines, same_cosines)
    assert np.array_equal(spliced.embeddings(rows), spliced.embeddings(rows, nothing))
    assert not np.array_equal(before, heatmap.maps(spliced, rows, some)[0])
