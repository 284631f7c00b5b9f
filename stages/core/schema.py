"""The sections of params.yaml as frozen types: a class per section, a documented field per parameter."""

from __future__ import annotations

from itertools import pairwise
from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from stages.core.run import text, urls

Precision = Literal["auto", "float32", "bfloat16"]
EditKind = Literal["zero", "mean", "scale", "patch"]
EditScope = Literal["all", "cls", "patches", "bust", "not_bust"]
LatentList = Literal["bias", "perception"]
EditedLatents = Literal["ranked", "bias", "perception"]
Plant = Literal["cue", "lost"]
Biased = Literal["semi_nude", "clothed", "both"]

LARGEST = 2**31 - 1  # largest whole number allowed: counts and their products then fit the integers of torch and NumPy
MOST_WOMEN = 10_000  # 80,000 portraits with four emotions in one intensity, 250 times as many as the default study has
MOST_PORTRAITS = 1_000_000  # drawing takes an hour, and the activations in three layers of the default demo fill 100 GB

Count = Annotated[int, Field(ge=1, le=LARGEST)]
Seed = Annotated[int, Field(ge=0, le=LARGEST)]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


def _remote(url: str) -> str:
    if url and not urls.is_allowed(url):
        raise ValueError(f"must be empty, or a URL that starts with one of {urls.KINDS}")
    return url


def _sound_text(given: str) -> str:
    if fault := text.fault(given):
        raise ValueError(fault)
    return given


def _sound_label(given: str) -> str:
    if fault := text.label_fault(given):
        raise ValueError(fault)
    return given


def _distinct(values: list) -> list:
    if len(set(values)) != len(values):
        raise ValueError("names a value twice")
    return values


Distinct = AfterValidator(_distinct)
Remote = Annotated[str, AfterValidator(_remote)]
Text = Annotated[str, AfterValidator(_sound_text)]
Label = Annotated[str, AfterValidator(_sound_label)]


class Section(BaseModel):
    """A section of params.yaml. It is read-only. Unknown keys, wrong types and infinite numbers are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Compute(Section):
    """Where and how numbers are computed. Read by every stage that runs CLIP or an SAE."""

    device: Literal["auto", "cpu", "cuda"]
    """Device to compute on. `auto` takes a GPU if there is one."""
    precision: Literal["float32", "bfloat16"]
    """Precision of CLIP's forward pass. Statistics and SAE parameters stay in float32 or better."""
    threads: Annotated[int, Field(ge=0, le=1024)]
    """Number of CPU threads. It is fixed so that sums are the same to the bit; 0 takes all cores."""


class Grid(Section):
    """The SAEs: one per layer and expansion."""

    layers: Annotated[list[Count], Field(min_length=1), Distinct]
    """Transformer blocks of the vision tower, counted from 1. The SAE reads the residual stream *after* the block."""
    expansions: Annotated[list[Count], Field(min_length=1), Distinct]
    """Expansion factors, d_sae / d_in."""


class Inference(Section):
    """Settings of all intervals and tests."""

    confidence: Share
    """Confidence level of the two-sided intervals over women."""
    alpha: Share
    """Family-wise error rate, over all latents of one SAE, at which a latent is called significant. One SAE of the grid
    is chosen by what was found in it, so the errors of all SAEs add up: divide the rate you want over the whole grid by
    the number of SAEs."""
    min_gap: NonNegative
    """Smallest gap between the conditions that is worth explaining, in nats of R, the log-probability of the true
    emotion. The interval of the gap on discovery women must lie beyond it, or no latent is named and none edited."""
    min_effect: NonNegative
    """Smallest effect that counts, in nats of R. The whole interval of a bias latent's effect gap, and of the harm that
    it does in the condition read worse, must lie beyond it."""
    min_readout: Annotated[float, Field(ge=0, lt=1)]
    """Smallest accuracy on discovery women in the condition read better, on a scale from chance (0) to certainty (1). A
    model below it does not read faces and has no readout that could be biased, so no bias latents are named in it."""
    n_bootstrap: Annotated[int, Field(ge=1, le=100_000)]
    """Number of bootstrap resamples of women for each interval. All are in memory at once."""
    n_permutations: Annotated[int, Field(ge=1, le=10_000_000)]
    """Number of sign-flip permutations at the level of women."""
    seed: Seed
    """Seed of the resamples and the sign flips."""


