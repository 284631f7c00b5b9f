"""The planted world: procedural portraits, and captions with a bias of known size.

A portrait is drawn from an identity (skin, hair, background, build), an expression, and a torso that
wears either a shirt or a two-piece top of some colour. The drawing is flat and stylised. Face and
bust masks are exact, because they come from the same geometry as the drawing.

The bias is planted in the *captions*, never in the pictures (`planted_emotion`). In the biased condition, the
caption's emotion errs with probability `bias`: it follows the colour of the garment (a cue that misleads), or it is
drawn at random (lost signal). In the other condition it always follows the face. A CLIP trained on such captions learns
to read the garment in place of the face, or to read less from the face, in the biased condition, to a degree that we
choose.

Faces may be hard: another emotion is mixed into them. Twins may be two takes, as those of photographs are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from stages.core.run import text
from stages.core.run.errors import StudyError
from stages.core.run.labels import CLOTHED, CONDITIONS, SEMI_NUDE
from stages.core.schema import Biased, Plant

COLOURS = {"red": (196, 48, 52), "blue": (44, 88, 196), "green": (40, 146, 84), "gold": (232, 178, 44)}
COLOUR_NAMES = tuple(COLOURS)
GARMENTS = {SEMI_NUDE: "two-piece top", CLOTHED: "shirt"}
CAPTIONS = ("a {emotion} woman", "a {emotion} woman in a {garment}", "a {emotion} woman in a {colour} {garment}")

SKINS = ((244, 214, 190), (226, 184, 150), (198, 148, 112), (156, 106, 76), (112, 74, 54), (84, 56, 44))
HAIRS = ((34, 28, 30), (72, 46, 34), (124, 76, 44), (204, 164, 96), (140, 52, 36), (150, 146, 144))
BACKGROUNDS = ((222, 226, 232), (206, 218, 206), (232, 220, 206), (214, 206, 224), (196, 210, 222), (236, 232, 222))
INK, LIP, WHITE = (38, 28, 30), (186, 48, 60), (250, 250, 248)

NEUTRAL = "neutral"
CANVAS = 64.0  # side of the canvas that all drawing coordinates below refer to; scaled to the size asked for
LIGHT = (0.85, 1.1)  # of a take; a factor on all pixels
SUPERSAMPLE = 3  # pictures are drawn this many times larger, then box-averaged, for smooth edges


class WorldError(StudyError):
    """The planted world cannot be drawn as params.yaml asks. The message names the key to change."""


@dataclass(frozen=True)
class Face:
    """The parts of a face that move. Lengths are in canvas units; positions are measured from the top of the canvas.

    brow: height of the brows. tilt: how far their inner ends lie below the outer ones. eye: half the height of an eye.
    mouth: height of the mouth's middle. width: half its width. corners: how far its corners lie below the middle.
    upper, lower: how far the lips part upwards and downwards. square: 0 is a round mouth, larger is more angular.
    teeth: 0 to 1, how much of them is seen.
    """

    brow: float
    tilt: float
    eye: float
    mouth: float
    width: float
    corners: float
    upper: float
    lower: float
    square: float
    teeth: float


FACES = {
    "neutral": Face(13.8, 0.0, 2.0, 28.2, 5.6, 0.0, 0.3, 0.5, 0.0, 0.0),
    "happy": Face(13.6, -0.8, 2.0, 26.2, 7.0, -0.4, 0.0, 6.0, 0.0, 0.0),
    "sad": Face(14.6, -3.2, 2.0, 27.0, 6.4, 5.2, 0.4, 0.4, 0.0, 0.0),
    "angry": Face(15.2, 3.6, 2.0, 28.4, 7.0, 0.0, 1.9, 2.6, 8.0, 1.0),
    "surprised": Face(11.6, 0.0, 3.2, 28.4, 3.8, 0.0, 4.2, 4.8, 1.0, 0.0),
}
"""What a face looks like at normal intensity, by emotion."""


@dataclass(frozen=True)
class Expressions:
    """Which faces a world has.

    emotions: names of the emotions, keys of FACES.
    intensities: how strongly each emotion is shown; 1 is normal. `neutral` has no intensity.
    ambiguity: the largest share of another emotion in a face, 0 to 1. The share is drawn evenly from 0 to here, so at
        0 all faces are clear, and above .5 some show more of the other emotion.
    """

    emotions: tuple[str, ...]
    intensities: tuple[float, ...] = (1.0,)
    ambiguity: float = 0.0

    def takes(self) -> list[tuple[str, float]]:
        """Return the emotion and the intensity of each portrait that a woman sits for."""
        return [(e, i) for e in self.emotions for i in ((1.0,) if e == NEUTRAL else self.intensities)]

    @classmethod
    def from_params(cls, emotions: Sequence[str], intensities: Sequence[float], ambiguity: float) -> Expressions:
        """Return which faces a world has, as params.yaml says.

        emotions: `ingest.emotions`. intensities, ambiguity: those of section `world`.
        Raises WorldError if an emotion cannot be drawn.
        """
        strange = [emotion for emotion in emotions if emotion not in FACES]
        if strange:
            raise WorldError(
                f"ingest.emotions: {strange[0]!r} cannot be drawn; the planted world has {', '.join(FACES)}"
            )
        return cls(tuple(emotions), tuple(intensities), ambiguity)


@dataclass(frozen=True)
class Portrait:
    """Everything that decides one picture. Lengths are in canvas units (64 to a side).

    skin, hair, background: indices into SKINS, HAIRS, BACKGROUNDS.
    hair_length: length that is added to the shortest hair.
    build, face_width: factors on the width of the torso and of the face; 1 is average.
    emotion: what the face shows, one of FACES.
    colour: colour of the top or shirt, one of COLOUR_NAMES.
    condition: `semi_nude` or `clothed`.
    dx, dy: shift of the woman to the right and down.
    intensity: strength of the expression; 1 is normal.
    other, share: another emotion that is mixed into the face, and its share, 0 to 1.
    light: factor on all pixels.
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
    other: str = NEUTRAL
    share: float = 0.0
    light: float = 1.0

    @property
    def face(self) -> Face:
        """The face that is drawn: a mixture of two emotions, more or less far from a neutral face."""
        shown = {self.emotion: self.intensity * (1 - self.share), self.other: self.intensity * self.share}
        parts = {name: sum(w * getattr(FACES[e], name) for e, w in shown.items()) for name in vars(FACES[NEUTRAL])}
        rest = 1 - sum(shown.values())
        return Face(**{name: part + rest * getattr(FACES[NEUTRAL], name) for name, part in parts.items()})


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
        emotion=NEUTRAL,
        colour=COLOUR_NAMES[0],
        condition=CONDITIONS[0],
    )


