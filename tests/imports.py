"""What a module imports from this project, read off its source (AST), transitively."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent


def module_fpath(module: str) -> Path | None:
    """stages.core.sae -> stages/core/sae.py, if there is such a file."""
    fpath = ROOT / Path(*module.split(".")).with_suffix(".py")
    return fpath if fpath.is_file() else None


def direct(fpath: Path) -> set[Path]:
    """Files of this project that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(fpath.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found |= {path for name in names if (path := module_fpath(name))}
    return found


def transitive(fpath: Path) -> set[Path]:
    """The file itself, and all it needs of this project."""
    seen, todo = set(), [fpath]
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo.extend(direct(path))
    return seen


def params_sections(fpath: Path) -> set[str] | None:
    """Sections that a stage names in its calls of `params.load(...)`; None if it loads all (`*sections.SECTIONS`)."""
    calls = [node for node in ast.walk(ast.parse(fpath.read_text())) if isinstance(node, ast.Call)]
    given = [arg for call in calls if ast.unparse(call.func) == "params.load" for arg in call.args]
    if any(isinstance(arg, ast.Starred) for arg in given):
        return None
    return {arg.value for arg in given if isinstance(arg, ast.Constant)}