class Ingest(Section):
    """Where the images come from, and how they are brought to the size of the model's input."""

    source: Literal["synthetic", "folder"]
    """`synthetic` draws the planted world; `folder` reads `folder/manifest.csv`."""
    folder: str
    """Folder that holds `manifest.csv` and the files named in it. It may be empty if it is not used."""
    image_size: Count
    """Side of the stored square images in pixels: the input resolution of the model."""
    prompt: Text
    """Text for one emotion; `{emotion}` is replaced, and "a" or "an" before it fits the emotion. Used for images whose
    manifest row has no prompt, and in the readout for an emotion that no image has."""
    emotions: Annotated[list[Label], Field(min_length=2), Distinct]
    """The expressions that images may be labelled with. The readout chooses from them. `stages/core/run/text.py` lists
    the characters that labels and prompts may not contain."""
    discovery_share: Share
    """Share of discovery women, on whom SAE and latents are chosen. Claims are made on the others (confirmation)."""
    max_megapixels: Positive
    """Largest number of megapixels of an image file. Larger files are refused."""
    seed: Seed
    """Seed of the split of women."""

    @model_validator(mode="after")
    def _template(self) -> Ingest:
        if _fields(self.prompt) != {"emotion"}:
            raise ValueError(f"prompt must contain {{emotion}} and no other braces, given {self.prompt!r}")
        return self


class World(Section):
    """The audit set and the corpus of the planted world."""

    n_women: Annotated[int, Field(ge=4, le=MOST_WOMEN)]
    """Number of women in the audit set. Each shows every emotion at every intensity, semi-nude and clothed."""
    intensities: Annotated[list[Annotated[float, Field(gt=0, le=1.5)]], Field(min_length=1, max_length=9), Distinct]
    """How strongly the emotions are shown; 1 is normal. A neutral face has no intensity, so it is shown once."""
    ambiguity: Annotated[float, Field(ge=0, le=1)]
    """Largest share of another emotion that is mixed into a face, drawn evenly from 0 to here. At 0 faces are clear. At
    .8 they are hard: the asked emotion has the larger share in .62 of the faces. The portraits that train the demo CLIP
    have such faces, too."""
    retaken: bool
    """Whether twins are two takes, with pose, strength of the expression, what is mixed into it, and light drawn anew
    for each. If not, twins differ in the garment alone."""
    n_corpus: Annotated[int, Field(ge=0, le=MOST_PORTRAITS)]
    """Number of portraits of other women, used for SAE training only."""
    seed: Seed
    """Seed of the women and their portraits."""


class Clip(Section):
    """The CLIP to audit."""

    source: Literal["demo", "open_clip"]
    """`demo` trains a small ViT on the planted world; `open_clip` loads `architecture` with `pretrained` weights."""
    architecture: str
    """An open_clip model name. OpenAI's weights need a `-quickgelu` architecture."""
    pretrained: str
    """An open_clip tag, or the path of a .safetensors file; `random` leaves the weights as initialised."""


