"""What the page may ask for."""

from __future__ import annotations

import pytest

from stages.core.explorer.requests import RequestError, View, parsed


def test_a_view_is_numbers_and_texts():
    asked = parsed(View, b'{"pair": 3, "texts": [" a flower "], "mapped": 0, "factors": [[7, 0.5], [3, 2]]}')
    assert (asked.pair, asked.texts, asked.factors) == (3, ["a flower"], [(7, 0.5), (3, 2.0)])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "Invalid JSON"),
        (b"[]", "object"),
        (b"{}", "either a pair or an upload"),
        (b'{"pair": 1, "upload": 1}', "either a pair or an upload"),
        (b'{"pair": "../data"}', "pair: Input should be a valid integer"),
        (b'{"pair": -1}', "pair: .*greater than or equal to 0"),
        (b'{"pair": 1, "path": "/etc/passwd"}', "path: Extra inputs"),
        (b'{"pair": 1, "scope": "face"}', "scope: "),
        (b'{"pair": 1, "factors": [[1, 4.5]]}', r"factors\.0\.1: .*less than or equal to 4"),
        (b'{"pair": 1, "factors": [[1, NaN]]}', "factors"),
        (b'{"pair": 1, "factors": [[1, 0], [1, 2]]}', "names a latent twice"),
        (b'{"pair": 1, "texts": [" "]}', r"texts\.0: "),
        (b'{"pair": 1, "texts": ["a","b","c","d","e","f","g","h","i"]}', "texts: .*at most 8"),
    ],
)
def test_anything_else_is_refused_with_its_key(body, says):
    with pytest.raises(RequestError, match=says):
        parsed(View, body)
