"""JPEG files whose decoding would have no end: the number of their scans, counted without decoding.

A progressive JPEG file builds its picture from several passes over all pixels, called scans. A file of a quarter of a
megabyte can hold thousands, and a decoder goes over the whole picture for each.
"""

from __future__ import annotations

import re

MAX_SCANS = 100  # cjpeg writes no more, and libtiff reads no more; usual files have 1 to 15
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
MARKER = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd7])", re.DOTALL)
"""A marker with a segment, or the last. FF 00 is a byte of data; FF 01 and FF D0 to FF D7 are markers without segment,
which a decoder passes over."""


def n_scans(content: bytes) -> int:
    """Count the scans of the first picture in a JPEG file. No pixel is decoded. A file that is cut short has fewer.

    content: the bytes of the file.

    Source: ITU-T T.81, annex B. A segment is a marker and its length (two bytes, which count themselves); the data of a
    scan follow its segment and reach to the next marker.
    """
    at, found = 2, 0  # after the marker that starts a picture
    while (marker := MARKER.search(content, at)) and marker[1][0] != END_OF_IMAGE:
        found += marker[1][0] == START_OF_SCAN
        at = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2])
    return found
