"""The names that the packages of transformers export, kept in a file.

To find them, each process that imports transformers reads the source of all models, 45 MB in 2,500 files: 0.27 s of
CPU time, and more where the kernel does not have them in memory.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

log = logging.getLogger(__name__)

_PACKAGE = "transformers"
_MODULE = "transformers.utils.import_utils"
_FUNCTION = "define_import_structure"

Structure = dict[frozenset[str], dict[str, set[str]]]  # by the libraries needed, and the module: names
Find = Callable[[Any, str | None], Structure]


class Exports:
    """Structures that were found, by the path and the prefix that they are asked for."""

    def __init__(self, file: Path, package: str) -> None:
        """`package` names the installation and the state of its files. Structures of another one are not used."""
        self._file = file
        self._package = package
        self._known: dict[str, Any] = {}
        self._new = False
        try:
            kept = json.loads(file.read_bytes())
            if kept["package"] == package:
                self._known = dict(kept["structures"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, LookupError) as error:
            log.warning("%s cannot be read and is made again: %s", file.name, type(error).__name__)

    def known(self, find: Find) -> Find:
        """A function like `find`, which calls it only for structures that are not known yet."""

        def structure(path: Any, prefix: str | None = None) -> Structure:
            key = f"{path}:{prefix or ''}"
            if key not in self._known:
                self._known[key] = _listed(find(path, prefix))
                self._new = True
            return {frozenset(needs): _sets(modules) for needs, modules in self._known[key]}

        return structure

    def keep(self) -> None:
        """Write new structures to the file. If it cannot be written, the next process finds them again."""
        if not self._new:
            return
        draft = self._file.with_suffix(f".{os.getpid()}")
        try:
            draft.write_text(json.dumps({"package": self._package, "structures": self._known}))
            draft.replace(self._file)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._file.name, error.strerror)


def _listed(structure: Structure) -> list[Any]:
    return [
        [sorted(needs), {module: sorted(names) for module, names in modules.items()}]
        for needs, modules in structure.items()
    ]


def _sets(modules: dict[str, list[str]]) -> dict[str, set[str]]:
    return {module: set(names) for module, names in modules.items()}


@contextmanager
def exports_kept(file: Path) -> Iterator[None]:
    """In this context transformers can be imported: exports are read from `file`, and new ones are written to it."""
    spec = PathFinder.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {_PACKAGE!r}", name=_PACKAGE)
    models = Path(spec.origin).parent / "models"
    exports = Exports(file, f"{models} {models.stat().st_mtime_ns}")
    hook = _Hook(exports)
    sys.meta_path.insert(0, hook)
    try:
        yield
    finally:
        sys.meta_path.remove(hook)
        hook.undo()
    exports.keep()


class _Hook(MetaPathFinder):
    """Puts `Exports.known` in the place of transformers' function, as soon as its module is there."""

    def __init__(self, exports: Exports) -> None:
        self._exports = exports
        self._module: ModuleType | None = None
        self._find: Find | None = None

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `MetaPathFinder`."""
        spec = PathFinder.find_spec(name, path, target) if name == _MODULE else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def executed(module: ModuleType) -> None:
                execute(module)
                self._module, self._find = module, getattr(module, _FUNCTION)
                setattr(module, _FUNCTION, self._exports.known(getattr(module, _FUNCTION)))

            spec.loader.exec_module = executed  # type: ignore[method-assign]
        return spec

    def undo(self) -> None:
        """Give the module its function back."""
        if self._module is not None:
            setattr(self._module, _FUNCTION, self._find)