class Demo(Section):
    """The demo CLIP and the bias planted in its training captions."""

    bias: Annotated[float, Field(ge=0, le=1)]
    """Probability that the caption of a portrait in the biased condition errs."""
    plant: Plant
    """How such a caption errs. `cue`: it names the emotion tied to the colour of the garment, so a cue misleads.
    `lost`: it names an emotion drawn at random, so the signal of the face is lost in part."""
    biased: Biased
    """The condition whose captions err: `semi_nude`, `clothed` or `both`."""
    n_portraits: Annotated[int, Field(ge=1, le=MOST_PORTRAITS)]
    """Number of captioned portraits for the training."""
    width: Annotated[int, Field(ge=32, multiple_of=32)]
    """Width of the vision tower, a multiple of 32 (the width of an attention head)."""
    layers: Count
    """Number of blocks of the vision tower."""
    patch_size: Count
    """Side of a patch in pixels. It must divide `ingest.image_size`."""
    steps: Count
    """Number of training steps."""
    batch_size: Count
    """Portraits per step. Each is contrasted with all others."""
    learning_rate: Positive
    """Peak learning rate of the one-cycle schedule."""
    min_accuracy: Annotated[float, Field(ge=0, le=1)]
    """Smallest accuracy on clear faces of new women in the condition whose captions are true (clothed if both err).
    Below it, the demo is trained again from other initial weights."""
    seed: Seed
    """Seed of the portraits, the captions and the initial weights."""


class Extract(Section):
    """The forward pass that writes the activation stores."""

    batch_size: Count
    """Images per forward pass."""
    shard_images: Count
    """Images per file of a store."""
    remote: Remote
    """URL of a folder in object storage for the stores, such as `s3://bucket/activations` (`pip install s3fs`).
    If empty, they are written to data/activations. `stages/core/run/urls.py` lists the kinds of URL that are
    allowed."""
    remote_consent: bool
    """Whether activations of a folder of images may be written to `remote`. Pictures can be rebuilt from activations,
    so `false` refuses this. The planted world needs no consent."""


class TrainSae(Section):
    """Training of one SAE. `stages/core/training/trainer.py` describes the two recipes."""

    source: Literal["trained", "pretrained"]
    """`trained` trains the SAE here; `pretrained` reads it from data/pretrained/l<layer>_x<expansion> (SAELens' format)
    and only measures it."""
    recipe: Literal["target_l0", "published"]
    """`target_l0` steers the number of active latents to a target; `published` is the study's loss."""
    train_on: Literal["discovery_and_corpus", "discovery", "audit"]
    """Images the SAE is trained on. `audit` is the published study's setting: all audit images, those of confirmation
    women included. Then the SAE has seen the images on which claims are made, and the report says so."""
    steps: Count
    """Number of training steps."""
    batch_size: Count
    """Tokens per step."""
    learning_rate: Positive
    """Learning rate of Adam after the warm-up and before the decay."""
    target_l0: Positive
    """Target number of active latents per token; `target_l0` only."""
    sparsity_coefficient: NonNegative
    """Weight of the sparsity term: ((L0 - target) / target)^2 for `target_l0`, the active fraction for `published`."""
    bandwidth: Positive
    """Width of the kernel that passes gradient to the threshold, in units of the normalised activations."""
    warmup_share: Annotated[float, Field(ge=0, le=1)]
    """Share of the steps over which the sparsity term is warmed up; `target_l0` only."""
    aux_coefficient: NonNegative
    """Weight of AuxK, the reconstruction of the residual by dead latents; `target_l0` only."""
    dead_after_steps: Count
    """Number of steps without firing after which a latent counts as dead during training."""
    log_every: Count
    """Number of steps between rows of the history."""
    precision: Precision
    """Precision of the operands of matrix products; weights and sums are float32. `auto` is bfloat16 if the processor
    has it."""
    memory_gib: Positive
    """GiB of activations held in memory. A larger layer is streamed from its shards through a shuffle buffer of this
    size."""
    seed: Seed
    """Seed of the initial weights and of the order of tokens."""


