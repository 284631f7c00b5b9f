"""Malformed input: refused with the file or key at fault, read right where it is merely unusual, never run as code."""

from __future__ import annotations

import pickle
import struct
import subprocess
import time
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from stages.core import schema
from stages.core.clip import vit
from stages.core.ingestion import image_files, manifest
from stages.core.ingestion.manifest import Limits, ManifestError
from stages.core.run import params
from stages.core.run.labels import CONDITIONS, REGIONS
from stages.studies.apply import apply
from tests.imports import ROOT
from tests.soak import fuzz, judge
from tests.soak.damage import MARKER, Bomb
from tests.soak.inputs import INPUTS, clip, parameters
from tests.soak.inputs import folder as folders
from tests.soak.inputs.kinds import digest
from tests.soak.judge import WATCH

LIMITS = Limits(emotions=("happy", "sad"), max_pixels=200e6)
GOOD = yaml.safe_load((ROOT / "params.yaml").read_text())
KEYS = [(section, key) for section, values in GOOD.items() for key in values]
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=3))


def box(size=(20, 16), rows=(8, 12)):
    """A mask of the middle columns of some rows."""
    mask = Image.new("L", size)
    mask.paste(255, (size[0] // 4, rows[0], size[0] - size[0] // 4, rows[1]))
    return mask


def pair(folder, picture, bust=None, save=None):
    """A folder of one pair of the same size, with faces at the top. `save` writes the picture of the first row."""
    rows = []
    masks = {"bust": bust or box(picture.size), "face": box(picture.size, rows=(2, 6))}
    for i, condition in enumerate(CONDITIONS):
        other = picture.point(lambda value, i=i: max(value - i, 0))
        (save or Image.Image.save)(other, folder / f"{i}.png") if i == 0 else other.save(folder / f"{i}.png")
        for region in REGIONS:
            masks[region].save(folder / f"{i}_{region}.png")
        named = {f"{region}_mask": f"{i}_{region}.png" for region in REGIONS}
        rows.append({"image": f"{i}.png", "identity": "anna", "condition": condition, "emotion": "sad", **named})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder


def noise(size=(20, 16), mode="RGB"):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(1, 255, (*size[::-1], 3), dtype=np.uint8)).convert(mode)


def refusal(folder, limits=LIMITS):
    with pytest.raises(ManifestError) as caught:
        manifest.read(folder, limits)
    return str(caught.value)


# images


def test_sixteen_bits_of_grey_become_their_upper_eight(tmp_path):
    Image.fromarray(np.array([[0, 255, 256 * 100 + 7, 65535]], np.uint16)).save(tmp_path / "a.png")
    shown = np.asarray(image_files.open_image(tmp_path / "a.png", 100))
    assert shown[0].tolist() == [[v] * 3 for v in (0, 0, 100, 255)]
    assert np.asarray(image_files.open_mask(tmp_path / "a.png", 100))[0].tolist() == [0, 0, 0, 255]


def test_inks_become_light(tmp_path):
    Image.new("CMYK", (2, 2), (255, 0, 0, 0)).save(tmp_path / "cyan.tif")
    assert image_files.open_image(tmp_path / "cyan.tif", 100).getpixel((0, 0)) == (0, 255, 255)


def test_a_picture_turned_by_its_exif_tag_fits_the_mask_drawn_on_it(tmp_path):
    upright = Image.new("RGB", (16, 20))
    upright.paste((250, 250, 250), (0, 6, 8, 10))
    mask = Image.new("L", (16, 20))
    mask.paste(255, (0, 6, 8, 10))

    def save_turned(image, fpath):
        exif = Image.Exif()
        exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
        image.transpose(Image.Transpose.ROTATE_90).save(fpath, exif=exif)

    table = manifest.read(pair(tmp_path, upright, mask, save_turned), LIMITS)
    shown = np.asarray(image_files.open_image(tmp_path / table["image"][0], 1e6))
    marked = np.asarray(image_files.open_mask(tmp_path / table["bust_mask"][0], 1e6))
    assert ((shown[..., 0] == 250) == (marked == 255)).all() and (marked == 255).sum() == 8 * 4


def test_a_mask_is_what_was_painted_on_its_transparent_layer(tmp_path):
    layer = Image.new("RGBA", (4, 1), (255, 255, 255, 0))
    layer.putpixel((1, 0), (255, 255, 255, 255))
    layer.putpixel((2, 0), (0, 0, 0, 255))
    layer.save(tmp_path / "m.png")
    assert np.asarray(image_files.open_mask(tmp_path / "m.png", 100))[0].tolist() == [0, 255, 0, 0]
    layer.convert("P").save(tmp_path / "p.png", transparency=bytes([0] * 256))
    assert image_files.open_mask(tmp_path / "p.png", 100).getbbox() is None


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_pictures_in_one_file_are_refused(tmp_path, form):
    def save_two(image, fpath):
        image.save(fpath, form, save_all=True, append_images=[noise().rotate(180)])

    folder = pair(tmp_path, noise(), save=save_two)
    assert "row 2: image '0.png' holds 2 pictures; save the one that is meant" in refusal(folder)


def test_one_pixel_is_a_picture_and_a_strip_is_none(tmp_path):
    for size, accepted in (((1, 1), True), ((20, 1), True), ((21, 1), False), ((1, 900_000), False)):
        noise(size).save(tmp_path / "a.png")
        if accepted:
            square = image_files.square(image_files.open_image(tmp_path / "a.png", 100), 8, Image.Resampling.BICUBIC)
            assert square.shape == (8, 8, 3)
        else:
            with pytest.raises(ValueError, match=f"is {size[0]}x{size[1]} pixels, a strip"):
                image_files.open_image(tmp_path / "a.png", 1e6)


@pytest.mark.parametrize("side", [9000, 12000, 30000])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, side):
    """A megabyte of zeros deflates to a kilobyte. Pillow would warn from 89 megapixels on, and stop at 179."""
    pair(tmp_path, noise())
    (tmp_path / "0.png").write_bytes(folders.png_of((tmp_path / "0.png").read_bytes(), side, side))
    assert "row 2: image '0.png' has more than 50 megapixels" in refusal(tmp_path, Limits(("sad",), 50e6))


