"""The sections of params.yaml as frozen types: one class for each, one documented field for each knob."""

from __future__ import annotations

from string import Formatter
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Precision = Literal["auto", "float32", "bfloat16"]
EditKind = Literal["zero", "mean", "scale", "patch"]
EditScope = Literal["all", "cls", "patches", "bust", "not_bust"]
LatentList = Literal["bias", "perception"]

LARGEST = 2**31 - 1  # of whole numbers: counts and their products with a few others fit torch's and NumPy's

Count = Annotated[int, Field(ge=1, le=LARGEST)]
Seed = Annotated[int, Field(ge=0, le=LARGEST)]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Compute(Section):
    """Where and how numbers are computed. Read by every stage that runs CLIP or an SAE."""

    device: Literal["auto", "cpu", "cuda"]
    """`auto` takes a GPU where there is one."""
    precision: Literal["float32", "bfloat16"]
    """Of CLIP's forward pass. Statistics and SAE parameters stay in float32 or better."""
    threads: Annotated[int, Field(ge=0, le=1024)]
    """CPU threads, fixed so that sums come out the same to the bit; 0 takes all cores."""


class Grid(Section):
    """The SAEs: one for each layer and expansion."""

    layers: Annotated[list[Count], Field(min_length=1)]
    """Transformer blocks of the vision tower, counted from 1; the residual stream *after* the block is read."""
    expansions: Annotated[list[Count], Field(min_length=1)]
    """d_sae / d_in."""

    @model_validator(mode="after")
    def _distinct(self) -> Grid:
        for name, values in (("layers", self.layers), ("expansions", self.expansions)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name} names a value twice: {values}")
        return self


class Inference(Section):
    """Shared by all intervals and tests."""

    confidence: Share
    """Of two-sided bootstrap intervals over women."""
    alpha: Share
    """Family-wise error rate over the latents of one SAE at which one is called significant. One SAE of the grid is
    chosen by what was found in it, so their errors add up: divide the rate you want over all by their number."""
    min_effect: NonNegative
    """Smallest effect gap worth naming, in nats of R: a bias latent's whole interval must lie beyond it."""
    min_readout: Annotated[float, Field(ge=0, lt=1)]
    """How far from chance (0) to certainty (1) the accuracy on clothed discovery women must reach: a model that does
    not read them has no readout to be biased, and no bias latents are named in it."""
    n_bootstrap: Count
    """Resamples of women behind each interval."""
    n_permutations: Count
    """Sign flips at the level of women."""
    seed: Seed
    """Of resamples and sign flips."""


class Ingest(Section):
    """Where the images come from, and how they are cut to the model's input."""

    source: Literal["synthetic", "folder"]
    """`synthetic` draws the planted world; `folder` reads `folder/manifest.csv`."""
    folder: str
    """Of `manifest.csv` and the files it names; an unused folder may be empty."""
    image_size: Count
    """Side of the stored square images, pixels: the model's input resolution."""
    prompt: str
    """Text for one emotion; `{emotion}` is replaced. Used for images whose manifest row names no prompt, and
    for the set of prompts the emotion readout chooses among."""
    emotions: Annotated[list[str], Field(min_length=2)]
    """The expressions that images may be labelled with, and that the readout chooses among."""
    discovery_share: Share
    """Share of women on whom SAE and latents are chosen; every claim is made on the others."""
    max_megapixels: Positive
    """Larger image files are refused."""
    seed: Seed
    """Of the split of women."""

    @model_validator(mode="after")
    def _template(self) -> Ingest:
        if _fields(self.prompt) != {"emotion"}:
            raise ValueError(f"prompt must contain {{emotion}} and no other braces, given {self.prompt!r}")
        if len(set(self.emotions)) != len(self.emotions):
            raise ValueError(f"emotions names a value twice: {self.emotions}")
        return self


