"""The page of the report: whatever it is filled with is text, and never markup."""

from __future__ import annotations

from collections import defaultdict

import pandas as pd
from jinja2 import meta

from stages import report

HOSTILE = "</pre><script>run()</script><img src=x onerror='run()'>\""


def parts() -> set[str]:
    page = report.template()
    source = report.TEMPLATE_FPATH.read_text()
    return meta.find_undeclared_variables(page.environment.parse(source))


def test_no_part_of_the_page_becomes_markup():
    given = dict.fromkeys(parts(), HOSTILE)
    given |= {"images": defaultdict(lambda: HOSTILE), "cards": [defaultdict(lambda: HOSTILE)]}
    assert {"parameters", "finding", "selection"} <= given.keys()
    page = report.template().render(given)
    assert "<script" not in page and "<img src=x" not in page
    assert page.count("&lt;script&gt;run()") > len(given)


def test_no_cell_and_no_header_of_a_table_becomes_markup():
    table = report.html(pd.DataFrame({HOSTILE: [HOSTILE]}))
    assert "<script" not in table and "<img" not in table and table.count("&lt;script&gt;") == 2
