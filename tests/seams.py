"""What the sources touch of the internals of transformers and torch, and the table of docs/transformers.md.

`python -m tests.seams` brings the table up to date with `faasmoe.model.adapter.seams`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from faasmoe.model.adapter.seams import SEAMS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "faasmoe"
DOCUMENT = ROOT / "docs" / "transformers.md"
BEGIN, END = "<!-- seams: python -m tests.seams -->", "<!-- end -->"

_INSIDE = re.compile(r"transformers\.\w|torch\._|torch\.utils\._")
_MODULE = re.compile(r"(?:transformers|torch)(?:\.\w+)+")
_OF_FUNCTIONS = {"__wrapped__", "__code__", "__globals__", "__kwdefaults__", "__dict__"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """All modules of the package but the list itself, by their names below it."""
    for file in sorted(SOURCE.rglob("*.py")):
        name = ".".join(file.relative_to(SOURCE).with_suffix("").parts)
        if name != "model.adapter.seams":
            yield name, ast.parse(file.read_text())


def private_names(trees: list[ast.Module]) -> set[str]:
    """Names with one underscore that these sources define: of functions, classes, variables and attributes."""
    names = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                names.add(name)
    return {name for name in names if _is_private(name)}


def imported(tree: ast.Module) -> set[str]:
    """What a module imports from inside transformers or torch."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)):
                names = {f"{module}.{alias.name}" for alias in node.names if _is_private(alias.name)}
                names |= set() if module == "transformers" else {f"{module}.{alias.name}" for alias in node.names}
            case ast.Import():
                names = {alias.name for alias in node.names}
            case _:
                continue
        found |= {name for name in names if _INSIDE.match(name)}
    return found


def touched(tree: ast.Module, ours: set[str]) -> set[str]:
    """What a module touches, in the words of `Seam.touches`. `ours` are private names that are none of theirs.

    Private names that are defined in both are not seen, nor is what has no mark: a keyword, an attribute of a class.
    """
    classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found = imported(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute() if id(node) not in inner:
                found |= set(_of_chain(node, ours))
            case ast.Constant(value=str(text)) if id(node) not in docs and _MODULE.fullmatch(text):
                found.add(text)
            case ast.JoinedStr(values=[ast.Constant(value="transformers." | "torch."), *_]):
                found.add(f"{ast.literal_eval(node.values[0])}*")
            case ast.Call(func=ast.Name(id="getattr" | "hasattr"), args=[_, ast.Constant(value=str(name)), *_]):
                found |= {f".{name}"} if _is_private(name) and name not in ours else set()
            case ast.Call(func=ast.Name(id="setattr"), args=[ast.Name(id=target), *_]):
                found |= {"setattr"} if target not in classes | {"self"} else set()
            case ast.Call(func=ast.Name(id="type"), args=[_, _, _]):
                found.add("type")
    return found


def _of_chain(node: ast.Attribute, ours: set[str]) -> Iterator[str]:
    """What `a.b.c` touches: it is private in torch, a place of imports, or a private name of an object."""
    names, stored = [], isinstance(node.ctx, ast.Store | ast.Del)
    at: ast.expr = node
    while isinstance(at, ast.Attribute):
        names.insert(0, at.attr)
        at = at.value
    root = at.id if isinstance(at, ast.Name) else ""
    if root in {"torch", "transformers"}:
        if stored or any(map(_is_private, names)):
            yield ".".join((root, *names))
        return
    if root == "sys" and names[0] in {"modules", "meta_path"}:
        yield f"sys.{names[0]}"
    if "set_submodule" in names:
        yield "set_submodule"
    for place, name in enumerate(names):
        foreign = (_is_private(name) and name not in ours) or name in _OF_FUNCTIONS
        if foreign and root not in {"os", "sys"} and not (place == 0 and root in {"self", "cls"}):
            yield f".{name}"


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def table() -> str:
    """The table of docs/transformers.md: every seam."""
    lines = ["| place | touches | relies on | since | noticed by |", "| --- | --- | --- | --- | --- |"]
    for seam in SEAMS:
        names = ", ".join(f"`{name}`" for name in seam.touches)
        file, _, test = seam.test.partition("::")
        lines.append(f"| `{seam.where}` | {names} | {seam.relies_on} | {seam.since} | `{file}` {test} |")
    return "\n".join(lines)


def write_table() -> None:
    """Bring the table of docs/transformers.md up to date."""
    before, rest = DOCUMENT.read_text().split(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    write_table()