class World(Section):
    """The audit set and the corpus of the planted world."""

    n_women: Annotated[int, Field(ge=4, le=LARGEST)]
    """Women of the audit set; each shows every emotion once, semi-nude and clothed."""
    n_corpus: Annotated[int, Field(ge=0, le=LARGEST)]
    """Portraits of other women, for SAE training only."""
    seed: Seed
    """Of the women and their portraits."""


class Clip(Section):
    """Which CLIP is audited."""

    source: Literal["demo", "open_clip"]
    """`demo` trains a small ViT on the planted world; `open_clip` loads `architecture` with `pretrained` weights."""
    architecture: str
    """An open_clip model name. OpenAI's weights need a `-quickgelu` architecture."""
    pretrained: str
    """An open_clip tag, or the path of a .safetensors file; `random` leaves the weights as initialised."""


class Demo(Section):
    """The demo CLIP and the bias planted in its training captions."""

    bias: Annotated[float, Field(ge=0, le=1)]
    """Probability that a semi-nude portrait's caption names the emotion of the top's colour, not of the face."""
    n_portraits: Count
    """Captioned portraits it is trained on."""
    width: Annotated[int, Field(ge=32, multiple_of=32)]
    """Of the vision tower, in steps of 32 (the width of an attention head)."""
    layers: Count
    """Blocks of the vision tower."""
    patch_size: Count
    """Side of a patch, pixels; it divides `ingest.image_size`."""
    steps: Count
    """Of training."""
    batch_size: Count
    """Portraits in a step, each the contrast of all others."""
    learning_rate: Positive
    """Peak of the one-cycle schedule."""
    min_accuracy: Annotated[float, Field(ge=0, le=1)]
    """Share of new clothed women whose emotion the demo must name; below it, it is trained again from other weights."""
    seed: Seed
    """Of portraits, captions and first weights."""


class Extract(Section):
    """The forward pass that fills the activation stores."""

    batch_size: Count
    """Images in one forward pass."""
    shard_images: Count
    """Images in one file of a store."""
    remote: str
    """URL of a folder in object storage that keeps the stores, such as `s3://bucket/activations` (`pip install s3fs`);
    empty for data/activations."""


class TrainSae(Section):
    """One SAE. See `stages/core/training.py` for the two recipes."""

    source: Literal["trained", "pretrained"]
    """`pretrained`: taken from data/pretrained/l<layer>_x<expansion>, in SAELens' format, and only measured here."""
    recipe: Literal["target_l0", "published"]
    """`target_l0` holds the number of active latents; `published` is the study's loss."""
    train_on: Literal["discovery_and_corpus", "discovery", "audit"]
    """Images the SAE is trained on. `audit` is the published study's setting: all audit images, nothing held out."""
    steps: Count
    """Of training."""
    batch_size: Count
    """Tokens in a step."""
    learning_rate: Positive
    """Of Adam, after its warm-up and before its decay."""
    target_l0: Positive
    """Active latents per token; `target_l0` only."""
    sparsity_coefficient: NonNegative
    """Weight of the sparsity term: of ((L0 - target) / target)^2, or of the active fraction (`published`)."""
    bandwidth: Positive
    """Width of the kernel through which the threshold receives gradient, in units of the normalised activations."""
    warmup_share: Annotated[float, Field(ge=0, le=1)]
    """Share of the steps over which the sparsity term is switched on; `target_l0` only."""
    aux_coefficient: NonNegative
    """Weight of the reconstruction of the residual by dead latents; `target_l0` only."""
    dead_after_steps: Count
    """A latent that has not fired for so many steps counts as dead during training."""
    log_every: Count
    """Steps between rows of the history."""
    precision: Precision
    """Operands of the matrix products; weights and sums are float32. `auto`: bfloat16 where the processor has it."""
    memory_gib: Positive
    """Activations held in memory; a larger layer is streamed from its shards through a shuffle buffer of this size."""
    n_seeds: Count
    """Trainings that differ in their seed alone. The first is used; the others tell how much of it they find again."""
    seed: Seed
    """Of first weights and of the order of tokens."""


