"""The page of the report: whatever it is filled with is text, and never markup."""

from __future__ import annotations

from collections import defaultdict

import pandas as pd
from jinja2 import meta

from stages import report
from stages.core.report import sentences

HOSTILE = "</pre><script>run()</script><img src=x onerror='run()'>\""


def parts() -> set[str]:
    page = report.template()
    source = report.TEMPLATE_FPATH.read_text()
    return meta.find_undeclared_variables(page.environment.parse(source))


def test_no_part_of_the_page_becomes_markup():
    given = dict.fromkeys(parts(), HOSTILE)
    given |= {"images": defaultdict(lambda: HOSTILE), "cards": [defaultdict(lambda: HOSTILE)]}
    given["strengths"] = {"pairs": [HOSTILE], "strengths": [HOSTILE], "says": [[HOSTILE]], "pictures": [[HOSTILE]]}
    assert {"parameters", "finding", "selection"} <= given.keys()
    page = report.template().render(given)
    assert "<script" not in page and "<img src=x" not in page
    assert page.count("&lt;script&gt;run()") > len(given)


def test_no_cell_and_no_header_of_a_table_becomes_markup():
    table = report.html(pd.DataFrame({HOSTILE: [HOSTILE]}))
    assert "<script" not in table and "<img" not in table and table.count("&lt;script&gt;") == 2


def test_the_published_maps_and_those_of_the_readout_stand_side_by_side_and_each_says_what_it_is_for():
    given: dict = {part: f"[{part}]" for part in parts()}
    given |= {"images": {stem: f"{stem}.png" for stem in report.PICTURES}, "cards": []}
    given["strengths"] = {key: [] for key in ("pairs", "strengths", "says", "pictures")}
    page = report.template().render(given | {"which_map": sentences.WHICH_MAP})
    sections = {section.split("</h2>")[0]: section for section in page.split("<h2>")[1:]}
    titles = list(sections)
    new, published = "Where the picture raises and lowers the readout", "Heatmaps on bust and face"
    assert titles.index(published) == titles.index(new) + 1  # "the next section" of WHICH_MAP
    in_order = [sections[new].index(part) for part in ("measure the bias", "[region_table]", 'src="map_readout.png"')]
    assert in_order == sorted(in_order)
    for part in ("[heatmaps]", "[lift_table]", 'src="heatmap.png"', 'src="heatmap_pairs.png"', "[maps_table]"):
        assert part in sections[published]
