"""The planted world: what is drawn, and what is planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stages.core.planted import world

EMOTIONS = ("happy", "sad", "angry", "surprised")
CLEAR = world.Expressions(EMOTIONS)
LIKE_SOBEM = world.Expressions(("neutral", "happy", "angry", "sad"), (0.6, 1.0), 0.8)


def colour_emotion(portrait: world.Portrait) -> str:
    return world.colour_emotion(portrait.colour, EMOTIONS)


def test_twins_differ_in_the_garment_only(rng):
    for pair in world.audit_pairs(3, CLEAR, rng):
        semi_nude, clothed = pair.semi_nude, pair.clothed
        assert (semi_nude.condition, clothed.condition) == ("semi_nude", "clothed")
        assert replace(semi_nude, condition="clothed") == clothed


def test_twins_that_are_two_takes_share_the_woman_the_colour_and_what_she_was_asked_to_show(rng):
    drawn_anew = {"dx", "dy", "intensity", "other", "share", "light", "condition"}
    for pair in world.audit_pairs(3, LIKE_SOBEM, rng, retaken=True):
        same, twin = vars(pair.semi_nude), vars(pair.clothed)
        assert {name for name in same if same[name] != twin[name]} - {"other"} == drawn_anew - {"other"}
        for take in (pair.semi_nude, pair.clothed):
            assert 0.8 * pair.intensity <= take.intensity <= 1.1 * pair.intensity
            assert take.other != take.emotion and 0 <= take.share <= LIKE_SOBEM.ambiguity


def test_twins_have_the_same_face_in_pixels(rng):
    pair = world.audit_pairs(1, CLEAR, rng)[0]
    (a, masks), (b, _) = world.render(pair.semi_nude, 64), world.render(pair.clothed, 64)
    face = masks[1] > 0
    assert (a[face] == b[face]).all()
    assert (a != b).any()


def test_every_woman_shows_each_emotion_and_wears_each_colour_once(rng):
    pairs = world.audit_pairs(4, CLEAR, rng)
    for woman in range(4):
        shown = [pair.semi_nude for pair in pairs if pair.woman == woman]
        assert sorted(p.emotion for p in shown) == sorted(EMOTIONS)
        assert sorted(p.colour for p in shown) == sorted(world.COLOUR_NAMES)


def test_twenty_women_of_four_emotions_in_two_intensities_give_140_pairs_with_a_neutral_face_once(rng):
    pairs = world.audit_pairs(20, LIKE_SOBEM, rng)
    asked = [(pair.semi_nude.emotion, pair.intensity) for pair in pairs]
    assert len(pairs) == 140 and asked[:7] == [
        *(("neutral", 1.0), ("happy", 0.6), ("happy", 1.0), ("angry", 0.6), ("angry", 1.0), ("sad", 0.6), ("sad", 1.0))
    ]
    for woman in range(20):
        worn = [pair.semi_nude.colour for pair in pairs if pair.woman == woman]
        assert set(np.unique(worn, return_counts=True)[1]) == {1, 2}


def test_face_and_colour_are_independent_in_the_audit_set(rng):
    agree = [pair.semi_nude.emotion == colour_emotion(pair.semi_nude) for pair in world.audit_pairs(500, CLEAR, rng)]
    assert np.mean(agree) == pytest.approx(0.25, abs=0.03)


def test_a_face_of_no_intensity_is_neutral_and_a_mixture_lies_between_its_emotions(rng):
    portrait = world.sample_portraits(1, CLEAR, rng)[0]
    happy = replace(portrait, emotion="happy", intensity=1.0)
    assert replace(happy, intensity=0.0).face == world.FACES["neutral"]
    assert happy.face == world.FACES["happy"]
    mixed = replace(happy, other="sad", share=0.25).face
    assert mixed.corners == pytest.approx(0.75 * world.FACES["happy"].corners + 0.25 * world.FACES["sad"].corners)


def test_the_emotion_that_prevails_is_the_one_asked_for_as_often_as_the_parameter_says(rng):
    shares = [portrait.share for portrait in world.sample_portraits(4000, LIKE_SOBEM, rng)]
    assert max(shares) <= 0.8 and np.mean(np.array(shares) < 0.5) == pytest.approx(0.5 / 0.8, abs=0.03)


@pytest.mark.parametrize("bias", [0.0, 0.3, 1.0])
def test_the_planted_share_of_semi_nude_captions_follows_the_colour(rng, bias):
    portraits = [p for p in world.sample_portraits(6000, CLEAR, rng) if colour_emotion(p) != p.emotion]
    for condition, expected in (("semi_nude", bias), ("clothed", 0.0)):
        chosen = [p for p in portraits if p.condition == condition]
        named = [world.planted_emotion(p, EMOTIONS, bias, rng) == colour_emotion(p) for p in chosen]
        assert np.mean(named) == pytest.approx(expected, abs=4 * np.sqrt(0.25 / len(chosen)))


@pytest.mark.parametrize("biased", ["semi_nude", "clothed", "both"])
def test_lost_signal_is_an_emotion_drawn_at_random_in_the_biased_condition(rng, biased):
    portraits = world.sample_portraits(6000, CLEAR, rng)
    for condition in ("semi_nude", "clothed"):
        chosen = [p for p in portraits if p.condition == condition]
        named = [world.planted_emotion(p, EMOTIONS, 0.6, rng, plant="lost", biased=biased) for p in chosen]
        wrong = [emotion != p.emotion for emotion, p in zip(named, chosen, strict=True)]
        follows = [emotion == colour_emotion(p) for emotion, p in zip(named, chosen, strict=True)]
        expected = 0.6 * 3 / 4 if biased in (condition, "both") else 0.0
        assert np.mean(wrong) == pytest.approx(expected, abs=4 * np.sqrt(0.25 / len(chosen)))
        assert np.mean(follows) == pytest.approx(0.25, abs=4 * np.sqrt(0.25 / len(chosen)))


def test_the_cue_may_mislead_in_the_clothed_condition(rng):
    portraits = [p for p in world.sample_portraits(2000, CLEAR, rng) if colour_emotion(p) != p.emotion]
    follows = {
        condition: np.mean(
            [
                world.planted_emotion(p, EMOTIONS, 1.0, rng, biased="clothed") == colour_emotion(p)
                for p in portraits
                if p.condition == condition
            ]
        )
        for condition in ("semi_nude", "clothed")
    }
    assert follows == {"semi_nude": 0, "clothed": 1}


def test_an_emotion_that_cannot_be_drawn_is_named():
    with pytest.raises(world.WorldError, match=r"ingest\.emotions: 'calm' cannot be drawn; .* neutral, happy"):
        world.Expressions.from_params(["happy", "calm"], [1.0], 0.0)


def test_masks_lie_where_face_and_top_are_drawn(rng):
    semi_nude = world.audit_pairs(1, CLEAR, rng)[0].semi_nude
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
    assert world.caption("angry", "red", "clothed", 0) == "an angry woman"
    assert world.caption("sad", "red", "clothed", 1) == "a sad woman in a shirt"
    assert world.caption("sad", "red", "semi_nude", 2) == "a sad woman in a red two-piece top"


def test_a_picture_is_the_same_for_the_same_portrait_and_darker_in_less_light(rng):
    portrait = world.sample_portraits(1, CLEAR, rng)[0]
    picture = world.render(portrait, 48)[0]
    assert (world.render(portrait, 48)[0] == picture).all() and picture.shape == (48, 48, 3)
    assert world.render(replace(portrait, light=0.85), 48)[0].mean() == pytest.approx(0.85 * picture.mean(), rel=0.01)
