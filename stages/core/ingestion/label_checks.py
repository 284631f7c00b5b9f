"""Checks of the labels in a manifest: texts, conditions, emotions, women, pairs, prompts. No file is opened."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from stages.core.ingestion import lookalikes
from stages.core.ingestion.faults import ROW_OF_FIRST_IMAGE, Faults
from stages.core.ingestion.table import KEY, is_corpus
from stages.core.run import text
from stages.core.run.labels import CONDITIONS, REGIONS

LABELS_OF_PAIRS = ["emotion", "intensity", "prompt"]  # columns that only images of a pair use; and the masks


def check(table: pd.DataFrame, emotions: tuple[str, ...], faults: Faults) -> None:
    """Add the faults of all labels.

    table: a manifest, from `table.read_csv`. emotions: those that a row may name. faults: takes the faults.
    """
    _check_texts(table, faults)
    check_known(table, emotions, faults)
    _check_identities(table, faults)
    _check_pairs(table, faults)
    _check_prompts(table, faults)


def look_for_unusual(table: pd.DataFrame, emotions: Sequence[str], warnings: Faults) -> None:
    """Add warnings of labels that may be meant, but have consequences that are easily overlooked.

    These are corpus images with labels or masks, emotions of which only some images have a prompt, and emotions that no
    image has. Takes the same as `check`.
    """
    _warn_of_labelled_corpus(table, warnings)
    _warn_of_missing_prompts(table, warnings)
    _warn_of_unseen_emotions(table, emotions, warnings)


def _warn_of_labelled_corpus(table: pd.DataFrame, warnings: Faults) -> None:
    for row, labels in table[is_corpus(table)].iterrows():
        filled = [column for column in (*LABELS_OF_PAIRS, *(f"{r}_mask" for r in REGIONS)) if labels[column]]
        if filled:
            warnings.add(
                int(row),
                f"identity and condition are empty, so this is a corpus image, and its {', '.join(filled)} will not be "
                "used; fill both if the image belongs to a pair, else clear these cells",
                kind="labelled corpus",
            )


def _warn_of_missing_prompts(table: pd.DataFrame, warnings: Faults) -> None:
    audit = table[~is_corpus(table)]
    for emotion, images in audit.groupby("emotion", sort=False):
        given = images[images["prompt"] != ""]
        for row in images.index[images["prompt"] == ""] if len(given) else ():
            warnings.add(
                int(row),
                f"no prompt, but row {int(given.index[0]) + ROW_OF_FIRST_IMAGE} of the emotion {emotion!r} has "
                f"{given['prompt'].iloc[0]!r}; ingest.prompt is filled in here, so {emotion!r} is read by several "
                "texts. Give all its images a prompt, or none",
            )


def _warn_of_unseen_emotions(table: pd.DataFrame, emotions: Sequence[str], warnings: Faults) -> None:
    seen = set(table.loc[~is_corpus(table), "emotion"])
    unseen = [emotion for emotion in emotions if emotion not in seen]
    if unseen and seen:
        warnings.add(
            None,
            f"no image has the emotion {', '.join(map(repr, unseen))}, which ingest.emotions in params.yaml lists. The "
            f"readout chooses among all emotions in that list, so chance is 1 in {len(emotions)}, not 1 in "
            f"{len(emotions) - len(unseen)}; remove from it what CLIP need not tell apart",
        )


def _check_texts(table: pd.DataFrame, faults: Faults) -> None:
    """Texts that can act in a page or a spreadsheet. No table shows the names of masks, so these are left out."""
    for column in ("image", *KEY, "prompt"):
        for row, value in enumerate(table[column]):
            if fault := text.fault(value):
                faults.add(row, f"{column} {value!r} {fault}")


def check_known(table: pd.DataFrame, emotions: Sequence[str], faults: Faults) -> None:
    """Add the faults of women without a name, and of conditions and emotions that are not known.

    Takes the same as `check`.
    """
    corpus = is_corpus(table)
    for row, (_, r) in enumerate(table.iterrows()):
        if corpus.iloc[row]:
            continue
        if not r["identity"]:
            faults.add(row, "identity is empty but condition is not; fill both, or neither for a corpus image")
        if r["condition"] not in CONDITIONS:
            faults.add(row, f"unknown condition {r['condition']!r}; use {' or '.join(CONDITIONS)}")
        if r["emotion"] not in emotions:
            allowed = ", ".join(emotions)
            faults.add(row, f"unknown emotion {r['emotion']!r}; ingest.emotions in params.yaml lists {allowed}")


def _check_identities(table: pd.DataFrame, faults: Faults) -> None:
    """Two names that look alike are probably one woman, who would stand in both splits."""
    names = table["identity"].tolist()
    for earlier, row, difference in lookalikes.pairs(names):
        faults.add(
            row,
            f"identity {names[row]!r} looks like {names[earlier]!r} in row {earlier + ROW_OF_FIRST_IMAGE}; they differ "
            f"only in {difference}. Give one woman one name, and two women names that differ more",
            kind="lookalike",
        )


def _check_pairs(table: pd.DataFrame, faults: Faults) -> None:
    audit = table[~is_corpus(table)]
    if audit.empty:
        faults.add(None, "only corpus rows; add pairs with identity and condition")
    for (identity, emotion, intensity), group in audit.groupby(KEY, sort=False):
        found = sorted(group["condition"])
        if found != sorted(CONDITIONS) and set(found) <= set(CONDITIONS):
            label = f"{identity}, {emotion}" + (f", {intensity}" if intensity else "")
            faults.add(
                int(group.index[0]),
                f"unpaired: {label} has {' and '.join(found)}, not one of each condition",
                kind="unpaired",
            )


def _check_prompts(table: pd.DataFrame, faults: Faults) -> None:
    audit = table[~is_corpus(table)]
    given = audit[audit["prompt"] != ""]
    for row, prompt in given["prompt"].items():
        if "{" in prompt or "}" in prompt:
            faults.add(int(row), f"prompt {prompt!r} has braces; write the emotion out, or leave the cell empty")
    first: dict[str, tuple[int, str]] = {}
    for row, labels in given.iterrows():
        earlier, emotion = first.setdefault(labels["prompt"], (int(row), labels["emotion"]))
        if emotion != labels["emotion"]:
            faults.add(
                int(row),
                f"prompt {labels['prompt']!r} stands for {labels['emotion']!r} here and for {emotion!r} in row "
                f"{earlier + ROW_OF_FIRST_IMAGE}; a prompt must name its emotion",
            )
    for _, group in audit.groupby(KEY, sort=False):
        prompts = group["prompt"].tolist()
        if len(set(prompts)) > 1:
            faults.add(
                int(group.index[1]),
                f"prompt {prompts[1]!r} differs from {prompts[0]!r} of the twin in row "
                f"{int(group.index[0]) + ROW_OF_FIRST_IMAGE}; give twins one prompt, or the texts would be compared",
            )