def with_take(portrait: Portrait, expressions: Expressions, rng: np.random.Generator) -> Portrait:
    """Return a copy of `portrait` with what differs between two takes drawn from `rng`.

    The woman is shifted by at most 2 units to a side and 1.5 up or down, on a canvas of 64 units a side. The intensity
    is multiplied by .8 to 1.1. A share of another emotion is mixed into the face, up to `expressions.ambiguity`.
    """
    dx, dy, strength = rng.uniform(-2, 2), rng.uniform(-1.5, 1.5), rng.uniform(0.8, 1.1)
    others = [emotion for emotion in expressions.emotions if emotion != portrait.emotion]
    other, share = others[rng.integers(len(others))], rng.uniform(0, expressions.ambiguity)
    return replace(
        portrait, dx=dx, dy=dy, intensity=portrait.intensity * strength, other=other if share else NEUTRAL, share=share
    )


def sample_portraits(n: int, expressions: Expressions, rng: np.random.Generator) -> list[Portrait]:
    """Return `n` random portraits, each of a different woman. No picture is drawn yet.

    Emotion, intensity, colour of the garment and condition (semi-nude or clothed) are drawn independently. All values
    are equally likely.
    expressions: which faces there are. rng: source of the random choices.
    """
    return [
        with_take(
            replace(
                sample_identity(rng),
                emotion=str(rng.choice(expressions.emotions)),
                intensity=float(rng.choice(expressions.intensities)),
                colour=str(rng.choice(COLOUR_NAMES)),
                condition=str(rng.choice(CONDITIONS)),
            ),
            expressions,
            rng,
        )
        for _ in range(n)
    ]


@dataclass(frozen=True)
class Pair:
    """Two portraits (twins) of a woman with the same expression, semi-nude and clothed.

    woman: number of the woman, from 0. intensity: how strongly she was asked to show the emotion; 1 is normal.
    """

    woman: int
    intensity: float
    semi_nude: Portrait
    clothed: Portrait


