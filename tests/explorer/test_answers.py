"""What the explorer answers, against numbers computed directly."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from stages.core import eclip
from stages.core.explorer.requests import PictureRequest, Place, RequestError, View
from stages.core.latents.error_kept_edits import LatentEdit
from tests.explorer import files

PAIR = 2  # semi-nude in row 4, clothed in row 5
ROWS = np.array([4, 5])
FACTORS = [(3, 0.0), (7, 2.5), (20, 0.5)]


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def scaled_tokens(spliced, rows: np.ndarray) -> torch.Tensor:
    """x + D(f') - D(f) with every latent encoded and decoded, and three of them multiplied."""
    x, sae = torch.from_numpy(spliced.activations.read(rows)), spliced.sae
    f = sae.encode(x)
    changed = f.clone()
    for latent, factor in FACTORS:
        changed[..., latent] *= factor
    return x + sae.decode(changed) - sae.decode(f)


def probabilities(answer: dict, arm: str) -> np.ndarray:
    return np.array([picture[arm]["probabilities"] for picture in answer["pictures"]])


def test_probabilities_are_the_softmax_of_scaled_cosines(study, spliced):
    answer = study.view(View(pair=PAIR, factors=FACTORS))
    texts = spliced.clip.text(["a happy woman", "a sad woman"]).numpy()
    for arm, tokens in (("original", spliced.audit.tokens(ROWS)), ("edited", scaled_tokens(spliced, ROWS))):
        embedded = spliced.clip.tail(tokens, 2).detach().numpy()
        expected = softmax(spliced.clip.logit_scale * embedded @ texts.T)
        assert probabilities(answer, arm) == pytest.approx(expected, abs=1e-5)
    assert np.abs(probabilities(answer, "original") - probabilities(answer, "edited")).max() > 1e-3


def test_the_probability_of_the_true_emotion_is_that_of_the_causal_test(study, spliced):
    edit = LatentEdit(latents=torch.tensor([3, 7]), kind="scale", factor=4.0)
    R = spliced.outcomes(ROWS, [spliced.edit_arm(edit, "bust")]).R[0]
    answer = study.view(View(pair=PAIR, factors=[(3, 4.0), (7, 4.0)], scope="bust"))
    truth = answer["pictures"][0]["truth"]
    assert probabilities(answer, "edited")[:, truth] == pytest.approx(np.exp(R), abs=1e-5)


def test_maps_are_those_of_the_edited_model(study, spliced):
    edit = LatentEdit(latents=torch.tensor([3, 7, 20]), kind="scale", factor=torch.tensor([0.0, 2.5, 0.5]))
    text = spliced.clip.text(["a sad woman"]).expand(1, 2, -1)
    with spliced.arm_in_place(spliced.edit_arm(edit, "all"), ROWS):
        found = eclip.explain(spliced.clip.model, spliced.clip.pixels(spliced.data.images(ROWS)), text)
    answer = study.view(View(pair=PAIR, factors=FACTORS, mapped=1))
    maps = np.array([picture["edited"]["map"] for picture in answer["pictures"]])
    assert maps == pytest.approx(found.raw["grad_eclip"][:, 0].numpy(), rel=1e-4, abs=1e-7)
    assert not spliced.clip.visual.transformer.resblocks[1]._forward_hooks


def test_factors_of_one_edit_nothing(study):
    answer = study.view(View(pair=PAIR, factors=[(3, 1.0)]))
    assert all(picture["edited"] == picture["original"] for picture in answer["pictures"])
    assert answer["pictures"][0]["cosine_to_original"] == pytest.approx(1, abs=1e-6)


def test_texts_of_ones_own_take_the_place_of_the_emotions(study, spliced):
    answer = study.view(View(pair=PAIR, texts=["a flower", "a sad woman", "a car"]))
    embedded = spliced.clip.tail(spliced.audit.tokens(ROWS), 2).detach().numpy()
    texts = spliced.clip.text(["a flower", "a sad woman", "a car"]).numpy()
    expected = softmax(spliced.clip.logit_scale * embedded @ texts.T)
    assert probabilities(answer, "original") == pytest.approx(expected, abs=1e-5)
    assert answer["pictures"][0]["truth"] is None


def png(spliced, row: int) -> bytes:
    return files.content(Image.fromarray(spliced.data.images(np.array([row]))[0]))


def test_an_uploaded_picture_is_read_as_the_same_picture_of_the_study(study, spliced):
    number = study.upload(png(spliced, 4))
    own = probabilities(study.view(View(upload=number, factors=FACTORS)), "edited")[0]
    assert own == pytest.approx(probabilities(study.view(View(pair=PAIR, factors=FACTORS)), "edited")[0], abs=1e-5)
    sent = np.asarray(Image.open(BytesIO(study.picture(PictureRequest(upload=number), 0))))
    assert (sent == spliced.data.images(ROWS[:1])[0]).all()


def test_only_the_newest_eight_uploads_are_kept(study, spliced):
    assert study.upload(png(spliced, 0)) == 0
    study.view(View(upload=0))
    assert [study.upload(png(spliced, row)) for row in range(1, 9)] == list(range(1, 9))
    study.view(View(upload=8))
    with pytest.raises(RequestError, match="uploaded picture 0 is no longer here"):
        study.view(View(upload=0))
    with pytest.raises(RequestError, match="no longer here"):
        study.picture(PictureRequest(upload=0), 0)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"pair": 99}, "pair 99 does not exist"),
        ({"upload": 0}, "uploaded picture 0"),
        ({"pair": PAIR, "factors": [(64, 0.0)]}, "latent 64 does not exist; the SAE has 64"),
        ({"pair": PAIR, "mapped": 2}, "there is no text 2"),
    ],
)
def test_what_does_not_exist_is_named(study, asked, says):
    with pytest.raises(RequestError, match=says):
        study.view(View(**asked))


