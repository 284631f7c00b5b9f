"""Files of images and masks are opened upright, as RGB or as white and black, and cropped alike."""

from __future__ import annotations

from PIL import Image

from stages.core.ingestion import image_files


def test_image_and_mask_go_through_the_same_crop():
    picture = Image.new("RGB", (60, 40), (0, 0, 0))
    picture.paste((255, 255, 255), (20, 10, 40, 30))
    mask = Image.new("L", (60, 40), 0)
    mask.paste(255, (20, 10, 40, 30))
    image = image_files.square(picture, 20, Image.Resampling.BOX)
    region = image_files.square(mask, 20, Image.Resampling.BOX)
    assert (image[..., 0] == region).all()
    assert region.sum() == 255 * 10 * 10  # a 20 x 20 square, halved
    assert image_files.share_lost(mask) == 0


def test_share_lost_to_the_crop():
    mask = Image.new("L", (60, 40), 0)
    mask.paste(255, (0, 0, 20, 40))  # the crop keeps columns 10 to 50: half of it
    assert image_files.share_lost(mask) == 0.5


def test_exif_rotation_alpha_and_cmyk_become_upright_rgb(tmp_path):
    sideways = Image.new("RGB", (20, 10), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    sideways.save(tmp_path / "r.jpg", exif=exif)
    assert image_files.open_image(tmp_path / "r.jpg", 1e6).size == (10, 20)
    for mode in ("RGBA", "CMYK", "LA", "I;16"):
        colour = (0, 0, 0, 255) if mode == "RGBA" else (0, 255) if mode == "LA" else 0
        Image.new(mode, (5, 5), colour).save(tmp_path / f"{mode[0]}.{'tif' if mode == 'CMYK' else 'png'}")
    for path in tmp_path.glob("[RCLI].*"):
        assert image_files.open_image(path, 1e6).mode == "RGB"
