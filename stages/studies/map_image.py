"""One image file and a text -> the Grad-ECLIP map of the audited CLIP, beside the picture as the model sees it.

    python -m stages.studies.map_image --image photo.jpg --text "a happy woman"

reads    data/clip (`dvc repro prepare_clip` makes it), the image
writes   <image>_map.png beside the image
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from stages.core import eclip, figures
from stages.core.clip import vit
from stages.core.clip.vit import FrozenClip
from stages.core.ingestion import manifest
from stages.core.run import params
from stages.core.run.errors import StudyError, run_command
from stages.core.schema import Compute

CLIP_DPATH = Path("data/clip")
MAX_PIXELS = 1e8


class ImageError(StudyError):
    """An image cannot be explained. The message names the file and the reason."""


def draw_map(clip: FrozenClip, fpath: Path, text: str) -> Path:
    """Draw the Grad-ECLIP map (a heatmap) of an image file for a text. The picture is shown at the left of the map.

    clip: the model to explain.
    text: the text that the image is compared with. The title shows the cosine of image and text.
    fpath: the image file. The drawing is written beside it, as `<image>_map.png`.
    Returns the path of the drawing. Raises ImageError if the image is missing or cannot be read.
    """
    if not fpath.is_file():
        raise ImageError(f"{fpath} not found")
    try:
        whole = manifest.open_image(fpath, MAX_PIXELS)
    except ValueError as error:
        raise ImageError(f"{fpath} {error}") from None
    picture = manifest.square(whole, clip.image_size, Image.Resampling.BICUBIC).copy()
    found = eclip.explain(clip.model, clip.pixels(picture[None]), clip.text([text])[None])
    figure, axes = figures.grid(1, 2, f"{text}: cosine {float(found.similarity):.3f}", cell=(3.2, 3.2))
    figures.picture(axes[0, 0], picture)
    figures.overlay(axes[0, 1], picture, found.raw["grad_eclip"][0, 0].cpu().numpy())
    drawn = fpath.with_name(f"{fpath.stem}_map.png")
    figures.save(figure, drawn)
    return drawn


def main() -> None:
    parser = params.command_line(__doc__)
    parser.add_argument("--image", type=Path, metavar="FILE", required=True, help="the image to explain")
    parser.add_argument("--text", required=True, help="the text to map onto the image")
    options = parser.parse_args()
    if not CLIP_DPATH.is_dir():
        raise ImageError(f"{CLIP_DPATH} is not there yet: dvc repro prepare_clip")
    print(draw_map(vit.load(CLIP_DPATH, params.load(Compute)), options.image, options.text))


if __name__ == "__main__":
    run_command(main)