class Edit(Section):
    """The edit inside the model. It is chosen on discovery women and judged on confirmation women (held out)."""

    latents: EditedLatents
    """The latents to edit. `ranked`: a search ranks all latents by what editing them gains, without a test, and keeps
    those that gain on discovery women. `bias`: the same among latents whose effect on the emotion readout is shown to
    differ by condition. `perception`: latents whose activation differs by condition."""
    kind: EditKind
    """`zero` sets the latents to 0; `mean` sets their mean over discovery images; `scale` multiplies them by `factor`;
    `patch` sets their values in the clothed twin."""
    factor: NonNegative
    """Factor of the kind `scale`."""
    scope: EditScope
    """Tokens that are edited. After the last block only `cls` reaches the embedding."""
    n_latents: Count
    """Largest number of latents to edit. Fewer are edited if fewer are found, or if fewer gain more on discovery
    women."""
    n_per_step: Count
    """Number of latents found per step of the search. Those that gain are edited before the next step."""
    max_cost: Annotated[float, Field(ge=0, le=1)]
    """Largest loss of accuracy that the edit may cause on discovery women in the condition read better. Fewer latents
    are edited if needed. The same limit holds for the comparison `colour_subspace_within_cost`, which projects out part
    of the subspace of the top's colours, without an SAE."""
    curve: Annotated[list[Count], Field(min_length=1)]
    """Numbers of latents on the dose-response curve. The edit is chosen from the same numbers."""


class AnalyseSae(Section):
    """The latents of one SAE, tested by pair and woman."""

    batch_size: Count
    """Images per batch in the passes from the layer of the SAE on."""
    n_checked: Count
    """Number of latents whose first-order effect is compared with a real ablation, one by one."""


class SelectSae(Section):
    """The search for latents to edit, and the rule that chooses one SAE of the grid."""

    rule: Literal["net_gain", "published", "fixed"]
    """`net_gain`: largest net gain of R by editing, on discovery women: the gain in the condition read worse minus the
    change in the other; `published`: largest distance of the published AUC from one half, on discovery women; `fixed`:
    `layer` and `expansion` below."""
    n_searched: Count
    """Number of SAEs that are searched for the rule `net_gain`: of each layer the SAE whose latents promise most, by
    their first-order effects, then of each layer the next."""
    batch_size: Count
    """Images per batch in the passes from the layer of the SAE on."""
    layer: Annotated[int, Field(ge=0)]
    """Block of the rule `fixed`, counted from 1."""
    expansion: Annotated[int, Field(ge=0)]
    """Expansion of the rule `fixed`, d_sae / d_in."""
    n_candidates: Count
    """Number of latents with the largest clipped difference of mean activation: the published study's candidates."""
    max_clusters: Annotated[int, Field(ge=2)]
    """Largest number of clusters for K-means of the images, which starts from 2."""
    seed: Seed
    """Seed of PCA and K-means."""


class CheckStability(Section):
    """The chosen SAE, trained again."""

    n_other_seeds: Annotated[int, Field(ge=0, le=LARGEST)]
    """Number of further trainings of the chosen SAE. They differ only in their seed; 0 skips the check."""


class DescribeLatents(Section):
    """The cards of the chosen latents."""

    batch_size: Count
    """Images per batch in the passes from the layer of the SAE on."""
    n_shown: Count
    """Number of edited latents whose cards are drawn. The table has all of them."""
    n_images: Count
    """Number of top images on a card, one per woman."""
    n_other: Annotated[int, Field(ge=0)]
    """Number of latents, the strongest of the list that is not edited, that are shown for contrast."""
    n_neighbours: Count
    """Number of latents with the nearest decoder directions on a card."""
    n_prompts: Count
    """Number of nearest prompts on a card."""
    prompts: Annotated[list[Text], Field(min_length=2)]
    """The vocabulary of prompts. Each {column} of the manifest, such as {emotion}, is replaced by every value that the
    images have in it."""


class Heatmap(Section):
    """Grad-ECLIP maps of the original, the reconstructed and the edited model."""

    batch_size: Count
    """Images explained per batch."""
    n_shown: Count
    """Number of pairs on the contact sheet."""