def test_a_picture_smaller_than_its_header_says_is_cut_short(tmp_path):
    header = struct.pack(">II5B", 16, 16, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 40)), (b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(ValueError, match="cut short"):
        image_files.open_image(tmp_path / "a.png", 1e6)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_half_a_file_is_refused(tmp_path, form):
    noise((60, 40)).save(tmp_path / "a", form)
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="save it again as PNG or JPEG"):
        image_files.open_image(tmp_path / "a", 1e6)


@pytest.mark.parametrize("form", sorted(folders.FOREIGN))
def test_what_is_no_picture_is_refused_and_no_program_started(tmp_path, form):
    """Pillow would have Ghostscript run an EPS file, whatever its name."""
    (tmp_path / "a.png").write_bytes(folders.FOREIGN[form])
    with pytest.raises(ValueError, match=r"PNG or JPEG|scale it down|megapixels"), WATCH.watching(()):
        image_files.open_image(tmp_path / "a.png", 1e6)
    assert not WATCH.seen


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_pixels_of_unknown_range_are_refused(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=f"mode {mode}; save it again as 8-bit"):
        image_files.open_image(tmp_path / "a.tif", 1e6)


def test_a_mask_that_the_crop_takes_away_is_a_fault(tmp_path):
    mask = Image.new("L", (40, 20))
    mask.paste(255, (0, 0, 10, 20))  # the crop keeps columns 10 to 30
    assert "row 2: bust_mask '0_bust.png' lies outside the centre square" in refusal(
        pair(tmp_path, noise((40, 20)), mask)
    )
    mask.putpixel((10, 0), 255)
    manifest.read(pair(tmp_path, noise((40, 20)), mask), LIMITS)


