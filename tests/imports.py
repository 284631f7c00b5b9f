"""What a module imports from this project, read off its source (AST), transitively; and which dep of dvc.yaml it is."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORE = ROOT / "stages" / "core"
NO_DEPS = ("stages/core/schema.py",)  # only passes or refuses what params.yaml says (test_schema.py)


def module_fpaths(module: str) -> set[Path]:
    """The files that `import module` runs: stages.core.run.outs -> stages/__init__.py, run/__init__.py, run/outs.py."""
    parts = module.split(".")
    if parts[0] != "stages":
        return set()
    packages = {ROOT.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)}
    return {fpath for fpath in packages | {ROOT.joinpath(*parts).with_suffix(".py")} if fpath.is_file()}


def direct(fpath: Path) -> set[Path]:
    """Files of this project that a file imports, those of the packages that lead to them included."""
    found = set()
    for node in ast.walk(ast.parse(fpath.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found |= {path for name in names for path in module_fpaths(name)}
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


def dep(fpath: Path) -> str:
    """How dvc.yaml names a file: a package of stages/core as its folder, any other file as itself."""
    if fpath.is_relative_to(CORE) and fpath.parent != CORE:
        fpath = CORE / fpath.relative_to(CORE).parts[0]
    return fpath.relative_to(ROOT).as_posix()


def code_deps(stage: str) -> set[str]:
    """The code that a stage depends on, as dvc.yaml names it."""
    return {dep(fpath) for fpath in transitive(ROOT / "stages" / f"{stage}.py")} - set(NO_DEPS)


def params_read(stage: str, sections: dict[str, str]) -> set[str]:
    """The keys of params.yaml that a stage reads: `section`, or `section.key` where it uses nothing else of a section.

    sections: the section of each class in `stages.core.schema`. A stage names the classes in its calls of
    `params.load(...)`; one that calls `params.text()` reads all.
    """
    tree = ast.parse((ROOT / "stages" / f"{stage}.py").read_text())
    if any(isinstance(node, ast.Call) and ast.unparse(node.func) == "params.text" for node in ast.walk(tree)):
        return set(sections.values())
    read = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            call, target = node.value, node.targets[0]
            if ast.unparse(call.func) == "params.load":
                names = [ast.unparse(name) for name in (target.elts if isinstance(target, ast.Tuple) else [target])]
                for name, cls in zip(names, map(ast.unparse, call.args), strict=True):
                    read |= _keys_used(tree, name, sections[cls])
    return read


def _keys_used(tree: ast.AST, name: str, section: str) -> set[str]:
    """`section.key` for each key used, if the variable `name` is used for nothing but its keys; else `section`."""
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
    keys = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
    ]
    loads = [node for node in uses if isinstance(node.ctx, ast.Load)]
    return {f"{section}.{key}" for key in keys} if keys and len(keys) == len(loads) else {section}
