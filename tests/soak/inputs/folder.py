"""A folder of images as somebody else made it: its manifest, an image, a mask."""

from __future__ import annotations

import pickle
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from PIL import Image, ImageOps

from stages import ingest
from stages.core.run import labels
from tests.soak.damage import MARKER, Bomb, pick, spoil_file
from tests.soak.inputs import arrays
from tests.soak.inputs.kinds import SIDE, Damage, run, write_params


def picture(rng: Generator, size: tuple[int, int] = (20, 16), mode: str = "RGB") -> Image.Image:
    return Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).convert(mode)


def make() -> None:
    """Two women in both conditions, with masks, and a corpus image."""
    write_params(ingest={"source": "folder", "folder": "raw", "image_size": SIDE, "max_megapixels": 0.01})
    rng, rows, raw = np.random.default_rng(0), [], Path("raw")
    raw.mkdir()
    for woman in ("anna", "bea"):
        for condition in labels.CONDITIONS:
            stem = f"{woman}_{condition}"
            picture(rng).save(raw / f"{stem}.png")
            for region, box in (("bust", (5, 8, 12, 14)), ("face", (6, 1, 11, 6))):
                mask = Image.new("L", (20, 16), 0)
                mask.paste(255, box)
                mask.save(raw / f"{stem}_{region}.png")
            masks = {f"{region}_mask": f"{stem}_{region}.png" for region in labels.REGIONS}
            rows.append({"image": f"{stem}.png", "identity": woman, "condition": condition, "emotion": "sad", **masks})
    picture(rng).save(raw / "other.png")
    rows.append({"image": "other.png"})
    pd.DataFrame(rows).to_csv(raw / "manifest.csv", index=False)


CELLS = (
    *("", " ", "..", ".", "/", "../secret.png", "/etc/hostname", "raw", "a\0b", "x" * 300, "x" * 5000, "-1", "nan"),
    *("masks/../other.png", "~", "a\nb", '"', "a,b", "é", "e\u0301", "=1+1", "\u202e", "{emotion}", "other.png"),
    *("anna", "bea", "sad", "happy", "clothed", "semi_nude", "CLOTHED", "anna_clothed.png", "loop.png", "out.png"),
    *("./anna_clothed.png", "Anna", "\u0410nna", "anna ", "an na", "Anna\u0301", "7", "007", "<script>run()</script>"),
    *("@sum", "-1", "a & b", "a\u200bnna", "Bea", "ANNA_CLOTHED.PNG", "anna_clothed.jpg", "raw\\anna_clothed.png"),
)  # fmt: skip
HEADERS = (
    "row",
    "split",
    "pair",
    "colour",
    "Emotion",
    " emotion",
    "emotions",
    "",
    "notes",
    "prompt",
    "intensity",
    "image",
)


def damage_manifest(rng: Generator) -> Damage:
    fpath = Path("raw/manifest.csv")
    Path("raw/loop.png").symlink_to("loop.png")
    Path("raw/out.png").symlink_to("../params.yaml")
    kind = pick(rng, ("cell",) * 6 + ("bytes",) * 3 + ("row", "column", "text"))
    if kind == "bytes":
        return Damage(spoil_file(fpath, rng), ("manifest.csv",))
    if kind == "text":
        return Damage(spoil_text(fpath, rng), ("manifest.csv",))
    table = pd.read_csv(fpath, dtype=str, keep_default_na=False)
    row, column = int(rng.integers(len(table))), pick(rng, table.columns)
    if kind == "cell":
        table.loc[row, column] = what = pick(rng, CELLS)
    elif kind == "row":
        table = pick(
            rng, (table.drop(index=row), pd.concat([table, table.iloc[[row]]]), table.iloc[:0], table.iloc[::-1])
        )
        what = f"{len(table)} rows"
    else:
        table = pick(
            rng,
            (
                table.drop(columns=column),
                table.rename(columns={column: pick(rng, HEADERS)}),
                table.assign(**{pick(rng, HEADERS): "x"}),
            ),
        )
        what = f"columns {list(table.columns)}"
    table.to_csv(fpath, index=False)
    return Damage(f"{kind} {row} {column}: {what!r:.80}", ("manifest.csv",))


