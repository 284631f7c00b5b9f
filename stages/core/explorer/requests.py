"""What the page of the explorer may ask for: numbers and short texts, checked before anything is computed. No paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from stages.core.run.errors import StudyError
from stages.core.schema import EditScope

MAX_TEXTS, MAX_LETTERS = 8, 200
MAX_LATENTS = 256  # that have a slider
MAX_FACTOR = 4.0

Index = Annotated[int, Field(ge=0, lt=2**31)]
Typed = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_LETTERS)]
Factor = Annotated[float, Field(ge=0, le=MAX_FACTOR)]
Asked = TypeVar("Asked", bound="PictureRequest")


class RequestError(StudyError):
    """The page asked for something that is not there or not allowed. The message says what."""


class PictureRequest(BaseModel):
    """The pictures that are shown: the twins of a pair, or a picture that the user has uploaded.

    pair: number of the pair in the data set's table. upload: number of the uploaded picture. One of the two is given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    pair: Index | None = None
    upload: Index | None = None

    @model_validator(mode="after")
    def _one(self) -> PictureRequest:
        if (self.pair is None) == (self.upload is None):
            raise ValueError("give either a pair or an upload")
        return self


class View(PictureRequest):
    """Pictures, texts and an edit, for which probabilities and maps are wanted.

    texts: the texts to choose among; the emotion prompts of the study if empty.
    mapped: the text that the maps are about: its place among the texts, from 0.
    scope: the tokens that are edited.
    factors: latents and the factor of each. 0 removes the latent, 1 leaves it as it is.
    """

    texts: Annotated[list[Typed], Field(max_length=MAX_TEXTS)] = []
    mapped: Index = 0
    scope: EditScope = "all"
    factors: Annotated[list[tuple[Index, Factor]], Field(max_length=MAX_LATENTS)] = []

    @model_validator(mode="after")
    def _distinct(self) -> View:
        if len({latent for latent, _ in self.factors}) != len(self.factors):
            raise ValueError("factors names a latent twice")
        return self


class Place(PictureRequest):
    """A token of a picture. image: 0 or 1. token: 0 for the class token, then the patches row by row, from 1."""

    image: Index
    token: Index


def parsed(kind: type[Asked], body: bytes) -> Asked:
    """Read what the page asks for from the JSON text of its request.

    kind: the class of the request. body: the JSON text.
    Raises RequestError if the text is no JSON object, or holds a key or value that is not allowed.
    """
    return _checked(lambda: kind.model_validate_json(body))


def picture_request(kind: str, number: int) -> PictureRequest:
    """Ask for the pictures of a pair or an upload.

    kind: `pair` or `upload`. number: number of the pair or of the upload.
    Raises RequestError if the kind is another word, or if the number is not allowed.
    """
    if kind not in ("pair", "upload"):
        raise RequestError("pictures are those of a pair or an upload")
    return _checked(lambda: PictureRequest.model_validate({kind: number}))


def _checked(make: Callable[[], Asked]) -> Asked:
    try:
        return make()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RequestError(f"{f'{where}: ' if where else ''}{first['msg'].removeprefix('Value error, ')}") from None