class Edit(Section):
    """What is changed inside the model: tried on discovery women, judged on confirmation women."""

    latents: LatentList
    """Latents whose effect on the emotion readout differs by condition, or those whose activation does."""
    kind: EditKind
    """`mean` sets the mean over discovery images; `scale` multiplies by `factor`; `patch` takes the value of the
    clothed twin."""
    factor: NonNegative
    """Of `scale`."""
    scope: EditScope
    """Tokens the edit touches. After the last block only `cls` reaches the embedding."""
    n_latents: Count
    """At most so many; fewer if fewer are significant, or if fewer gain more on discovery women."""
    n_per_step: Count
    """Bias latents are found step by step, so many at a time: edited, before the others are tested again."""
    clothed_cost: Annotated[float, Field(ge=0, le=1)]
    """Accuracy on clothed discovery women that the edit may cost at most: fewer latents are edited if need be. The
    baselines are held to it as well."""
    curve: Annotated[list[Count], Field(min_length=1)]
    """Numbers of latents on the dose-response curve, and those the edit is chosen from."""


class AnalyseSae(Section):
    """Group statistics of one SAE."""

    batch_size: Count
    """Images run from the splice at once."""
    n_candidates: Count
    """Latents with the largest clipped difference of mean activation: the published study's candidates."""
    n_checked: Count
    """Latents whose first-order effect is held against real ablations, one by one."""
    max_clusters: Annotated[int, Field(ge=2)]
    """K-means is tried for 2 to so many clusters."""
    seed: Seed
    """Of PCA and K-means."""


class SelectSae(Section):
    """Which of the SAEs."""

    rule: Literal["net_gain", "published", "fixed"]
    """`net_gain`: the edit that gives semi-nude images of discovery women most R, less what clothed ones lose;
    `published`: largest departure of the published AUC from one half; `fixed`: `layer` and `expansion` below."""
    layer: Annotated[int, Field(ge=0)]
    """Of `fixed`: the block, counted from 1."""
    expansion: Annotated[int, Field(ge=0)]
    """Of `fixed`: d_sae / d_in."""


class DescribeLatents(Section):
    """A card for each chosen latent."""

    batch_size: Count
    """Images run from the splice at once."""
    n_shown: Count
    """Cards of edited latents that are drawn; the table has all."""
    n_images: Count
    """Top images on a card, one of each woman."""
    n_other: Annotated[int, Field(ge=0)]
    """Strongest latents of the list that was not chosen, shown for contrast."""
    n_neighbours: Count
    """Latents with the nearest decoder directions on a card."""
    n_prompts: Count
    """Nearest prompts on a card."""
    prompts: Annotated[list[str], Field(min_length=2)]
    """The vocabulary. A {column} of the manifest, such as {emotion}, is replaced by each value the images have."""


class Heatmap(Section):
    """Grad-ECLIP maps of original, reconstructed and edited model."""

    batch_size: Count
    """Images explained at once."""
    n_shown: Count
    """Pairs on the contact sheet."""


class Ablate(Section):
    """The causal test."""

    batch_size: Count
    """Images run from the splice at once."""
    scales: Annotated[list[NonNegative], Field(min_length=1)]
    """Factors on the chosen latents: 0 removes them, 1 would change nothing."""
    n_random_sets: Count
    """Control sets of other latents, matched in firing rate and in the size of their contribution."""
    seed: Seed
    """Of control sets and of random directions."""


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
    "describe_latents": DescribeLatents,
    "heatmap": Heatmap,
    "ablate": Ablate,
}


def _fields(template: str) -> set[str]:
    """What stands in the braces of a template; nothing if they do not match."""
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError:
        return set()
    return {f"{name}{conversion or ''}{layout}" for _, name, layout, conversion in parts}
