"""Activations go to object storage only with consent, and the stage says so."""

from __future__ import annotations

import pytest

from stages import extract
from stages.core.run import params
from stages.core.run.params import ParamsError
from stages.core.schema import Compute, Extract
from tests.imports import ROOT

URL = "s3://bucket/activations"


def config(**changes) -> Extract:
    return params.load(Extract, fpath=ROOT / "params.yaml").model_copy(update=changes)


def test_activations_of_photographs_need_consent():
    with pytest.raises(ParamsError, match=r"would be uploaded to s3://bucket/activations.*extract\.remote_consent"):
        extract.check_consent(config(remote=URL), "folder")
    extract.check_consent(config(remote=URL, remote_consent=True), "folder")
    extract.check_consent(config(remote=URL), "synthetic")
    extract.check_consent(config(), "folder")


def test_the_default_gives_no_consent():
    assert config().remote_consent is False and config().remote == ""


def test_the_notice_gives_place_number_and_size():
    """280 images of 257 tokens of 1,024 float32 numbers, at 3 layers: 0.823 GiB."""
    said = extract.upload_notice(URL, 280, 3, 280 * 257 * 1024 * 4)
    assert said.startswith(f"Uploading to {URL}: activations of 280 images at 3 layers, 0.8 GiB. Pictures can be")


def test_consent_does_not_move_the_folder(data):
    compute = params.load(Compute, fpath=ROOT / "params.yaml")
    one, other = (
        extract.remote_folder(compute, config(remote=URL, remote_consent=given), "m" * 64, data, "cpu")
        for given in (False, True)
    )
    assert one == other and one.startswith(f"{URL}/{'m' * 16}-")