def spoil_text(fpath: Path, rng: Generator) -> str:
    """The same table as other programs write it, or somebody's hand."""
    text = fpath.read_text()
    lines = text.splitlines()
    kind, spoilt = pick(
        rng,
        {
            "utf-16": text.encode("utf-16"),
            "latin-1": text.replace("anna", "änna").encode("latin-1"),
            "semicolons": text.replace(",", ";").encode(),
            "another field in each row": "\n".join([lines[0], *(f"{line},x" for line in lines[1:])]).encode(),
            "another field in one row": "\n".join([*lines[:-1], f"{lines[-1]},x"]).encode(),
            "short row": "\n".join([*lines[:-1], "other.png"]).encode(),
            "header alone": f"{lines[0]}\n".encode(),
            "open quote": text.replace("anna", '"anna', 1).encode(),
            "nul": text.replace("anna", "an\0na", 1).encode(),
            "old Macintosh": text.replace("\n", "\r").encode(),
            "header twice": "\n".join([lines[0], *lines]).encode(),
            "empty rows": text.replace("\n", "\n\n").encode(),
            "rows of commas": (text + "," * lines[0].count(",") + "\n").encode(),
            "blank lines at the end": f"{text}\n\n".encode(),
            "tabs": text.replace(",", "\t").encode(),
            "two columns of one name": "\n".join(
                [f"{lines[0]},emotion", *(f"{line},sad" for line in lines[1:])]
            ).encode(),
            "a prompt for all": "\n".join([f"{lines[0]},prompt", *(f"{line},a woman" for line in lines[1:])]).encode(),
            "a template": "\n".join([f"{lines[0]},prompt", *(f"{line},a {{emotion}}" for line in lines[1:])]).encode(),
        }.items(),
    )
    fpath.write_bytes(spoilt)
    return kind


