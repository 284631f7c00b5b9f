"""Shapes and types in the signatures of `stages.core` are checked in the tests, by beartype.

Import this module before any module of `stages.core`. An int is taken where a float is asked for, as Python does.
"""

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
install_import_hook("stages.core", f"{__name__}.checked")