def test_an_uploaded_picture_has_no_bust(study, spliced):
    number = study.upload(png(spliced, 4))
    with pytest.raises(RequestError, match="no bust mask"):
        study.view(View(upload=number, factors=FACTORS, scope="bust"))


def test_latents_that_fire_most_on_a_patch(study, spliced):
    f = spliced.sae.encode(torch.from_numpy(spliced.activations.read(ROWS)))[1, 6].numpy()
    found = study.firing(Place(pair=PAIR, image=1, token=6))
    strongest = [int(latent) for latent in np.argsort(-f)[:12] if f[latent] > 0]
    assert [row["latent"] for row in found] == strongest
    assert found[0]["activation"] == pytest.approx(f.max(), rel=1e-5)
    with pytest.raises(RequestError, match="no token 17"):
        study.firing(Place(pair=PAIR, image=1, token=17))


def test_a_card_describes_a_latent_on_held_out_women(study, spliced):
    patches = spliced.sae.encode(torch.from_numpy(spliced.activations.read(np.arange(16))))[:, 1:]
    latent = int(patches[8:].amax((0, 1)).argmax())
    card, f = study.card(latent), patches[..., latent].amax(1).numpy()
    table = spliced.data.table
    held_out = (table["split"] == "confirmation") & (table["condition"] == "clothed") & (table["emotion"] == "sad")
    (mean,) = (row for row in card["means"] if (row["condition"], row["value"]) == ("clothed", "sad"))
    assert mean["estimate"] == pytest.approx(f[held_out].mean(), rel=1e-4)
    best = table[table["split"] == "confirmation"].index[f[table["split"] == "confirmation"].argmax()]
    assert card["top"][0]["pair"] == table["pair"][best]
    assert card["top"][0]["image"] == ["semi_nude", "clothed"].index(table["condition"][best])
    assert np.max(card["top"][0]["grid"]) == pytest.approx(f[best], rel=1e-4)
    assert card["prompts"].startswith(nearest_prompt(spliced, latent))


def nearest_prompt(spliced, latent: int) -> str:
    """The prompt nearest to a decoder row after the last layer norm and projection, with its cosine."""
    prompts, visual = ["a happy woman", "a sad woman", "a flower"], spliced.clip.visual
    row, gain, projection = (
        p.detach().numpy() for p in (spliced.sae.W_dec[latent], visual.ln_post.weight, visual.proj)
    )
    direction = ((row - row.mean()) * gain) @ projection
    distinct = (texts := spliced.clip.text(prompts).numpy()) - texts.mean(0)
    cosines = distinct @ direction / np.linalg.norm(distinct, axis=1) / np.linalg.norm(direction)
    return f"{prompts[cosines.argmax()]} ({cosines.max():.2f})"


def test_the_table_has_every_latent_with_its_lists(study):
    table = study.latents()
    assert table["latent"] == list(range(64))
    assert {latent: name for latent, name in enumerate(table["lists"]) if name} == {
        3: "bias",
        7: "bias perception",
        11: "bias",
        20: "perception",
    }
    assert [latent for latent in range(64) if table["edited"][latent]] == [3, 11]
    assert table["effect gap"][32] == 0.5