def audit_pairs(
    n_women: int, expressions: Expressions, rng: np.random.Generator, *, retaken: bool = False
) -> list[Pair]:
    """Choose pairs of portraits (twins) of the same woman with the same expression.

    Each woman has one pair for each emotion and intensity. Her pairs share the colours out as evenly as their numbers
    allow. For each woman it is random which colour goes with which expression.

    n_women: number of women. expressions: which faces there are. rng: source of the random choices.
    retaken: False, and twins differ in the garment only. True, and each twin is a take of its own: pose, strength of
        the expression, what is mixed into it, and light are drawn anew, as they are for photographs.
    """
    pairs = []
    for woman in range(n_women):
        identity, takes = sample_identity(rng), expressions.takes()
        colours = rng.permutation(np.resize(rng.permutation(COLOUR_NAMES), len(takes)))
        for (emotion, intensity), colour in zip(takes, colours, strict=True):
            asked = replace(identity, emotion=emotion, intensity=intensity, colour=str(colour))
            if retaken:
                shown = [replace(with_take(asked, expressions, rng), light=rng.uniform(*LIGHT)) for _ in CONDITIONS]
            else:
                shown = [with_take(asked, expressions, rng)] * 2
            twins = (replace(take, condition=which) for take, which in zip(shown, (SEMI_NUDE, CLOTHED), strict=True))
            pairs.append(Pair(woman, intensity, *twins))
    return pairs


def colour_emotion(colour: str, emotions: Sequence[str]) -> str:
    """Return the emotion that the planted bias ties to a colour.

    colour: one of COLOUR_NAMES. Colours and emotions are paired in their order; fewer emotions begin anew.
    """
    return emotions[COLOUR_NAMES.index(colour) % len(emotions)]


def planted_emotion(
    portrait: Portrait,
    emotions: Sequence[str],
    bias: float,
    rng: np.random.Generator,
    *,
    plant: Plant = "cue",
    biased: Biased = "semi_nude",
) -> str:
    """Choose the emotion that the training caption of a portrait names.

    In the biased condition, the caption errs with probability `bias`. Otherwise, and in the other condition, it names
    the emotion of the face.

    emotions: all emotions of the world.
    plant: how a caption errs. `cue`: it names the emotion tied to the colour of the garment, a cue that misleads.
        `lost`: it names an emotion drawn at random, so that the face counts for less.
    biased: the condition whose captions err: `semi_nude`, `clothed` or `both`.
    """
    errs = biased in (portrait.condition, "both") and rng.random() < bias
    if not errs:
        return portrait.emotion
    return colour_emotion(portrait.colour, emotions) if plant == "cue" else str(rng.choice(emotions))


def caption(emotion: str, colour: str, condition: str, detail: int) -> str:
    """Return a caption for a portrait, such as "a happy woman in a red two-piece top".

    emotion: the emotion that the caption names. colour: colour of the garment.
    condition: `semi_nude` or `clothed`; it decides which garment is named.
    detail: 0 to name the emotion alone, 1 to add the garment, 2 to add the garment and its colour.
    """
    return text.filled(CAPTIONS[detail], emotion=emotion, colour=colour, garment=GARMENTS[condition])


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
    pixels = np.asarray(picture.reduce(SUPERSAMPLE)) * portrait.light
    return pixels.clip(0, 255).round().astype(np.uint8), np.stack(masks).astype(np.uint8) * 255


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
    face = p.face
    _eyes_and_brows(pen, p, face)
    _mouth(pen, face)


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


def _eyes_and_brows(pen: _Pen, p: Portrait, face: Face) -> None:
    for side in (-1, 1):
        centre = 32 + side * 5.8 * p.face_width
        pen.ellipse((centre - 2.9, 19 - face.eye, centre + 2.9, 19 + face.eye), WHITE)
        pen.ellipse((centre - 1.6, 19 - 1.6, centre + 1.6, 19 + 1.6), INK)
        ends = [(centre + side * 3.8, face.brow - face.tilt / 2), (centre - side * 3.0, face.brow + face.tilt / 2)]
        pen.line(ends, INK, 1.7)


def _mouth(pen: _Pen, face: Face) -> None:
    t = np.linspace(-1, 1, 17)
    middle, parted = face.mouth + face.corners * t**2, 1 - np.abs(t) ** (2 + max(face.square, 0))
    upper, lower = middle - face.upper * parted, middle + face.lower * parted
    across = 32 + face.width * t
    outline = [*zip(across, upper, strict=True), *zip(across[::-1], lower[::-1], strict=True)]
    teeth = min(max(face.teeth, 0), 1)
    pen.polygon(outline, tuple(round(a + teeth * (b - a)) for a, b in zip(LIP, WHITE, strict=True)))
    pen.line([*outline, outline[0]], LIP, 1.4)
