"""`dvc plots show`: the page it fills needs no network, and its templates are Vega-Lite."""

from __future__ import annotations

import configparser
import json
import re

from tests.imports import ROOT

DVC_DPATH = ROOT / ".dvc"


def test_the_page_is_complete_in_itself():
    config = configparser.ConfigParser()
    config.read(DVC_DPATH / "config")
    page = (DVC_DPATH / config["plots"]["html_template"]).read_text()
    assert page.count("{plot_divs}") == 1
    assert "{scripts}" not in page  # where DVC would put its links to a CDN
    shell = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href)=", shell)
    assert "window.vegaEmbed=" in page


def test_templates_are_vega_lite_over_dvc_data():
    for fpath in (DVC_DPATH / "plots").glob("*.json"):
        spec = json.loads(fpath.read_text())
        assert "vega-lite" in spec["$schema"]
        assert spec["data"] == {"values": "<DVC_METRIC_DATA>"}
