"""What would leave this machine with `dvc push` and `git push`, file by file, before it does.

    python -m stages.studies.share && dvc push

reads    dvc.yaml, dvc.lock, params.yaml, DVC's cache, data/dataset/names.csv
claims   of a study of photographs, no output leaves from which a picture, a woman or a single image can be got back,
         and no text file that leaves names a file or a woman. Exits with status 1 otherwise

`OUTPUTS` classes every output of dvc.yaml. The same file says `push: false` for what stays, because DVC accepts no
parameter there: the marks are the same for photographs and for the planted world. What DVC would push is what dvc.lock
records, not what lies in the working tree, so the recorded files are listed and read.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd
from dvc.repo import Repo

from stages.core.run import labels, outs, params
from stages.core.run.errors import StudyError, run_command
from stages.core.schema import Clip, Extract, Ingest, TrainSae

NAMES_FPATH, LOCK_FPATH, COUNTS_FPATH = Path("data/dataset/names.csv"), Path("dvc.lock"), Path("metrics/ingest.json")
SETTINGS = ("params.yaml", "dvc.lock")  # tracked by git, and no outputs
TEXT_SUFFIXES = (".csv", ".json", ".yaml", ".lock", ".txt", ".md", ".html")
SHORTEST_NAME = 3  # letters; shorter names and plain numbers would be found in every table
ALWAYS_TRACKED = ("data/*/README.md", "*.dvc", "*.gitignore")
FEWEST = (
    40  # people that an SAE must have been trained on; with fewer, patches of their pictures come back (sharing.md)
)
OF_SAES = ("data/sae/", "data/selection/sae/", "data/mitigated/latents/")
PUSHED, COMMITTED = "dvc push", "git push"


class ShareError(StudyError):
    """Something private would leave. The message lists every such file, the reason and the remedy."""


@dataclass(frozen=True)
class Output:
    """The class of one output of dvc.yaml.

    private: whether pictures, women or single images can be got back from it. A private output stays here.
    reason: why, in words.
    files: of a folder that leaves, the files that it may hold; a pattern each. A file may leave only if it is named.
    """

    private: bool
    reason: str
    files: tuple[str, ...] = ()


SAE_FILES = ("cfg.json", "history.csv", "sae_weights.safetensors")
CLIP_FILES = ("open_clip_config.json", "open_clip_model.safetensors")
LATENT_FILES = tuple(f"latents/{name}" for name in ("cfg.json", "sae_weights.safetensors"))
SELECTION_FILES = ("selection.json", "tests.csv", "latents.csv", "bias.csv", "perception.csv", "sae/*")

OUTPUTS = {
    "data/dataset": Output(True, "the images, their masks, labels and names"),
    "plots/ingest.png": Output(True, "shows images"),
    "metrics/ingest.json": Output(False, "counts, means over all images, and the largest share of a mask cut away"),
    "data/clip": Output(False, "a public checkpoint, the demo, or your own weights; no image of the study", CLIP_FILES),
    "plots/prepare_clip.csv": Output(False, "losses of the demo's training, which sees no image of the study"),
    "metrics/prepare_clip.json": Output(False, "accuracy of the demo on portraits that are not of the study"),
    "data/activations/l*.zarr": Output(True, "pictures are rebuilt from tokens by a linear map"),
    "plots/extract.csv": Output(True, "a row per image; its numbers match the image like a fingerprint"),
    "metrics/extract.json": Output(False, "means over all women"),
    "data/sae/l*_x*": Output(False, "weights, trained on all images together", SAE_FILES),
    "metrics/train_sae/l*_x*.json": Output(False, "means over all tokens"),
    "data/analysis/l*_x*": Output(True, "a row per image (pooled.zarr), images by latent, a dot per image"),
    "metrics/analyse_sae/l*_x*.json": Output(False, "counts of latents, means over women"),
    "data/selection": Output(False, "the chosen SAE; numbers per latent, over all discovery women", SELECTION_FILES),
    "data/selection_by_image": Output(True, "a row per image (pooled.zarr), images by latent"),
    "plots/select_sae.csv": Output(False, "a row per SAE"),
    "plots/sae_curves.csv": Output(False, "losses of the SAEs, by step"),
    "plots/select_sae.png": Output(False, "a dot per SAE"),
    "plots/select_sae_statistics.png": Output(True, "a dot per image"),
    "metrics/select_sae.json": Output(False, "numbers of the chosen SAE"),
    "metrics/check_stability.json": Output(False, "shares of latents"),
    "plots/describe_latents.csv": Output(False, "a row per latent, over all confirmation women"),
    "plots/describe_latents.png": Output(True, "shows images"),
    "metrics/describe_latents.json": Output(False, "means over latents"),
    "metrics/full/heatmap.json": Output(False, "means over women, with intervals"),
    "data/heatmaps.zarr": Output(True, "a map per image, with the outline of what it shows"),
    "plots/heatmap.csv": Output(True, "a row per image; its numbers match the image like a fingerprint"),
    "plots/heatmap_iou.csv": Output(False, "means over images"),
    "plots/heatmap.png": Output(True, "shows images"),
    "plots/heatmap_pairs.png": Output(True, "a line per woman"),
    "plots/heatmap_strengths": Output(True, "shows images"),
    "metrics/heatmap.json": Output(False, "means over women"),
    "metrics/full/check_heatmaps.json": Output(False, "means over women, with intervals"),
    "plots/check_heatmaps.png": Output(False, "means over images"),
    "plots/check_heatmaps_curves.csv": Output(False, "means over images"),
    "plots/check_heatmaps_cascade.csv": Output(False, "means over images"),
    "metrics/check_heatmaps.json": Output(False, "means over women"),
    "metrics/full/map_readout.json": Output(False, "means over women, and the largest error of a sum"),
    "plots/map_readout.png": Output(True, "shows images"),
    "metrics/map_readout.json": Output(False, "means over women"),
    "metrics/full/ablate.json": Output(False, "means over women, with intervals"),
    "plots/ablate.csv": Output(True, "a row per image; its numbers match the image like a fingerprint"),
    "plots/ablate_arms.csv": Output(False, "means over women, with intervals"),
    "plots/ablate_dose.csv": Output(False, "means over women, with intervals"),
    "plots/ablate_controls.csv": Output(False, "means over images, a row per random set of latents"),
    "plots/ablate_null_searches.csv": Output(False, "means over images, a row per search"),
    "plots/ablate.png": Output(False, "means over women"),
    "metrics/ablate.json": Output(False, "means over women"),
    "data/mitigated": Output(
        False,
        "CLIP and the edited latents of the chosen SAE, with means over women",
        (*CLIP_FILES, *LATENT_FILES, "edit.json", "guardrails.json", "not_exported.txt"),
    ),
    "plots/report.html": Output(True, "shows images"),
    "plots/finding.png": Output(False, "means over women; drawn portraits only if the study is of the planted world"),
}
"""The class of every output. A `*` stands for a layer or an expansion."""


@dataclass(frozen=True)
class Recorded:
    """A file that dvc.lock records, or a private output as a whole.

    output: path of the output that the file belongs to, as dvc.yaml names it, with layer and expansion filled in.
    name: path of the file inside the output, if this is a folder; else "".
    how: the command that takes the file along, `dvc push` or `git push`; "" if none does.
    content: the file with the bytes that would leave. None for an output that stays.
    size: in bytes; 0 if unknown.
    """

    output: str
    name: str
    how: str
    content: Path | None
    size: int

    @property
    def path(self) -> str:
        """Path of the file in the working tree."""
        return f"{self.output}/{self.name}" if self.name else self.output


def classed(path: str) -> Output | None:
    """Return the class of an output, or None if nobody classified it. path: its path, as dvc.yaml names it."""
    return next((kind for pattern, kind in OUTPUTS.items() if fnmatch(path, pattern)), None)


def recorded() -> Iterator[Recorded]:
    """List what DVC records for the stages of dvc.yaml and for any other file that it tracks, such as `dvc add` makes.

    An output that stays here is listed as a whole. An output that leaves is listed file by file, if its files are on
    this machine: only these can be pushed from here.
    """
    with Repo() as repo:
        root = Path(repo.root_dir)
        for out in repo.index.outs:
            output = Path(out.fs_path).relative_to(root).as_posix() if out.is_in_repo else str(out)
            if not out.use_cache:
                if Path(out.fs_path).is_file():
                    size = Path(out.fs_path).stat().st_size
                    yield Recorded(output, "", COMMITTED, Path(out.fs_path), size)
            elif out.can_push:
                yield from _pushed(out, output)
            else:
                yield Recorded(output, "", "", None, out.meta.size or 0)


def _pushed(out: Any, output: str) -> Iterator[Recorded]:
    """List the files of one output of DVC that are in the cache."""
    found = out.get_obj()
    if found is None:
        return
    files = [("/".join(key), hashed.value) for key, _, hashed in found] if out.is_dir_checksum else [("", found.oid)]
    for name, oid in files:
        content = Path(out.cache.oid_to_path(oid))
        if content.is_file():
            yield Recorded(output, name, PUSHED, content, content.stat().st_size)


def tracked_strays(files: Iterable[Recorded], folder: str) -> list[str]:
    """List files that git tracks among the data although no stage writes them, such as images added by hand.

    folder: the folder of the images (`ingest.folder`).
    """
    places = [place for place in ("data", "plots", "metrics", folder) if place and Path(place).exists()]
    listed = subprocess.run(["git", "ls-files", "--", *places], capture_output=True, text=True, check=True).stdout
    known = {file.path for file in files}
    strays = [path for path in listed.splitlines() if path not in known]
    return [path for path in strays if not any(fnmatch(path, pattern) for pattern in ALWAYS_TRACKED)]


def is_of_photographs(config: Ingest) -> bool:
    """Tell whether the study is of a folder of images, by params.yaml or by the run that dvc.lock records."""
    ran = params.read(LOCK_FPATH) if LOCK_FPATH.is_file() else {}
    read = ran.get("stages", {}).get("ingest", {}).get("params", {}).get("params.yaml", {})
    return "folder" in (config.source, read.get("ingest", {}).get("source"))


def given_names(emotions: list[str]) -> list[str]:
    """List the names that must not leave: those of the image files, and those of the women.

    Names of two letters and plain numbers are left out, because they stand in every table. So are words of the study.
    emotions: the expressions. They, the conditions and the regions are such words.
    Raises ShareError if the key to the names is missing or damaged. Earlier versions of `ingest` did not write it.
    """
    try:
        key = pd.read_csv(NAMES_FPATH, dtype=str, keep_default_na=False)
        names = {Path(file).name for file in key["file"]} | set(key["woman"])
    except (OSError, ValueError, KeyError) as error:
        raise ShareError(
            f"{NAMES_FPATH} is missing or damaged ({error}), so nobody can tell whether names would leave; run `dvc "
            "repro`, on the machine that has the images"
        ) from None
    names -= {*emotions, *labels.CONDITIONS, *labels.REGIONS}
    return sorted(name for name in names if len(name) >= SHORTEST_NAME and not name.isdigit())


def misplaced(files: list[Recorded]) -> list[str]:
    """List the files that would leave although they must not, or although nobody classified them, a sentence each.

    files: what DVC records.
    """
    found = []
    for file in (file for file in files if file.how):
        kind = classed(file.output)
        if kind is None:
            found.append(
                f"{file.path} would leave by {file.how}, and nobody classified it: add it to OUTPUTS in share.py"
            )
        elif kind.private:
            found.append(f"{file.path} would leave by {file.how}: {kind.reason}. Mark it `push: false` in dvc.yaml")
        elif file.name and not any(fnmatch(file.name, pattern) for pattern in kind.files):
            found.append(f"{file.path} would leave by {file.how}, and no stage writes it now: run `dvc repro`")
    return found


def naming(files: list[Recorded], names: list[str]) -> list[str]:
    """List the text files that would leave and that contain a name as a word of its own, a sentence each.

    Case does not count. Only the first name that is found in a file is told.
    files: what would leave. names: names that must not leave.
    """
    word = re.compile(rf"(?<![^\W_])({'|'.join(map(re.escape, names))})(?![^\W_])", re.IGNORECASE)
    found = []
    for file in files:
        if names and file.content and Path(file.path).suffix in TEXT_SUFFIXES:
            match = word.search(file.content.read_text(errors="replace"))
            found += [f"{file.path} would leave by {file.how}, and contains the name {match[0]!r}"] if match else []
    return found


def listing(files: list[Recorded]) -> str:
    """Write the files as text, a line each: what leaves by which command, then what stays.

    A line gives the class of the output that the file belongs to, the size in KiB, the path, and the reason.
    """
    lines = []
    for how, head in ((PUSHED, "dvc push takes along"), (COMMITTED, "git push takes along"), ("", "stays here")):
        part = [file for file in files if file.how == how]
        lines += ["", f"{head}: {len(part)} entries, {sum(file.size for file in part) / 2**20:,.1f} MiB"]
        for file in part:
            kind = classed(file.output)
            word, reason = (("shared", "private")[kind.private], kind.reason) if kind else ("unknown", "not in OUTPUTS")
            lines.append(f"  {word:<7}  {file.size / 2**10:>11,.1f} KiB  {file.path}: {reason}")
    return "\n".join(lines)


def notes(photographs: bool, clip: Clip, extract: Extract) -> list[str]:
    """List what else the user should know before sharing, a sentence each."""
    found = []
    if extract.remote:
        found.append(f"extract.remote: activations already lie at {extract.remote}; pictures can be rebuilt from them.")
    if clip.source == "open_clip" and Path(clip.pretrained).suffix:
        found.append(f"data/clip and data/mitigated hold your own weights ({clip.pretrained}): nobody tested these.")
    if photographs:
        found.append("Whoever has a photograph already can tell from an SAE whether it was trained on it (sharing.md).")
    return found


def few_people(files: list[Recorded], training: TrainSae) -> list[str]:
    """Say so, in one sentence, if SAEs would leave that were trained on few people; else return an empty list.

    A corpus image counts as a person. SAEs from elsewhere were not trained on the study.
    files: what DVC records. training: which images the SAEs were trained on.
    Raises UnreadableError if metrics/ingest.json, which has the numbers of people, cannot be read.
    """
    leaving = any(file.how == PUSHED and file.path.startswith(OF_SAES) for file in files)
    if training.source == "pretrained" or not leaving:
        return []
    count = outs.read_metrics(COUNTS_FPATH, "ingest")["count"]
    people = {
        "audit": count["women"],
        "discovery": count["discovery_women"],
        "discovery_and_corpus": count["discovery_women"] + count["corpus_images"],
    }[training.train_on]
    if people >= FEWEST:
        return []
    return [
        f"SAEs would leave that were trained on {people:.0f} people, fewer than {FEWEST}: patches of their pictures "
        "come back. Train on corpus images too (train_sae.train_on: discovery_and_corpus), or mark data/sae, "
        "data/selection and data/mitigated `push: false` in dvc.yaml"
    ]


def check(files: list[Recorded], ingest: Ingest, training: TrainSae) -> None:
    """Check that nothing private leaves a study of photographs.

    files: what DVC records. training: which images the SAEs were trained on.
    Raises ShareError, with all faults, if something private would leave.
    """
    settings = [Recorded(path, "", COMMITTED, Path(path), 0) for path in SETTINGS if Path(path).is_file()]
    found = misplaced(files) + naming(files + settings, given_names(ingest.emotions)) + few_people(files, training)
    found += [f"{path} is tracked by git: run `git rm --cached`" for path in tracked_strays(files, ingest.folder)]
    if found:
        raise ShareError("\n".join([f"{len(found)} fault(s); do not push", *found]))


def main() -> None:
    params.command_line(__doc__).parse_args()
    ingest, clip, extract, training = params.load(Ingest, Clip, Extract, TrainSae)
    photographs, files = is_of_photographs(ingest), list(recorded())
    print("A study of photographs" if photographs else "A study of drawn portraits, which show nobody")
    print("\n".join([listing(files), "", *notes(photographs, clip, extract)]))
    if photographs:
        check(files, ingest, training)
        print("Nothing private would leave.")


if __name__ == "__main__":
    run_command(main)
