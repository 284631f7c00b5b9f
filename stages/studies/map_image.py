"""One image file and a text -> the Grad-ECLIP map of the audited CLIP, beside the picture as the model sees it.

    python -m stages.studies.map_image --image photo.jpg --text "a happy woman" [--out map.png]

reads    data/clip (`dvc repro prepare_clip` makes it), the image
writes   the file that --out names, by default <image>_map.png in the working directory. Nothing is written into data/
         or into the folder of images (ingest.folder): there, a new file would make stages run again
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from stages.core import eclip, figures
from stages.core.clip import vit
from stages.core.clip.vit import FrozenClip
from stages.core.ingestion import image_files
from stages.core.run import params
from stages.core.run.errors import StudyError, run_command
from stages.core.schema import Compute, Ingest

DATA_DPATH, CLIP_DPATH = Path("data"), Path("data/clip")
MAX_PIXELS = 1e8


class ImageError(StudyError):
    """An image cannot be explained. The message names the file and the reason."""


def drawing_path(image: Path, out: Path | None, folder: str = "") -> Path:
    """Return the path of the drawing.

    image: the image file. folder: the folder of images that `ingest` reads; "" if there is none.
    out: the path that the user asks for. If None, the drawing is `<image>_map.png` in the working directory.
    Raises ImageError if the path is not that of a PNG file, lies in data/ or in `folder`, or is the image itself.
    """
    drawn = Path(f"{image.stem}_map.png") if out is None else out
    if drawn.suffix.lower() != ".png":
        raise ImageError(f"--out {drawn}: the map is a PNG file; end the name with .png")
    if drawn.resolve().is_relative_to(DATA_DPATH.resolve()):
        raise ImageError(f"--out {drawn}: {DATA_DPATH} belongs to the stages; name a file elsewhere")
    if folder and drawn.resolve().is_relative_to(Path(folder).resolve()):
        raise ImageError(
            f"--out {drawn}: {folder} (ingest.folder) holds the images that stages read; name a file elsewhere"
        )
    if drawn.resolve() == image.resolve():
        raise ImageError(f"--out {drawn}: that is the image; name another file")
    return drawn


def draw_map(clip: FrozenClip, fpath: Path, text: str, drawn: Path) -> None:
    """Draw the Grad-ECLIP map (a heatmap) of an image file for a text. The picture is shown at the left of the map.

    clip: the model to explain.
    text: the text that the image is compared with. The title shows the cosine of image and text.
    fpath: the image file. drawn: where the drawing is written.
    Raises ImageError if the image is missing or cannot be read.
    """
    if not fpath.is_file():
        raise ImageError(f"{fpath} not found")
    try:
        whole = image_files.open_image(fpath, MAX_PIXELS)
    except ValueError as error:
        raise ImageError(f"{fpath} {error}") from None
    picture = image_files.square(whole, clip.image_size, Image.Resampling.BICUBIC).copy()
    found = eclip.explain(clip.model, clip.pixels(picture[None]), clip.text([text])[None])
    figure, axes = figures.grid(1, 2, f"{text}: cosine {float(found.similarity):.3f}", cell=(3.2, 3.2))
    figures.picture(axes[0, 0], picture)
    figures.overlay(axes[0, 1], picture, found.raw["grad_eclip"][0, 0].cpu().numpy())
    figures.save(figure, drawn)


def main() -> None:
    parser = params.command_line(__doc__)
    parser.add_argument("--image", type=Path, metavar="FILE", required=True, help="the image to explain")
    parser.add_argument("--text", required=True, help="the text to map onto the image")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to draw (default: <image>_map.png, here)")
    options = parser.parse_args()
    compute, ingest = params.load(Compute, Ingest)
    drawn = drawing_path(options.image, options.out, ingest.folder)
    if not CLIP_DPATH.is_dir():
        raise ImageError(f"{CLIP_DPATH} is not there yet: dvc repro prepare_clip")
    draw_map(vit.load(CLIP_DPATH, compute), options.image, options.text, drawn)
    print(drawn)


if __name__ == "__main__":
    run_command(main)
