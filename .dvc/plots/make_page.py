"""Write page.html, the HTML template of `dvc plots show`, with Vega inlined: the page then needs no network.

pip install vl-convert-python && python .dvc/plots/make_page.py
"""

from pathlib import Path

import vl_convert

HEAD = """<!doctype html>
<html lang="en">
<head>
{refresh_tag}
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Plots</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; margin: 1.5rem; background: #fff; color: #1b1b1f; }
  img { max-width: 100%; height: auto; }
  .plots { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
</style>
<script>
"""
TAIL = """
</script>
</head>
<body><div class="plots">
{plot_divs}
</div></body>
</html>
"""

if __name__ == "__main__":
    page = HEAD + vl_convert.javascript_bundle() + TAIL
    Path(__file__).with_name("page.html").write_text(page)