FOREIGN: dict[str, bytes] = {
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 16\n("
    + MARKER.encode()
    + b") (w) file closefile\nshowpage\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>',
    "pdf": b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>",
    "ppm": b"P6 99999999 99999999 255\n",
    "pickle": pickle.dumps(Bomb()),
    "fits": b"SIMPLE  =                    T" + b" " * 50 + b"END",
    "webp": b"RIFF\xff\xff\xff\xffWEBPVP8L" + b"\xff" * 40,
    "gif": b"GIF89a\xff\xff\xff\xff\xf7\x00\x00",
    "bmp": b"BM" + struct.pack("<IIIIiiHHI", 99, 0, 54, 40, 2**31 - 1, -(2**31), 1, 24, 0) + b"\0" * 40,
    "tiff": b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 60,
}
SAVED: dict[str, tuple[str, ...]] = {
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "JPEG": ("RGB", "L", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("RGB", "CMYK", "F", "I", "I;16", "LAB", "YCbCr", "1"),
    "BMP": ("RGB", "L", "P"),
    "GIF": ("P", "L"),
}
SIZES = ((20, 16), (20, 16), (1, 1), (1, 900), (900, 1), (16, 20), (2, 2))


def damage_image(rng: Generator, *, mask: bool = False) -> Damage:
    """Another file in place of an image or a mask: foreign, of an unusual kind, of wrong content, or broken."""
    must_show = False
    name = "anna_clothed_bust.png" if mask else pick(rng, ("anna_clothed.png", "other.png"))
    fpath = Path("raw") / name
    kind = pick(rng, ("foreign", "header", "kept", "wrong", "wrong", "broken", "broken", "broken"))
    if kind == "foreign":
        what, data = pick(rng, FOREIGN.items())
        fpath.write_bytes(data)
    elif kind == "wrong":
        what = (paint_wrong_mask if mask else save_wrong_picture)(fpath, rng)
        must_show = what not in ALLOWED
    elif kind == "header":
        sides = tuple(int(side) for side in rng.choice([0, 1, 16, 20, 5000, 2**31 - 1], 2))
        what = f"PNG of {sides}"
        fpath.write_bytes(png_of(fpath.read_bytes(), *sides))
    else:
        what = save_unusual(fpath, rng)
    if kind == "broken":
        what = f"{what}, {spoil_file(fpath, rng)}"
    return Damage(f"{name}: {what}", ("row 6" if name == "other.png" else "row 3",), must_show)


ALLOWED = ("5 scans", "50 scans", "of another place", "upside down", "partly cut off")  # accepted, some with a warning


def paint_wrong_mask(fpath: Path, rng: Generator) -> str:
    """A sound image file that is no sound mask, or not that of this image."""
    painted, face = (Image.open(BytesIO(of.read_bytes())) for of in (fpath, fpath.with_name("anna_clothed_face.png")))
    what, wrong = pick(
        rng,
        {
            "inverted": ImageOps.invert(painted),
            "the face": face,
            "white": Image.new("L", painted.size, 255),
            "most of the image": ImageOps.expand(Image.new("L", (18, 15), 255), (1, 1, 1, 0)),
            "a label map": painted.point(lambda value: value and 1),
            "grey": painted.point(lambda value: 255 if value else 140),
            "of another place": painted.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
            "upside down": painted.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
            "partly cut off": painted.transform(painted.size, Image.Transform.AFFINE, (1, 0, 7, 0, 1, 0)),
        }.items(),
    )
    wrong.save(fpath)
    return what


def save_wrong_picture(fpath: Path, rng: Generator) -> str:
    """A sound image file that shows nothing, or that would not end."""
    transparent = picture(rng).convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(transparent.size))
    what, wrong = pick(
        rng,
        {
            "black": Image.new("RGB", (20, 16)),
            "nearly white": picture(rng).point(lambda value: 250 + value % 4),
            "transparent": transparent,
            f"{pick(rng, (5, 50, 3000))} scans": picture(rng),
        }.items(),
    )
    wrong.save(fpath, "JPEG" if what.endswith("scans") else "PNG", progressive=True)
    if what.endswith("scans"):
        fpath.write_bytes(many_scans(fpath.read_bytes(), int(what.split()[0])))
    return what


def save_unusual(fpath: Path, rng: Generator) -> str:
    """A picture in some format, mode and size; some animated, some turned by their EXIF tag."""
    form = pick(rng, SAVED)
    mode, size = pick(rng, SAVED[form]), pick(rng, SIZES)
    image = picture(rng, size, "L" if mode in ("F", "I", "I;16") else "RGB").convert(mode)
    options: dict[str, Any] = {}
    if form in ("PNG", "WEBP", "GIF", "TIFF") and rng.random() < 0.3:
        options = {"save_all": True, "append_images": [picture(rng, size, image.mode if mode != "I;16" else "L")]}
    elif form in ("PNG", "JPEG", "WEBP", "TIFF"):
        exif = Image.Exif()
        exif[0x0112] = pick(rng, (1, 3, 6, 8, 0, 99, "x"))
        options = (
            {"exif": exif.tobytes()} if isinstance(exif[0x0112], int) else {"exif": b"Exif\0\0II*\0" + rng.bytes(40)}
        )
    try:
        image.save(fpath, form, **options)
    except (OSError, ValueError, TypeError):  # not every format takes every option
        picture(rng, size).save(fpath, "PNG")
    return f"{form} {mode} {size} {list(options)}"


def png_of(data: bytes, width: int, height: int) -> bytes:
    """A PNG file whose header claims another size, with the right checksum."""
    header = data[12:16] + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def many_scans(data: bytes, n: int) -> bytes:
    """A progressive JPEG file with `n` more scans: its last one again and again."""
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * n + data[-2:]


def use() -> str:
    run(ingest)
    return arrays.use_dataset()
