"""A checkpoint is found again only by the code that wrote it."""

from __future__ import annotations

from stages.core.training.token_source import TRAINING_MODULES
from tests.imports import CORE, transitive


def test_the_checkpoint_is_named_by_all_code_that_decides_the_weights():
    used = {fpath.stem for fpath in transitive(CORE / "training" / "trainer.py") if fpath.parent == CORE / "training"}
    assert set(TRAINING_MODULES) == used - {"__init__", "checkpoint"}
