"""URLs of object storage: which kinds may hold the arrays of a study."""

from __future__ import annotations

SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "abfss", "file")
"""Object storage of Amazon, Google and Microsoft, and a folder of this machine or of a mounted disk."""
KINDS = ", ".join(f"{scheme}://" for scheme in SCHEMES)


def is_allowed(url: str) -> bool:
    """Tell whether a URL has one of SCHEMES and names a place.

    fsspec, which opens URLs, knows many more schemes. Some of them fetch or unpack other URLs, alone or in a chain such
    as `simplecache::s3://bucket`. None of these is allowed.
    """
    scheme, _, place = url.partition("://")
    return scheme in SCHEMES and bool(place) and "::" not in place
