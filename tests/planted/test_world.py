"""The planted world: what is drawn, and what is planted."""

from __future__ import annotations

import numpy as np
import pytest

from stages.core.planted import world


def test_twins_differ_in_the_garment_only(rng):
    for _, semi_nude, clothed in world.audit_pairs(3, rng):
        assert (semi_nude.condition, clothed.condition) == ("semi_nude", "clothed")
        different = [name for name in vars(semi_nude) if getattr(semi_nude, name) != getattr(clothed, name)]
        assert different == ["condition"]


def test_twins_have_the_same_face_in_pixels(rng):
    _, semi_nude, clothed = world.audit_pairs(1, rng)[0]
    (a, masks), (b, _) = world.render(semi_nude, 64), world.render(clothed, 64)
    face = masks[1] > 0
    assert (a[face] == b[face]).all()
    assert (a != b).any()


def test_every_woman_shows_each_emotion_and_wears_each_colour_once(rng):
    for woman in range(4):
        shown = [p for w, p, _ in world.audit_pairs(4, rng) if w == woman]
        assert sorted(p.emotion for p in shown) == sorted(world.EMOTIONS)
        assert sorted(p.colour for p in shown) == sorted(world.COLOUR_NAMES)


def test_face_and_colour_are_independent_in_the_audit_set(rng):
    agree = [p.emotion == world.colour_emotion(p.colour) for _, p, _ in world.audit_pairs(500, rng)]
    assert np.mean(agree) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("bias", [0.0, 0.3, 1.0])
def test_the_planted_share_of_semi_nude_captions_follows_the_colour(rng, bias):
    portraits = [p for p in world.sample_portraits(6000, rng) if world.colour_emotion(p.colour) != p.emotion]
    for condition, expected in (("semi_nude", bias), ("clothed", 0.0)):
        chosen = [p for p in portraits if p.condition == condition]
        named = [world.planted_emotion(p, bias, rng) == world.colour_emotion(p.colour) for p in chosen]
        assert np.mean(named) == pytest.approx(expected, abs=4 * np.sqrt(0.25 / len(chosen)))


@pytest.mark.parametrize("biased", ["semi_nude", "clothed", "both"])
def test_lost_signal_is_an_emotion_drawn_at_random_in_the_biased_condition(rng, biased):
    portraits = world.sample_portraits(6000, rng)
    for condition in ("semi_nude", "clothed"):
        chosen = [p for p in portraits if p.condition == condition]
        named = [world.planted_emotion(p, 0.6, rng, plant="lost", biased=biased) for p in chosen]
        wrong = [emotion != p.emotion for emotion, p in zip(named, chosen, strict=True)]
        follows = [emotion == world.colour_emotion(p.colour) for emotion, p in zip(named, chosen, strict=True)]
        expected = 0.6 * 3 / 4 if biased in (condition, "both") else 0.0
        assert np.mean(wrong) == pytest.approx(expected, abs=4 * np.sqrt(0.25 / len(chosen)))
        assert np.mean(follows) == pytest.approx(0.25, abs=4 * np.sqrt(0.25 / len(chosen)))


def test_the_cue_may_mislead_in_the_clothed_condition(rng):
    portraits = [p for p in world.sample_portraits(2000, rng) if world.colour_emotion(p.colour) != p.emotion]
    follows = {
        condition: np.mean(
            [
                world.planted_emotion(p, 1.0, rng, biased="clothed") == world.colour_emotion(p.colour)
                for p in portraits
                if p.condition == condition
            ]
        )
        for condition in ("semi_nude", "clothed")
    }
    assert follows == {"semi_nude": 0, "clothed": 1}


def test_masks_lie_where_face_and_top_are_drawn(rng):
    _, semi_nude, _ = world.audit_pairs(1, rng)[0]
    picture, (bust, face) = world.render(semi_nude, 64)
    assert not (bust & face).any()
    top = np.array(world.COLOURS[semi_nude.colour])
    is_top = (np.abs(picture.astype(int) - top) <= 2).all(-1)
    assert is_top[bust > 0].mean() > 0.7
    skin = np.array(world.SKINS[semi_nude.skin])
    is_skin = (np.abs(picture.astype(int) - skin) <= 2).all(-1)
    assert is_skin[face > 0].mean() > 0.5


def test_captions_name_the_emotion_always():
    assert world.caption("sad", "red", "clothed", 0) == "a sad woman"
    assert world.caption("sad", "red", "clothed", 1) == "a sad woman in a shirt"
    assert world.caption("sad", "red", "semi_nude", 2) == "a sad woman in a red two-piece top"


def test_a_picture_is_the_same_for_the_same_portrait(rng):
    portrait = world.sample_portraits(1, rng)[0]
    assert (world.render(portrait, 48)[0] == world.render(portrait, 48)[0]).all()
    assert world.render(portrait, 48)[0].shape == (48, 48, 3)
