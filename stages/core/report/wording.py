"""How the report writes numbers, and what it calls the names that stand in the metrics."""

from __future__ import annotations

from stages.core.run.labels import CLOTHED, SEMI_NUDE

GAPS = {  # what the gap of each list of latents is; the text stands after "The gap is that of the"
    "ranked": "rise of R by editing the latent, in nats, in the condition read worse, less the change in the other, to "
    "first order, while the latents of earlier steps are edited. Ranked latents are not tested: p is 1",
    "bias": "effect on R, in nats, in the condition read better minus the other, measured while the latents of earlier "
    "steps are edited",
    "perception": "activation, clothed minus semi-nude",
}
WOMEN = {SEMI_NUDE: "semi-nude women", CLOTHED: "women in a shirt"}
SEARCHES = {  # control searches, as they stand after "the same search"
    "labels_swapped": "with the twins' labels swapped at random",
    "emotions_shuffled": "with emotions shuffled",
    "wrong_emotion": "for a wrong emotion",
    "condition_ignored": "with the condition ignored",
}
TOTALS = {  # of a set of latents
    "activity": "active latents on a token",
    "contribution": "contribution to R (nats)",
    "length_cls": "length of the edit at the class token",
    "length_patches": "length of the edit at the patches",
    "edited_latents": "edited latents in the set",
}
LABELS = {  # that a latent may encode
    "colour": "the top's colour",
    "condition": "the garment",
    "emotion": "the face",
    "intensity": "the intensity of the expression",
    "identity": "the woman",
}
SMALLEST_POWER = 1e-300  # smaller numbers are 0 to a computer


def fixed(value: float, digits: int, sign: str = "") -> str:
    """Write a number with this many decimals. Zero has no sign, however it was rounded.

    sign: "+" writes the sign of a positive number, too.
    """
    written = f"{value:{sign}.{digits}f}"
    return written.lstrip("+-") if float(written) == 0 else written


def percent(found: dict[str, float]) -> str:
    """Write a share and its interval as text in whole percent, such as "31 % [24, 38]".

    found: the keys estimate, low and high (ends of the interval), each a share from 0 to 1.
    """
    estimate, low, high = (fixed(100 * found[key], 0) for key in ("estimate", "low", "high"))
    return f"{estimate} % [{low}, {high}]"


def points(found: dict[str, float]) -> str:
    """Write a difference of two accuracies and its interval as text in percentage points, such as "63 points [56, 71]".

    found: the keys estimate, low and high (ends of the interval), each a difference of shares from -1 to 1.
    """
    estimate, low, high = (fixed(100 * found[key], 0) for key in ("estimate", "low", "high"))
    return f"{estimate} {point_word(estimate)} [{low}, {high}]"


def point_word(count: str) -> str:
    """Return the word after a rounded number of percentage points: "point" after 1 and -1, else "points".

    count: the number as it is written, such as "+1".
    """
    return "point" if count.lstrip("+-") == "1" else "points"


def number(found: dict[str, float]) -> str:
    """Write an estimate and its interval as text with two decimals, such as "2.35 [2.10, 2.63]".

    found: the keys estimate, low and high (ends of the interval).
    """
    estimate, low, high = (fixed(found[key], 2) for key in ("estimate", "low", "high"))
    return f"{estimate} [{low}, {high}]"


def in_percent(share: float) -> str:
    """Write a share from 0 to 1 as text in whole percent, such as "31 %"."""
    return f"{fixed(100 * share, 0)} %"


def power(value: float) -> str:
    """Write a number that is not negative in powers of ten, such as 1.04e-09. A p that underflowed is "< 1e-300"."""
    return f"{value:.2e}" if value >= SMALLEST_POWER else f"< {SMALLEST_POWER:.0e}"


def mean_and_spread(mean: float, spread: float) -> str:
    """Write a mean and a standard deviation in powers of ten, such as "3.75e-03 ± 3.94e-03", and zeros as 0."""
    return " ± ".join(f"{value:.2e}" if value else "0" for value in (mean, spread))
