"""Bias latents are sought only in a model that reads faces."""

from __future__ import annotations

import pandas as pd

from stages import analyse_sae
from stages.core import schema
from stages.core.latents.lists import COLUMNS


def test_a_random_model_reads_no_face(spliced):
    assert analyse_sae.reads_faces(spliced, 0.0)
    assert not analyse_sae.reads_faces(spliced, 0.99)


def test_no_bias_latents_are_sought_in_a_model_that_reads_no_face(spliced, monkeypatch):
    sought = pd.DataFrame([[7, 1, -1.0, -2.0, -0.5, 0.01]], columns=COLUMNS)
    monkeypatch.setattr(analyse_sae, "find_bias_latents", lambda *given, **options: sought)
    edit = schema.Edit.model_construct(n_per_step=4, n_latents=4)
    for least, expected in ((0.0, sought), (0.99, sought[:0])):
        inference = schema.Inference.model_construct(min_readout=least)
        assert len(analyse_sae.bias_latents(spliced, None, inference, edit, None)) == len(expected)