# the manifest


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 300, "loop.png"])
def test_names_that_no_file_can_have_are_not_found(tmp_path, name):
    pair(tmp_path, noise())
    (tmp_path / "loop.png").symlink_to("loop.png")
    fpath = tmp_path / "manifest.csv"
    fpath.write_text(fpath.read_text().replace("0.png", name, 1))
    assert f"row 2: image {name!r} not found" in refusal(tmp_path)


def test_rows_longer_than_the_header_are_refused(tmp_path):
    fpath = pair(tmp_path, noise()) / "manifest.csv"
    header, *rows = fpath.read_text().splitlines()
    fpath.write_text("\n".join([header, *(f"{row},x" for row in rows)]))
    assert "row 3: 7 fields, but the header has 6; put text with commas in quotes" in refusal(tmp_path)


def test_scaffold_refuses_what_it_cannot_match_or_write(tmp_path):
    pattern = "{identity}_{condition}_{emotion}"
    with pytest.raises(ManifestError, match="more than 2 times"):
        manifest.scaffold(tmp_path, pattern + "{any}" * 3, {})
    (tmp_path / "\udcff_clothed_sad.png").touch()
    with pytest.raises(ManifestError, match=r"'\\udcff_clothed_sad.png' is not UTF-8"):
        manifest.scaffold(tmp_path, pattern + ".png", {})


@pytest.fixture(scope="module")
def audit_folder(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("audit"), noise())


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(row=st.integers(0, 1), column=st.sampled_from(manifest.REQUIRED), text=TEXT)
def test_any_text_in_any_cell_is_read_or_refused_by_its_row(audit_folder, row, column, text):
    fpath = audit_folder / "manifest.csv"
    sound = fpath.read_text()
    table = pd.read_csv(fpath, dtype=str)
    table.loc[row, column] = text
    try:
        table.to_csv(fpath, index=False)
        read = manifest.read(audit_folder, LIMITS)
        assert read.shape == (2, len(manifest.REQUIRED) + len(manifest.OPTIONAL))
        assert sorted(read["condition"]) == sorted(CONDITIONS) and len(set(read["identity"])) == 1
    except ManifestError as refused:
        assert f"{fpath}" in str(refused) and ("row " in str(refused) or "CSV" in str(refused))
    finally:
        fpath.write_text(sound)


# params.yaml


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True)
@given(place=st.sampled_from(KEYS), value=VALUES)
@example(place=("train_sae", "learning_rate"), value=float("inf"))
@example(place=("train_sae", "learning_rate"), value=float("nan"))
def test_any_value_of_any_key_is_valid_or_refused_by_its_name(tmp_path_factory, place, value):
    section, key = place
    fpath = tmp_path_factory.getbasetemp() / "params.yaml"
    fpath.write_text(yaml.safe_dump({**GOOD, section: {**GOOD[section], key: value}}))
    try:
        loaded = params.load(schema.SECTIONS[section], fpath=fpath)
    except params.ParamsError as refused:
        assert f"{section}.{key}" in str(refused) or key in str(refused)
    else:
        parameters.finite(loaded.model_dump())
        assert getattr(loaded, key) == value and type(getattr(loaded, key)) in (type(value), float)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ingest: 2026-13-01", "is not YAML: month must be in 1..12"),
        ("[" * 90, "is not YAML"),
        ("[" * 3000, "more than 100 brackets"),
        ("grid: &a [*a]", "aliases"),
        ("1: {}\ngrid: {}\nx: {}", "unknown section 1"),
        (f"grid: !!python/object/apply:os.mkdir [{MARKER}]", "is not YAML"),
    ],
)
def test_yaml_that_python_stumbles_over(tmp_path, text, says):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(params.ParamsError, match=says):
        params.load(schema.Grid, fpath=tmp_path / "params.yaml")
    assert not (ROOT / MARKER).exists()


