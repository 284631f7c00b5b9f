"""Write the values of a ready study into params.yaml. Comments and other keys stay as they are.

python -m stages.studies.apply paper      # the values of stages/studies/paper.yaml
"""

from __future__ import annotations

import io
from pathlib import Path

from stages.core import schema
from stages.core.run import outs, params
from stages.core.run.errors import run_command
from stages.core.run.params import PARAMS_FPATH, ParamsError

STUDIES_DPATH = Path(__file__).parent
DEFAULT = "planted"  # names every key that a ready study changes; the others say only how they differ from it


def apply(name: str, fpath: Path = PARAMS_FPATH) -> None:
    """Write the values of a ready study into params.yaml, and print what changes. Other keys and comments stay.

    The values of the default study are written first, so that nothing of another study is left.

    name: name of a YAML file in stages/studies, without .yaml. The file holds values by section and key.
    fpath: the params.yaml to change. It is written only if the result is valid.
    Raises ParamsError for an unknown study, for a file that is missing or damaged, and for values that are not allowed.
    """
    from ruamel.yaml import YAML

    studies = sorted(p.stem for p in STUDIES_DPATH.glob("*.yaml"))
    if name not in studies:
        raise ParamsError(f"no study {name!r}; ready studies are {', '.join(studies)}")
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    params.check_names(params.read(fpath), tuple(schema.SECTIONS), fpath)
    given, before = yaml.load(params.text(fpath)), params.read(fpath)
    for study in dict.fromkeys((DEFAULT, name)):
        for section, values in yaml.load(STUDIES_DPATH / f"{study}.yaml").items():
            if not isinstance(given[section], dict):
                raise ParamsError(f"{fpath}: section {section!r} holds {given[section]!r}, not keys and values")
            given[section].update(values)
    written = io.StringIO()
    yaml.dump(given, written)
    after = params.parse(written.getvalue(), fpath)
    params.validate(after, fpath)
    with outs.atomic_output(fpath) as unfinished:
        unfinished.write_text(written.getvalue(), encoding="utf-8")
    changed = [
        f"{section}.{key}: {before[section].get(key)} -> {value}"
        for section, values in after.items()
        for key, value in values.items()
        if before[section].get(key) != value
    ]
    print(*changed or [f"{fpath.name} has the values of the study {name} already"], sep="\n")


def main() -> None:
    parser = params.command_line(__doc__)
    parser.add_argument("study", metavar="STUDY", help="name of a file in stages/studies, without .yaml")
    apply(parser.parse_args().study)


if __name__ == "__main__":
    run_command(main)
