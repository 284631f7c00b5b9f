"""Raw images and their manifest, or the planted world -> the audit set at the model's resolution.

reads    <ingest.folder>/manifest.csv and the files it names (source: folder); nothing (source: synthetic)
writes   data/dataset, metrics/ingest.json, plots/ingest.png
claims   every row was checked before anything was written; images and masks went through the same resize
         and crop; the split into discovery women (used for choosing) and confirmation women (held out for the claims)
         is by woman, never by image; file names and women's names of a folder go no further than
         data/dataset/names.csv, which no stage reads

    python -m stages.ingest
    python -m stages.ingest --scaffold '{identity}_{emotion}_{condition}.jpg' --alias nude=semi_nude
    python -m stages.ingest --check            # check the folder and draw its masks, write no data set

plots/ingest.png shows pictures with their masks. --check also draws it if there are faults: the faulty rows come first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from PIL import Image

from stages.core.data import dataset
from stages.core.ingestion import contact_sheet, faults, image_files, label_checks, manifest
from stages.core.ingestion.prefetch import ordered_map
from stages.core.planted import world
from stages.core.run import inputs, outs, params, text
from stages.core.run.errors import run_command
from stages.core.run.labels import CLOTHED, CONDITIONS, REGIONS, SEMI_NUDE
from stages.core.schema import Ingest, World

DATASET_DPATH = Path("data/dataset")
METRICS_FPATH = Path("metrics/ingest.json")
PLOT_FPATH = Path("plots/ingest.png")
MASKS = [f"{region}_mask" for region in REGIONS]
N_NAMED = 5  # files that a message names
LONG = 20_000  # portraits that take about a minute to draw


@dataclass(frozen=True)
class Picture:
    """One image of the audit set, as the model will see it."""

    pixels: UInt8[np.ndarray, "s s 3"]
    masks: UInt8[np.ndarray, "region s s"]
    """Mask of the bust (row 0) and of the face (row 1). 255 is inside, 0 outside. For a corpus image, which belongs to
    no pair, both are 0 everywhere."""
    lost: Float[np.ndarray, " region"]
    """Share of the bust mask and of the face mask that the crop to a square cut away."""


PictureSource = Callable[[int], Picture]
"""A function that reads or draws the picture of a row, given by its number in the table. Only a few pictures are in
memory at a time."""


def announce(config: World, expressions: world.Expressions, size: int) -> None:
    """Print how many portraits of the planted world will be drawn, and their size in memory, before a long drawing.

    config: number of women and of corpus images. expressions: which faces there are.
    size: side of the pictures, in pixels.
    """
    n_images = config.n_women * len(expressions.takes()) * len(CONDITIONS) + config.n_corpus
    if n_images > LONG:
        megabytes = n_images * size**2 * (3 + len(REGIONS)) / 1e6
        print(
            f"{n_images:,} portraits of {size}x{size} pixels will be drawn: {megabytes:,.0f} MB before compression",
            flush=True,
        )


def from_world(config: World, expressions: world.Expressions, size: int) -> tuple[pd.DataFrame, PictureSource]:
    """Make the images of the planted world, whose portraits are drawn by a program.

    An audit pair has two images of one woman, semi-nude and clothed. Corpus images have no labels and only train SAEs.

    config: number of women and of corpus images, whether twins are two takes, and the seed.
    expressions: which faces there are.
    size: side of the pictures, in pixels.
    Returns two things: a table with a row per image, and a function that takes a row number of this table and draws the
    picture. Columns of the table: image (its name), identity (the woman), condition, emotion, intensity, and colour (of
    the top or shirt). Corpus images have only a name. Intensity is empty if there is but one, and prompt always.
    """
    audit_rng, corpus_rng = np.random.default_rng([config.seed, 0]).spawn(2)
    rows, portraits = [], []
    pairs = world.audit_pairs(config.n_women, expressions, audit_rng, retaken=config.retaken)
    for number, pair in enumerate(pairs):
        for portrait in (pair.semi_nude, pair.clothed):
            rows.append(
                {
                    "image": f"pair{number:04d}_{portrait.condition}",
                    "identity": f"woman{pair.woman:03d}",
                    "condition": portrait.condition,
                    "emotion": portrait.emotion,
                    "intensity": f"{pair.intensity:g}" if len(expressions.intensities) > 1 else "",
                    "colour": portrait.colour,
                }
            )
            portraits.append(portrait)
    for number, portrait in enumerate(world.sample_portraits(config.n_corpus, expressions, corpus_rng)):
        rows.append({"image": f"corpus{number:05d}"})
        portraits.append(portrait)
    table = pd.DataFrame(rows).fillna("").assign(prompt="")
    corpus = manifest.is_corpus(table).to_numpy()

    def draw(row: int) -> Picture:
        pixels, masks = world.render(portraits[row], size)
        return Picture(pixels, masks * np.uint8(not corpus[row]), np.zeros(len(REGIONS)))

    return table, draw


def from_folder(config: Ingest) -> tuple[pd.DataFrame, PictureSource]:
    """Read manifest.csv in a folder of photographs. Check this list of images and the files that it names.

    config: the folder, the emotions allowed, the largest size of an image, and the side of the pictures.
    Returns two things: the manifest as a table with a row per image, and a function that takes a row number of this
    table and reads the picture. Columns of the table, all text: image, bust_mask and face_mask (names of files),
    identity (the woman), condition, emotion, intensity and prompt. Warnings are printed on the error stream.
    Raises ManifestError if the manifest, or a file named there, cannot be used.
    """
    folder, limits, size = Path(config.folder), _limits(config), config.image_size
    inputs.remember_file(folder)  # images added or removed
    inputs.remember_file(folder / manifest.MANIFEST_FNAME)
    table = manifest.read(folder, limits)
    corpus = manifest.is_corpus(table).to_numpy()

    def read(row: int) -> Picture:
        labels = table.iloc[row]
        whole = image_files.open_image(folder / labels["image"], limits.max_pixels)
        pixels = image_files.square(whole, size, Image.Resampling.BICUBIC)
        if corpus[row]:
            return Picture(pixels, np.zeros((len(REGIONS), size, size), np.uint8), np.zeros(len(REGIONS)))
        masks = [image_files.open_mask(folder / labels[f"{region}_mask"], limits.max_pixels) for region in REGIONS]
        return Picture(
            pixels,
            np.stack([image_files.square(mask, size, Image.Resampling.BOX) for mask in masks]),
            np.array([image_files.share_lost(mask) for mask in masks]),
        )

    return table, read


def complete(table: pd.DataFrame, config: Ingest) -> pd.DataFrame:
    """Fill in missing prompts, assign each woman to a split, and number the pairs.

    The SAE and the latents are chosen on discovery women. Confirmation women are held out for the claims.

    table: a row per image, with identity (the woman), condition, emotion, intensity and prompt. A corpus image belongs
        to no pair and has no identity.
    config: the template of a prompt, the share of women who become discovery women, and the seed.
    Returns the table with prompts filled in, corpus images without any labels, and two new columns:
        split    discovery, confirmation or corpus
        pair     a number that the two images of a pair share; -1 for corpus images
    Raises ManifestError if there are fewer than two women.
    """
    table = table.copy()
    corpus = manifest.is_corpus(table)
    table.loc[corpus, label_checks.LABELS_OF_PAIRS] = ""
    no_prompt = (table["prompt"] == "") & ~corpus
    table.loc[no_prompt, "prompt"] = [text.filled(config.prompt, emotion=e) for e in table.loc[no_prompt, "emotion"]]
    try:
        splits = dataset.assign_splits(table.loc[~corpus, "identity"].tolist(), config.discovery_share, config.seed)
    except ValueError as error:
        raise manifest.ManifestError(f"{Path(config.folder) / manifest.MANIFEST_FNAME}: {error}") from None
    table["split"] = [splits.get(identity, "corpus") for identity in table["identity"]]
    table["pair"] = -1
    numbers = table[~corpus].groupby(["identity", "emotion", "intensity"], sort=False).ngroup()
    table.loc[~corpus, "pair"] = numbers
    return table


def prompts_of_emotions(table: pd.DataFrame, config: Ingest) -> dict[str, list[str]]:
    """Collect the prompts of each emotion, among which the readout chooses.

    table: a row per image, from `complete`.
    config: the emotions, in the order of the result, and the template of a prompt.
    Returns the distinct prompts of the images of each emotion, in alphabetical order; for an emotion that no image has,
    the filled template.
    """
    audit = table[table["pair"] >= 0]
    given = {emotion: sorted(set(prompts)) for emotion, prompts in audit.groupby("emotion")["prompt"]}
    return {emotion: given.get(emotion, [text.filled(config.prompt, emotion=emotion)]) for emotion in config.emotions}


def numbered(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Replace the names of files and women by names of this study alone.

    Later stages know only the new names, so no table of theirs can betray the old ones. Images of pairs are called
    pair0000_semi_nude and pair0000_clothed, with the number of the pair; corpus images corpus00000; women woman000. The
    planted world uses the same names. Women are numbered in the order of the rows.

    table: a row per image, from `complete`.
    Returns the same table with new names in the columns image and identity; and the key to the names, a row per image:
    image and identity (new names), file and woman (the names that the manifest gave).
    """
    corpus = manifest.is_corpus(table)
    images = "pair" + table["pair"].map("{:04d}".format) + "_" + table["condition"]
    images[corpus] = [f"corpus{i:05d}" for i in range(corpus.sum())]
    women = pd.Series("", table.index)
    women[~corpus] = [f"woman{i:03d}" for i in pd.factorize(table.loc[~corpus, "identity"])[0]]
    key = pd.DataFrame({"image": images, "identity": women, "file": table["image"], "woman": table["identity"]})
    return table.assign(image=images, identity=women), key