class CheckHeatmaps(Section):
    """The number of images in each check of the maps. The stage prints how many forward passes follow from it, and an
    estimate of the time, before it starts."""

    n_perturbed: Annotated[int, Field(ge=2, le=LARGEST)]
    """Number of images of the deletion and insertion curves, evenly spread over the confirmation images. All are taken
    if there are no more. Each costs, with nine shares, 116 forward passes."""
    n_bust_pairs: Annotated[int, Field(ge=2, le=LARGEST)]
    """Number of confirmation pairs whose bust patches are deleted, evenly spread over the women. All are taken if there
    are no more. Each costs, with nine shares, 116 forward passes: 58 for each of its two images."""
    n_redrawn: Count
    """Number of images whose Grad-ECLIP maps are drawn again with random parameters, for another emotion and with one
    attention head. All confirmation images are taken if there are no more. Each costs 4 forward passes, and one for
    each block of the vision tower."""
    shares: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=3)]
    """Shares of patches that are hidden or shown on a curve, ascending from 0 to 1. They are best dense where a good
    map acts, near 0. Each share between the ends costs 8 forward passes for each image and curve, one for each map."""

    @model_validator(mode="after")
    def _from_none_to_all(self) -> CheckHeatmaps:
        ascending = all(a < b for a, b in pairwise(self.shares))
        if not ascending or (self.shares[0], self.shares[-1]) != (0, 1):
            raise ValueError(f"shares must ascend from 0 to 1, given {self.shares}")
        return self


class MapReadout(Section):
    """Signed maps of the emotion readout R, in nats."""

    batch_size: Count
    """Changed images per forward pass."""
    n_women: Count
    """Largest number of confirmation women whose images are mapped, evenly spaced among all."""
    n_pairs: Count
    """Largest number of pairs of each of these women."""
    window: Count
    """Side of the windows that occlusion hides, in patches."""
    stride: Count
    """Distance between two such windows, in patches; at most `window`, so that each patch is hidden."""
    n_steps: Annotated[int, Field(ge=1, le=1000)]
    """Number of gradients on the path from the baseline to an image. If `completeness` in
    metrics/full/map_readout.json shows large gaps in the original model, take more."""
    baselines: Annotated[list[Literal["grey", "blurred"]], Field(min_length=1), Distinct]
    """Images from which integrated gradients of pixels start: grey, or the image itself after a blur."""
    blur: Share
    """Standard deviation of the blur of the blurred baseline, as a share of the side of the image."""
    n_shown: Annotated[int, Field(ge=1, le=4)]
    """Number of women whose maps are drawn."""

    @model_validator(mode="after")
    def _covering(self) -> MapReadout:
        if self.stride > self.window:
            raise ValueError(f"stride is {self.stride}, but at most window ({self.window}) hides every patch")
        return self


class Ablate(Section):
    """The causal test."""

    batch_size: Count
    """Images per batch in the passes from the layer of the SAE on."""
    scales: Annotated[list[NonNegative], Field(min_length=1)]
    """Factors by which the chosen latents are multiplied: 0 removes them, 1 would change nothing."""
    n_random_sets: Count
    """Number of control sets: random sets of latents that together are as active as the edited ones, contribute as much
    to R and move the tokens as far."""
    n_null_searches: Annotated[int, Field(ge=0, le=LARGEST)]
    """Number of searches on swapped labels (`stages/core/ablation/null_searches.py`). The smallest p that they allow is
    1 / (1 + their number)."""
    n_other_null_searches: Annotated[int, Field(ge=0, le=LARGEST)]
    """Number of searches on each other kind of labels that mean nothing."""
    seed: Seed
    """Seed of the control sets and the random directions."""


SECTIONS: dict[str, type[Section]] = {
    "compute": Compute,
    "grid": Grid,
    "inference": Inference,
    "ingest": Ingest,
    "world": World,
    "clip": Clip,
    "demo": Demo,
    "extract": Extract,
    "train_sae": TrainSae,
    "edit": Edit,
    "analyse_sae": AnalyseSae,
    "select_sae": SelectSae,
    "check_stability": CheckStability,
    "describe_latents": DescribeLatents,
    "heatmap": Heatmap,
    "check_heatmaps": CheckHeatmaps,
    "map_readout": MapReadout,
    "ablate": Ablate,
}


def _fields(template: str) -> set[str]:
    """The names in the braces of a template. Empty if the braces do not match."""
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError:
        return set()
    return {f"{name}{conversion or ''}{layout}" for _, name, layout, conversion in parts}
