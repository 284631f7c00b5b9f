"""The planted world: procedural portraits, and captions with a bias of known size.

A portrait is drawn from an identity (skin, hair, background, build), an expression, and a torso that
wears either a shirt or a two-piece top of some colour. The drawing is flat and stylised. Face and
bust masks are exact, because they come from the same geometry as the drawing.

The bias is planted in the *captions*, never in the pictures (`planted_emotion`). In the biased condition, the
caption's emotion errs with probability `bias`: it follows the colour of the garment (a cue that misleads), or it is
drawn at random (lost signal). In the other condition it always follows the face. A CLIP trained on such captions learns
to read the garment in place of the face, or to read less from the face, in the biased condition, to a degree that we
choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from stages.core.run.labels import CLOTHED, CONDITIONS, SEMI_NUDE
from stages.core.schema import Biased, Plant

EMOTIONS = ("happy", "sad", "angry", "surprised")
COLOURS = {"red": (196, 48, 52), "blue": (44, 88, 196), "green": (40, 146, 84), "gold": (232, 178, 44)}
COLOUR_NAMES = tuple(COLOURS)
GARMENTS = {SEMI_NUDE: "two-piece top", CLOTHED: "shirt"}

SKINS = ((244, 214, 190), (226, 184, 150), (198, 148, 112), (156, 106, 76), (112, 74, 54), (84, 56, 44))
HAIRS = ((34, 28, 30), (72, 46, 34), (124, 76, 44), (204, 164, 96), (140, 52, 36), (150, 146, 144))
BACKGROUNDS = ((222, 226, 232), (206, 218, 206), (232, 220, 206), (214, 206, 224), (196, 210, 222), (236, 232, 222))
INK, LIP, WHITE = (38, 28, 30), (186, 48, 60), (250, 250, 248)

CANVAS = 64.0  # side of the canvas that all drawing coordinates below refer to; scaled to the size asked for
SUPERSAMPLE = 3  # pictures are drawn this many times larger, then box-averaged, for smooth edges


@dataclass(frozen=True)
class Portrait:
    """Everything that decides one picture. Lengths are in canvas units (64 to a side).

    skin, hair, background: indices into SKINS, HAIRS, BACKGROUNDS.
    hair_length: length that is added to the shortest hair.
    build, face_width: factors on the width of the torso and of the face; 1 is average.
    emotion: what the face shows, one of EMOTIONS.
    colour: colour of the top or shirt, one of COLOUR_NAMES.
    condition: `semi_nude` or `clothed`.
    dx, dy: shift of the woman to the right and down.
    intensity: strength of the expression; 1 is normal.
    """

    skin: int
    hair: int
    hair_length: float
    background: int
    build: float
    face_width: float
    emotion: str
    colour: str
    condition: str
    dx: float = 0.0
    dy: float = 0.0
    intensity: float = 1.0


def sample_identity(rng: np.random.Generator) -> Portrait:
    """Choose a random identity of a woman: skin, hair, background, build and width of the face.

    rng: source of the random choices.
    Returns a portrait with this identity. Emotion, colour and condition are placeholders, to be replaced later.
    """
    return Portrait(
        skin=int(rng.integers(len(SKINS))),
        hair=int(rng.integers(len(HAIRS))),
        hair_length=float(rng.uniform(0, 14)),
        background=int(rng.integers(len(BACKGROUNDS))),
        build=float(rng.uniform(0.88, 1.12)),
        face_width=float(rng.uniform(0.92, 1.08)),
        emotion=EMOTIONS[0],
        colour=COLOUR_NAMES[0],
        condition=CONDITIONS[0],
    )


def with_pose(portrait: Portrait, rng: np.random.Generator) -> Portrait:
    """Return a copy of `portrait` with a random pose, drawn from `rng`.

    The woman is shifted by at most 2 units to a side and 1.5 up or down, on a canvas of 64 units a side. The intensity
    of the expression is 0.8 to 1.1 (1 is normal).
    """
    return replace(
        portrait,
        dx=float(rng.uniform(-2, 2)),
        dy=float(rng.uniform(-1.5, 1.5)),
        intensity=float(rng.uniform(0.8, 1.1)),
    )


def sample_portraits(n: int, rng: np.random.Generator) -> list[Portrait]:
    """Return `n` random portraits, each of a different woman in a random pose. No picture is drawn yet.

    Emotion, colour of the garment and condition (semi-nude or clothed) are drawn independently. All values are equally
    likely.
    rng: source of the random choices.
    """
    return [
        with_pose(
            replace(
                sample_identity(rng),
                emotion=str(rng.choice(EMOTIONS)),
                colour=str(rng.choice(COLOUR_NAMES)),
                condition=str(rng.choice(CONDITIONS)),
            ),
            rng,
        )
        for _ in range(n)
    ]


def audit_pairs(n_women: int, rng: np.random.Generator) -> list[tuple[int, Portrait, Portrait]]:
    """Choose pairs of portraits (twins) of the same woman with the same expression. Only the garment differs.

    Each woman has one pair for each expression. Each of her pairs has a different colour. For each woman it is random
    which colour goes with which expression.
    n_women: number of women. rng: source of the random choices.
    Returns a tuple per pair: the number of the woman (from 0), the semi-nude portrait, the clothed portrait.
    """
    pairs = []
    for woman in range(n_women):
        identity = sample_identity(rng)
        colours = rng.permutation(COLOUR_NAMES)
        for emotion, colour in zip(EMOTIONS, colours, strict=True):
            shown = with_pose(replace(identity, emotion=emotion, colour=str(colour)), rng)
            pairs.append((woman, replace(shown, condition=SEMI_NUDE), replace(shown, condition=CLOTHED)))
    return pairs


def colour_emotion(colour: str) -> str:
    """Return the emotion that the planted bias ties to a colour.

    colour: one of COLOUR_NAMES. Colours and emotions are paired in the order of COLOUR_NAMES and EMOTIONS.
    """
    return EMOTIONS[COLOUR_NAMES.index(colour)]


def planted_emotion(
    portrait: Portrait, bias: float, rng: np.random.Generator, *, plant: Plant = "cue", biased: Biased = "semi_nude"
) -> str:
    """Choose the emotion that the training caption of a portrait names.

    In the biased condition, the caption errs with probability `bias`. Otherwise, and in the other condition, it names
    the emotion of the face.

    plant: how a caption errs. `cue`: it names the emotion tied to the colour of the garment, a cue that misleads.
        `lost`: it names an emotion drawn at random, so that the face counts for less.
    biased: the condition whose captions err: `semi_nude`, `clothed` or `both`.
    """
    errs = biased in (portrait.condition, "both") and rng.random() < bias
    if not errs:
        return portrait.emotion
    return colour_emotion(portrait.colour) if plant == "cue" else str(rng.choice(EMOTIONS))


def caption(emotion: str, colour: str, condition: str, detail: int) -> str:
    """Return a caption for a portrait, such as "a happy woman in a red two-piece top".

    emotion: the emotion that the caption names. colour: colour of the garment.
    condition: `semi_nude` or `clothed`; it decides which garment is named.
    detail: 0 to name the emotion alone, 1 to add the garment, 2 to add the garment and its colour.
    """
    garment = GARMENTS[condition]
    return (
        f"a {emotion} woman",
        f"a {emotion} woman in a {garment}",
        f"a {emotion} woman in a {colour} {garment}",
    )[detail]


def render(portrait: Portrait, size: int) -> tuple[UInt8[np.ndarray, "size size 3"], UInt8[np.ndarray, "2 size size"]]:
    """Draw a portrait, with masks of the bust and the face.

    portrait: everything that decides the picture. size: side of the picture and of the masks, in pixels.
    Returns the RGB picture, and an array with the bust mask and then the face mask. A mask is 255 inside the region and
    0 outside.
    """
    large = size * SUPERSAMPLE
    picture = Image.new("RGB", (large, large), BACKGROUNDS[portrait.background])
    _paint(_Pen(ImageDraw.Draw(picture), large / CANVAS, portrait.dx, portrait.dy), portrait)
    masks = []
    for box in (_bust_box(portrait), _face_box(portrait)):
        mask = Image.new("L", (large, large), 0)
        _Pen(ImageDraw.Draw(mask), large / CANVAS, portrait.dx, portrait.dy).ellipse(box, 255)
        masks.append(np.asarray(mask.reduce(SUPERSAMPLE)) >= 128)
    return np.asarray(picture.reduce(SUPERSAMPLE)), np.stack(masks).astype(np.uint8) * 255


def _face_box(p: Portrait) -> tuple[float, float, float, float]:
    return 32 - 13 * p.face_width, 5, 32 + 13 * p.face_width, 37


def _bust_box(p: Portrait) -> tuple[float, float, float, float]:
    return 32 - 16 * p.build, 46, 32 + 16 * p.build, 60


Point = tuple[float, float]
Fill = int | tuple[int, ...]
"""A grey value, or red, green and blue, 0 to 255."""


class _Pen:
    """Draws on the 64-unit canvas, shifted by the pose, at the pixel scale of the image behind it."""

    def __init__(self, draw: ImageDraw.ImageDraw, scale: float, dx: float, dy: float):
        self.draw, self.scale, self.dx, self.dy = draw, scale, dx, dy

    def _xy(self, points: Sequence[Point]) -> list[Point]:
        return [((x + self.dx) * self.scale, (y + self.dy) * self.scale) for x, y in points]

    def polygon(self, points: Sequence[Point], fill: Fill) -> None:
        self.draw.polygon(self._xy(points), fill=fill)

    def ellipse(self, box: tuple[float, float, float, float], fill: Fill) -> None:
        x0, y0, x1, y1 = box
        self.draw.ellipse([*self._xy([(x0, y0)])[0], *self._xy([(x1, y1)])[0]], fill=fill)

    def line(self, points: Sequence[Point], fill: Fill, width: float) -> None:
        self.draw.line(self._xy(points), fill=fill, width=max(1, round(width * self.scale)), joint="curve")


def _paint(pen: _Pen, p: Portrait) -> None:
    skin, hair = SKINS[p.skin], HAIRS[p.hair]
    w = 13 * p.face_width
    pen.ellipse((32 - w - 4, 1, 32 + w + 4, 34), hair)
    end = 27 + p.hair_length
    pen.polygon([(32 - w - 4, 17), (32 + w + 4, 17), (32 + w + 3, end), (32 - w - 3, end)], hair)
    _torso(pen, p, skin)
    pen.ellipse(_face_box(p), skin)
    fringe = [(32 - w + 1, 13), (32 - w + 4, 7), (32, 3.5), (32 + w - 4, 7), (32 + w - 1, 13), (32, 9)]
    pen.polygon(fringe, hair)
    _eyes_and_brows(pen, p)
    _mouth(pen, p)


def _torso(pen: _Pen, p: Portrait, skin: tuple[int, int, int]) -> None:
    b, top = p.build, COLOURS[p.colour]
    body = skin if p.condition == SEMI_NUDE else top
    half = [(7, 40), (20 * b, 44), (24 * b, 51), (23 * b, 70)]
    pen.polygon([(32 - x, y) for x, y in half] + [(32 + x, y) for x, y in reversed(half)], body)
    pen.polygon([(27, 33), (37, 33), (38, 41), (32, 44), (26, 41)], skin)
    for side in (-1, 1):
        pen.line([(32 + side * 17 * b, 55), (32 + side * 16.5 * b, 70)], _shade(body), 0.7)
    if p.condition == SEMI_NUDE:
        w = 16.5 * b
        pen.polygon([(32 - w, 48), (32, 49.5), (32 + w, 48), (32 + w - 0.5, 59), (32 - w + 0.5, 59)], top)
        for side in (-1, 1):
            pen.line([(32 + side * 11 * b, 49), (32 + side * 8, 41)], top, 1.6)


def _shade(colour: tuple[int, int, int]) -> tuple[int, ...]:
    return tuple(int(c * 0.8) for c in colour)


def _eyes_and_brows(pen: _Pen, p: Portrait) -> None:
    x = 5.8 * p.face_width
    tilt = {"happy": -0.8, "sad": -3.2, "angry": 3.6, "surprised": 0.0}[p.emotion] * p.intensity
    brow_y = {"happy": 13.6, "sad": 14.6, "angry": 15.2, "surprised": 11.6}[p.emotion]
    eye = 3.2 if p.emotion == "surprised" else 2.0
    for side in (-1, 1):
        centre = 32 + side * x
        pen.ellipse((centre - 2.9, 19 - eye, centre + 2.9, 19 + eye), WHITE)
        pen.ellipse((centre - 1.6, 19 - 1.6, centre + 1.6, 19 + 1.6), INK)
        pen.line([(centre + side * 3.8, brow_y - tilt / 2), (centre - side * 3.0, brow_y + tilt / 2)], INK, 1.7)


def _mouth(pen: _Pen, p: Portrait) -> None:
    s = p.intensity
    if p.emotion == "happy":
        pen.polygon([(32 + 7 * t, 26 + 6 * s * (1 - t * t)) for t in np.linspace(-1, 1, 13)], LIP)
    elif p.emotion == "sad":
        pen.line([(32 + 6.4 * t, 27 + 5.2 * s * t * t) for t in np.linspace(-1, 1, 13)], LIP, 2.2)
    elif p.emotion == "angry":
        pen.polygon([(25, 26.5), (39, 26.5), (39, 30 + s), (25, 30 + s)], WHITE)
        pen.line([(25, 26.5), (39, 26.5), (39, 30 + s), (25, 30 + s), (25, 26.5)], LIP, 1.4)
    else:
        pen.ellipse((32 - 3.6, 28.4 - 4.2 * s, 32 + 3.6, 28.4 + 4.8 * s), LIP)