@pytest.mark.parametrize("prompt", ["{emotion} {x}", "{emotion!r}", "{emotion.upper}", "{{emotion}}", "{emotion"])
def test_a_prompt_has_one_field(prompt):
    with pytest.raises(params.ParamsError, match=r"\{emotion\} and no other braces"):
        params.validate({**GOOD, "ingest": {**GOOD["ingest"], "prompt": prompt}})


def test_a_study_leaves_a_file_it_cannot_change_as_it_was(tmp_path):
    fpath = tmp_path / "params.yaml"
    for text in (
        "compute: 3\n",
        "grid: [1]\n" + yaml.safe_dump({k: v for k, v in GOOD.items() if k != "grid"}),
        "a: [",
    ):
        fpath.write_text(text)
        with pytest.raises(params.ParamsError):
            apply("planted", fpath)
        assert fpath.read_text() == text


# models


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "model.pth"])
def test_a_pickle_beside_a_model_without_weights_is_not_read(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    clip.make()
    (clip.DPATH / vit.WEIGHTS_FNAME).rename(clip.DPATH / "spare")
    torch.save(clip.weights(), clip.DPATH / name)  # harmless, so that only the refusal keeps it out
    with pytest.raises(vit.ModelError, match=r"open_clip_model\.safetensors is missing"):
        vit.load(clip.DPATH, clip.COMPUTE)


# all of them


@pytest.mark.slow
@pytest.mark.parametrize("kind", INPUTS)
def test_malformed_inputs_are_refused_by_name_and_change_nothing(kind):
    """The first cases of `python -m tests.soak.fuzz`, at another seed."""
    tally = fuzz.run(kind, 20, seed=1)
    assert tally.outcomes.total() == 20 and not tally.failures, "\n".join(tally.failures)
    assert tally.outcomes["refused"] or kind == "a run to resume", "was anything damaged?"


def stop(said, *, after=lambda: None):
    after()
    raise SystemExit(said)


@pytest.mark.parametrize(
    ("use", "outcome", "why"),
    [
        (lambda: "digest", "accepted", ""),
        (lambda: Path("out/a").write_text("a") and "", "accepted", ""),
        (lambda: stop("fault in a.txt"), "refused", "fault in a.txt"),
        (lambda: stop("fault"), "failure", "refused without a word of a.txt: 'fault'"),
        (lambda: stop(0), "failure", "refused without a word of a.txt: '0'"),
        (lambda: stop("fault in a.txt", after=lambda: Path("out/a").write_text("a")), "failure", "but changed"),
        (lambda: {}["key"], "failure", "KeyError: 'key'"),
        (lambda: digest([float("nan")]), "failure", "AssertionError: (1,) float64: not finite"),
        (lambda: Path("elsewhere").write_text("a") and "", "failure", "accepted, but: open"),
        (lambda: Path("a.txt").unlink() or "", "failure", "accepted, but: os.remove"),
        (lambda: save_file({}, "elsewhere.safetensors") or "", "failure", "accepted, but wrote outside its outs"),
        (lambda: pickle.loads(pickle.dumps(Bomb())) and "", "failure", "accepted, but: pickle.find_class"),
        (lambda: subprocess.run(["true"], check=True) and "", "failure", "accepted, but: subprocess.Popen"),
    ],
)
def test_the_judge_tells_what_a_user_would_suffer(tmp_path, use, outcome, why):
    verdict = judged(tmp_path, use)
    assert verdict.outcome == outcome and why in verdict.why, verdict
    assert bool(verdict.why) == (outcome != "accepted")


def test_the_judge_does_not_wait_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(judge, "SECONDS", 0.5)
    verdict = judged(tmp_path, lambda: time.sleep(20) or "")
    assert (verdict.outcome, verdict.why) == ("failure", "took more than 0.5 s")


def judged(folder, use):
    (folder / "out").mkdir()
    (folder / "a.txt").write_text("a")
    return judge.judge(folder, use, ("a.txt",), ("out",))
