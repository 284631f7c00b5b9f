"""The lines of params.yaml, and of Python, that make the edit which is set in the explorer.

params.yaml edits the first latents of a list, all by one factor. Other edits cannot be written there.
"""

from __future__ import annotations

from typing import Any

from stages.core.latents.selection import Selection
from stages.core.schema import Edit, EditedLatents, EditScope

Factors = dict[int, float]
"""The factor of each latent that has a slider. 1 leaves the latent as it is."""

OWN = "# The edit of this study: these lines of params.yaml made it.\n"
ANEW = (
    "# The search runs anew with this edit, so its latents may differ. Fewer are edited if they cost more than\n"
    "# edit.max_cost, and none if they do not help.\n"
)


def changed(factors: Factors) -> Factors:
    """Keep the latents that an edit changes: those whose factor is not 1."""
    return {latent: factor for latent, factor in factors.items() if factor != 1}


def params_lines(factors: Factors, chosen: Selection, edit: Edit, scope: EditScope) -> str:
    """Write the lines of params.yaml that ask for an edit, or a comment that says why there are none.

    factors: the factor of each latent. chosen: the chosen SAE, its two lists of latents, and the latents to edit.
    edit: the edit of params.yaml. scope: the tokens that are edited.
    """
    edited = changed(factors)
    if not edited:
        return "# Nothing is edited: no factor differs from 1.\n"
    if len(set(edited.values())) > 1:
        return f"# params.yaml has one factor for all edited latents; here are {len(set(edited.values()))} factors.\n"
    factor = next(iter(edited.values()))
    if (set(edited), factor, scope) == (set(chosen.latents), scaled_by(edit), edit.scope) and (
        edit.latents == chosen.edited_list
    ):
        return OWN + _section("edit", edit.model_dump())
    list_name = listed_first(set(edited), chosen)
    if list_name is None:
        return "# params.yaml edits the first latents of a list; these latents are not the first of either.\n"
    sae = {"rule": "fixed", "layer": chosen.layer, "expansion": chosen.sae.d_sae // chosen.sae.d_in}
    asked = {
        "latents": list_name,
        "kind": "scale" if factor else "zero",
        "factor": factor,
        "scope": scope,
        "n_latents": len(edited),
        "curve": [len(edited)],
    }
    return ANEW + _section("select_sae", sae) + _section("edit", asked)


def scaled_by(edit: Edit) -> float | None:
    """Return the factor by which an edit multiplies latents; None if it does something else with them."""
    return {"zero": 0.0, "scale": edit.factor}.get(edit.kind)


def _section(name: str, values: dict[str, Any]) -> str:
    lines = [f"{name}:"]
    for key, value in values.items():
        lines += (
            [f"  {key}:", *(f"    - {item}" for item in value)] if isinstance(value, list) else [f"  {key}: {value}"]
        )
    return "\n".join(lines) + "\n"


def listed_first(latents: set[int], chosen: Selection) -> EditedLatents | None:
    """Find the list (`edit.latents`) whose first latents are these, in any order.

    Returns the study's own list if these latents are the first of its edit. Otherwise it returns the other list (`bias`
    or `perception`) that begins with them; None if there is none.
    """
    if set(chosen.latents[: len(latents)]) == latents:
        return chosen.edited_list
    others = {name: table for name, table in chosen.lists.items() if name != chosen.edited_list}
    return next((name for name, table in others.items() if set(table["latent"][: len(latents)]) == latents), None)


def python_lines(factors: Factors, scope: EditScope) -> str:
    """Write the Python lines that build the edit, for `SplicedClip.edit_arm`. Every edit of the explorer has them."""
    edited = changed(factors)
    return (
        f'edit = LatentEdit(latents=torch.tensor({list(edited)}, dtype=torch.long), kind="scale",\n'
        f"                  factor=torch.tensor({list(edited.values())})).to(spliced.clip.device)\n"
        f"arm = spliced.edit_arm(edit, {scope!r})\n"
    )
