"""A latent's decoder direction, by its neighbours and by the prompts it points to."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from stages.core.description import decoder_directions


def test_neighbours_by_hand():
    W_dec = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [-2.0, -1.0]])
    near, cosines = decoder_directions.neighbours(W_dec, np.array([0, 1]), 2)
    assert near.tolist() == [[2, 1], [2, 0]]
    assert cosines == pytest.approx(np.array([[0.5**0.5, 0], [0.5**0.5, 0]]), abs=1e-6)
    assert decoder_directions.neighbours(W_dec, np.array([], dtype=np.int64), 2)[0].shape == (0, 2)


def test_no_more_neighbours_than_there_are():
    assert decoder_directions.neighbours(torch.eye(3), np.array([1]), 9)[0].shape == (1, 2)


def test_a_vocabulary_runs_over_what_the_images_have():
    images = pd.DataFrame({"emotion": ["sad", "happy", ""], "colour": ["red", "", "blue"]})
    prompts = decoder_directions.vocabulary(
        ["a {emotion} woman", "a {emotion} woman in {colour}", "a woman", "a woman"], images
    )
    assert prompts[:2] == ["a happy woman", "a sad woman"]
    assert prompts[2:6] == [
        f"a {emotion} woman in {colour}" for emotion in ("happy", "sad") for colour in ("blue", "red")
    ]
    assert prompts[6:] == ["a woman"]
    angry = decoder_directions.vocabulary(["a {emotion} woman"], pd.DataFrame({"emotion": ["angry"]}))
    assert angry == ["an angry woman"]
    with pytest.raises(ValueError, match="no column 'garment'"):
        decoder_directions.vocabulary(["a {garment}"], images)


def test_a_direction_points_to_the_prompt_that_moves_the_embedding_its_way(tiny_clip):
    """The direction that turns the embedding towards one prompt, by autograd, has that prompt nearest."""
    prompts = ["happy", "sad", "a red shirt", "gold"]
    text = tiny_clip.text(prompts)
    centred = torch.nn.functional.normalize(text - text.mean(0), dim=1)
    width = tiny_clip.visual.ln_post.weight.shape[0]
    for k in range(len(prompts)):
        direction = torch.zeros(1, width, requires_grad=True)
        (
            tiny_clip.visual.ln_post.weight * (direction - direction.mean()) @ tiny_clip.visual.proj @ centred[k]
        ).sum().backward()
        cosines = decoder_directions.prompt_cosines(tiny_clip, direction.grad, prompts)
        assert cosines.shape == (1, 4) and cosines[0].argmax() == k
        assert (np.abs(cosines) <= 1 + 1e-6).all()
