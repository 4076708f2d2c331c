"""The sources as syntax trees: which modules there are, and what each of them imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, wherever in its file the import stands."""

    target: str
    line: int
    typing_only: bool


@dataclass(frozen=True)
class Module:
    """One file: ``name`` as it is imported, ``path`` as a reader finds it."""

    name: str
    path: PurePosixPath
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, str(self.path))

    @property
    def part(self) -> str:
        """The entry of LAYERS that this module belongs to; ``alembic`` for the migrations."""
        top, *inner = self.name.split(".")
        return inner[0] if inner and top == "taskqueue" else top

    @property
    def package(self) -> str:
        """What a relative import of one dot starts from."""
        return self.name if self.path.stem == "__init__" else self.name.rpartition(".")[0]

    def at(self, line: int, fault: str) -> str:
        return f"{self.path}:{line}: {fault}"

    def find(self, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
        return (node for node in ast.walk(self.tree) if isinstance(node, kinds))


@dataclass(frozen=True)
class House:
    """All sources below one root."""

    root: Path

    @cached_property
    def modules(self) -> dict[str, Module]:
        folders = {"taskqueue": "taskqueue", "cli": "taskqueue.cli", "alembic": "alembic"}
        found = [module for folder, name in folders.items() for module in self._below(folder, name)]
        return {module.name: module for module in found}

    def _below(self, folder: str, name: str) -> Iterator[Module]:
        for file in sorted((self.root / folder).rglob("*.py")):
            inner = [part for part in file.relative_to(self.root / folder).with_suffix("").parts if part != "__init__"]
            path = PurePosixPath(file.relative_to(self.root).as_posix())
            yield Module(".".join([name, *inner]), path, file.read_text(encoding="utf-8"))

    def imports(self, module: Module) -> list[Import]:
        """Return what ``module`` imports, hidden in functions and under TYPE_CHECKING included."""
        typing_only = {
            id(node)
            for block in module.find(ast.If)
            if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
            for statement in block.body
            for node in ast.walk(statement)
        }
        return [
            Import(target, getattr(node, "lineno", 0), id(node) in typing_only)
            for node in ast.walk(module.tree)
            for target in self._targets(module, node)
        ]

    def _targets(self, module: Module, node: ast.AST) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            above = module.package.split(".")[: len(module.package.split(".")) - node.level + 1]
            origin = ".".join([*(above if node.level else []), *([node.module] if node.module else [])])
            inner = {f"{origin}.{alias.name}" for alias in node.names}
            return sorted((inner & self.modules.keys()) | ({origin} if inner - self.modules.keys() else set()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            return [str(node.args[0].value)] if isinstance(node.args[0], ast.Constant) else []
        return []

    def inner_imports(self, module: Module) -> list[tuple[Module, Import]]:
        """Return the imports of our own modules."""
        found = [(self.modules.get(each.target), each) for each in self.imports(module)]
        return [(target, each) for target, each in found if target is not None]