def write(
    table: pd.DataFrame,
    look: PictureSource,
    size: int,
    prompts: dict[str, list[str]],
    names: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Write the data set to data/dataset, image by image.

    table: a row per image with its labels, from `complete`.
    look: a function that takes a row number of `table` and returns the picture with its masks.
    size: side of the pictures, in pixels.
    prompts: the prompts of each emotion.
    names: the key to the names in `table`, from `numbered`; None if these are the only names.
    Returns a table with a row per image and these columns:
        bust_covered, face_covered    share of the image that lies inside the mask
        bust_lost, face_lost          share of the mask that the crop to a square cut away
    Raises DiskFull if there is no space left.
    """
    rows = []
    table = table.drop(columns=MASKS, errors="ignore")
    with dataset.create(DATASET_DPATH, table, size, prompts, names) as append:
        for picture in ordered_map(look, range(len(table))):
            append(picture.pixels[None], *picture.masks[:, None])
            covered = picture.masks.reshape(len(REGIONS), -1).mean(1) / 255
            rows.append([*covered, *picture.lost])
    return pd.DataFrame(rows, columns=[f"{region}_{share}" for share in ("covered", "lost") for region in REGIONS])


def measure(table: pd.DataFrame, shares: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Summarise the data set for a metrics file.

    table: a row per image, from `complete`. Audit images are those of pairs; corpus images belong to no pair.
    shares: a row per image, in the same order, from `write`: shares of the image inside the masks, and shares of the
        masks that the crop cut away.
    Returns a dictionary of three dictionaries. <region> is bust or face:
        count              numbers: images, audit_images, pairs, women, corpus_images, discovery_women,
                           confirmation_women
        mask_area_share    <region>_<condition>: mean share of the image inside the mask
        crop               <region>_worst_share_lost: largest share of a mask that the crop cut away
    """
    audit = table["pair"] >= 0
    counts = {
        "images": len(table),
        "audit_images": int(audit.sum()),
        "pairs": int(table["pair"].max() + 1),
        "women": int(table.loc[audit, "identity"].nunique()),
        "corpus_images": int((~audit).sum()),
        "discovery_women": int(table.loc[table["split"] == "discovery", "identity"].nunique()),
        "confirmation_women": int(table.loc[table["split"] == "confirmation", "identity"].nunique()),
    }
    areas = {}
    for region in REGIONS:
        for condition in (SEMI_NUDE, CLOTHED):
            chosen = (table["condition"] == condition).to_numpy()
            areas[f"{region}_{condition}"] = float(shares.loc[chosen, f"{region}_covered"].mean())
    kept = {f"{region}_worst_share_lost": float(shares[f"{region}_lost"].max()) for region in REGIONS}
    return {"count": counts, "mask_area_share": areas, "crop": kept}


def draw_masks(table: pd.DataFrame, look: PictureSource) -> None:
    """Draw some images with their masks into plots/ingest.png, so that a person can check the masks.

    table: a row per image with its labels, from `complete`.
    look: a function that takes a row number of `table` and returns the picture with its masks.
    """
    corpus = manifest.is_corpus(table).to_numpy()

    def glance(row: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        picture = look(row)
        return picture.pixels, {} if corpus[row] else dict(zip(REGIONS, picture.masks, strict=True))

    contact_sheet.draw(table, glance, PLOT_FPATH)


def draw_faulty(config: Ingest, faulty: Sequence[int]) -> None:
    """Draw the images of a folder that has faults, with the masks that can be read, into plots/ingest.png.

    config: the folder, the largest size of an image, and the side of the pictures.
    faulty: numbers of rows that have faults. They are shown first.
    Nothing is drawn if the manifest is no table.
    """
    folder, limits = manifest.Folder(Path(config.folder)), _limits(config)
    try:
        table = manifest.read_csv(folder.path / manifest.MANIFEST_FNAME)
    except manifest.ManifestError:
        return

    def glance(row: int) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
        whole, masks = manifest.glance(folder, table.iloc[row], limits)
        if whole is None:
            return None, {}
        cropped = {r: image_files.square(m, config.image_size, Image.Resampling.BOX) for r, m in masks.items()}
        return image_files.square(whole, config.image_size, Image.Resampling.BICUBIC), cropped

    contact_sheet.draw(table, glance, PLOT_FPATH, faulty)
    print(f"{PLOT_FPATH}: masks that could be read, rows with faults first")


def checked(config: Ingest) -> tuple[pd.DataFrame, PictureSource]:
    """Do the same as `from_folder`. If there are faults, also draw the images (`draw_faulty`) before the error."""
    try:
        return from_folder(config)
    except manifest.ManifestError as error:
        draw_faulty(config, error.rows)
        raise


def _limits(config: Ingest) -> manifest.Limits:
    return manifest.Limits(tuple(config.emotions), config.max_megapixels * 1e6)


def main() -> None:
    options = _options()
    config, world_params = params.load(Ingest, World)
    if options.scaffold:
        return _scaffold(config, options)
    if config.source == "synthetic" and not options.check:
        expressions = world.Expressions.from_params(config.emotions, world_params.intensities, world_params.ambiguity)
        announce(world_params, expressions, config.image_size)
        table, look = from_world(world_params, expressions, config.image_size)
    else:
        table, look = from_folder(config) if not options.check else checked(config)
    table = complete(table, config)
    draw_masks(table, look)
    if options.check:
        return print(f"{config.folder}: {len(table)} rows are in order; masks drawn in {PLOT_FPATH}")
    table, names = numbered(table) if config.source == "folder" else (table, None)
    shares = write(table, look, config.image_size, prompts_of_emotions(table, config), names)
    outs.write_metrics(METRICS_FPATH, measure(table, shares))


def _options() -> argparse.Namespace:
    parser = params.command_line(__doc__)
    parser.add_argument("--check", action="store_true", help="only check the folder and draw its masks")
    parser.add_argument("--scaffold", metavar="PATTERN", help="write manifest.csv from file names that match PATTERN")
    parser.add_argument("--alias", action="append", default=[], metavar="FOUND=MEANT", help="replace a label")
    return parser.parse_args()


def _scaffold(config: Ingest, options: argparse.Namespace) -> None:
    folder = Path(config.folder)
    fpath = folder / manifest.MANIFEST_FNAME
    if fpath.exists():
        raise manifest.ManifestError(
            f"{fpath} is there already: check it (python -m stages.ingest --check), or move it away and repeat this"
        )
    wrong = [alias for alias in options.alias if "=" not in alias]
    if wrong:
        raise manifest.ManifestError(f"--alias {wrong[0]}: write FOUND=MEANT, such as nude=semi_nude")
    table, unmatched = manifest.scaffold(folder, options.scaffold, dict(a.split("=", 1) for a in options.alias))
    if table.empty:
        raise manifest.ManifestError(
            f"no image in {folder} matches {options.scaffold!r}; not matched: {', '.join(unmatched[:5])}"
        )
    outs.write_table(fpath, table)
    print(f"{fpath}: {len(table)} rows written{_left_out(unmatched)}")
    for line in unknown_labels(fpath, table, config.emotions):
        manifest.warn_on_stderr(line)
    print("Check the labels, draw the masks it names, then: python -m stages.ingest --check")


def _left_out(unmatched: list[str]) -> str:
    if not unmatched:
        return ""
    named = ", ".join([*map(repr, unmatched[:N_NAMED]), *(["..."] if len(unmatched) > N_NAMED else [])])
    return f"; {len(unmatched)} image(s) do not match the pattern and were left out: {named}"


def unknown_labels(fpath: Path, table: pd.DataFrame, emotions: Sequence[str]) -> list[str]:
    """Write a line for each kind of label in a scaffold that `ingest` will refuse, with its rows and the remedy.

    fpath: the manifest that was written. table: its rows. emotions: those that a row may name.
    """
    found = faults.Faults(fpath)
    label_checks.check_known(table, emotions, found)
    remedy = "Move the manifest away and repeat the command with `--alias FOUND=MEANT` for each"
    return [*found.lines(), *([remedy] if found.found else [])]


if __name__ == "__main__":
    run_command(main)
