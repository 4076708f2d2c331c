"""The shape of the house, held by its syntax trees: layers, owners of libraries, sizes, names.

Every rule is a function from the sources to a list of faults. The sources must have none, and for every rule a fault
planted in a small tree must be found and named.
"""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.source_tree import House, Module

ROOT = Path(__file__).resolve().parent.parent

LAYERS = (
    "errors clock ids states backoff conversion quantities options database_url settings worker_settings configuration",
    "job job_options record registry functions events desk worker_hooks transactional",
    "payload",
    "drivers",
    "flow",
    "scheduling",
    "doorbell store translation statistics fleet waiting pushing handle manager async_manager",
    "node",
    "cluster",
    "monitoring",
    "web",
    "testing jobs",
    "taskqueue",  # the package's own __init__: users import it, nothing inside does
    "cli",
)
"""From the ground floor up: a line imports only itself and earlier lines. Hidden and type-only imports count."""

MIGRATIONS_STAND_ON = "drivers"
"""The folder alembic/ imports this line and earlier ones; nothing imports it."""

ANYONE = frozenset(name for line in LAYERS for name in line.split())
OWNERS = {
    "sqlalchemy": {"drivers", "alembic"},
    "alembic": {"drivers", "alembic"},
    "psycopg": {"drivers"},
    "pymysql": {"drivers"},
    "cryptography": {"payload"},
    "zstandard": {"payload"},
    "apscheduler": {"scheduling"},
    "dotenv": {"settings", "configuration"},
    "typer": {"cli"},
    "rich": {"cli"},
    "textual": {"cli"},
    "fastapi": {"web"},
    "starlette": {"web"},
    "uvicorn": {"web"},
    "jinja2": {"web"},
    "httpx": {"jobs", "monitoring"},
    "prometheus_client": {"monitoring", "web"},
    "opentelemetry": {"manager", "node", "monitoring"},
    "pytest": {"testing"},
    "psutil": ANYONE,
    "humanize": ANYONE,
}
"""Which parts may import a library. One that is not named here is refused: declare it in pyproject.toml first."""

TYPES_ONLY = {("sqlalchemy", "manager"), ("sqlalchemy", "async_manager")}
"""Libraries that a part may import under TYPE_CHECKING alone: ``push(job, session=session)``."""

DATABASES = re.compile("sqlite|mysql|mariadb|postgres|psycopg", re.IGNORECASE)
DATABASES_MAY_BE_NAMED_IN = {"drivers", "settings", "database_url", "alembic"}
SERIALIZERS_THAT_RUN_CODE = {"pickle", "cloudpickle", "dill", "shelve"}
EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "misc"}
LONGEST_FILE = 420
LONGEST_FUNCTION = 60


Function = ast.FunctionDef | ast.AsyncFunctionDef


def is_public(name: str) -> bool:
    return not name.startswith("_")


def floor_of(part: str) -> int | None:
    """Return the line of LAYERS that ``part`` stands on; the migrations stand just above theirs."""
    if part == "alembic":
        return floor_of(MIGRATIONS_STAND_ON)
    return next((floor for floor, line in enumerate(LAYERS) if part in line.split()), None)


# --- the rules -------------------------------------------------------------------------------------------------------


def every_module_has_a_place_in_the_layers(house: House) -> list[str]:
    return [
        module.at(1, f"{module.part} is in no line of LAYERS")
        for module in house.modules.values()
        if floor_of(module.part) is None
    ]


def imports_point_down(house: House) -> list[str]:
    return [
        module.at(each.line, f"{module.part} imports {target.name}, which stands above it")
        for module in house.modules.values()
        for target, each in house.inner_imports(module)
        if (floor_of(target.part) or 0) > (floor_of(module.part) or 0) or (target.part == "alembic" != module.part)
    ]


def imports_run_in_no_circle(house: House) -> list[str]:
    graph = {
        module.name: {target.name for target, _ in house.inner_imports(module)} - {module.name}
        for module in house.modules.values()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as circle:
        return ["a circle of imports: " + " <- ".join(circle.args[1])]
    return []


def libraries_are_imported_by_their_owners_only(house: House) -> list[str]:
    faults = []
    for module in house.modules.values():
        for each in house.imports(module):
            library = each.target.partition(".")[0]
            if library in sys.stdlib_module_names or library == "taskqueue" or each.target in house.modules:
                continue
            allowed = each.typing_only and (library, module.part) in TYPES_ONLY
            if module.part not in OWNERS.get(library, set()) and not allowed:
                faults.append(module.at(each.line, f"{module.part} imports {library}, which it does not own"))
    return faults


def databases_are_named_by_their_owners_only(house: House) -> list[str]:
    return [
        module.at(line, f"{word!r} names a database")
        for module in house.modules.values()
        if module.part not in DATABASES_MAY_BE_NAMED_IN
        for line, word in [(1, module.path.stem), *words_of(module)]
        if DATABASES.search(word)
    ]


def words_of(module: Module) -> Iterator[tuple[int, str]]:
    """Yield every identifier, imported name and string of ``module``; docstrings may say what they like."""
    docstrings = {
        id(node.value)
        for node in module.find(ast.Expr)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(module.tree):
        if id(node) in docstrings:
            continue
        for field in ("id", "attr", "arg", "name", "asname", "module", "value"):
            word = getattr(node, field, None)
            if isinstance(word, str):
                yield getattr(node, "lineno", 1), word


def nothing_sleeps(house: House) -> list[str]:
    return [
        module.at(getattr(node, "lineno", 0), "time.sleep; wait on the clock, so that a test can move it")
        for module in house.modules.values()
        for node in module.find(ast.Attribute, ast.ImportFrom)
        if (isinstance(node, ast.Attribute) and ast.unparse(node) == "time.sleep")
        or (
            isinstance(node, ast.ImportFrom) and node.module == "time" and "sleep" in {name.name for name in node.names}
        )
    ]


def nothing_is_pickled(house: House) -> list[str]:
    return [
        module.at(each.line, f"{each.target} runs code that it reads")
        for module in house.modules.values()
        for each in house.imports(module)
        if each.target.partition(".")[0] in SERIALIZERS_THAT_RUN_CODE
    ]


def sql_text_is_not_built_from_pieces(house: House) -> list[str]:
    return [
        module.at(call.lineno, "text() of a built string; bind the values")
        for module in house.modules.values()
        for call in module.find(ast.Call)
        if isinstance(call, ast.Call) and call.args and ast.unparse(call.func).rpartition(".")[2] == "text"
        if is_built(call.args[0])
    ]


def is_built(text: ast.expr) -> bool:
    """Say whether ``text`` is an f-string, a sum, a ``%`` or a ``.format()``."""
    called = isinstance(text, ast.Call) and isinstance(text.func, ast.Attribute) and text.func.attr == "format"
    return called or isinstance(text, (ast.JoinedStr, ast.BinOp))


def only_the_command_line_prints(house: House) -> list[str]:
    return [
        module.at(call.lineno, "print outside cli/")
        for module in house.modules.values()
        if module.part != "cli"
        for call in module.find(ast.Call)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "print"
    ]


def files_are_short(house: House) -> list[str]:
    sizes = {module: len(module.source.splitlines()) for module in house.modules.values()}
    return [
        module.at(size, f"{size} lines, {LONGEST_FILE} allowed; which seam does it hide?")
        for module, size in sizes.items()
        if size > LONGEST_FILE
    ]


def functions_are_short(house: House) -> list[str]:
    sizes = [
        (module, node, (node.end_lineno or node.lineno) - node.lineno + 1)
        for module in house.modules.values()
        for node in module.find(ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, Function)
    ]
    return [
        module.at(node.lineno, f"{node.name} has {size} lines, {LONGEST_FUNCTION} allowed")
        for module, node, size in sizes
        if size > LONGEST_FUNCTION
    ]


def modules_are_named_for_what_they_hold(house: House) -> list[str]:
    return [
        module.at(1, f"{name} says nothing")
        for module in house.modules.values()
        for name in module.path.with_suffix("").parts
        if name.strip("_0123456789") in EMPTY_NAMES
    ]


def the_folder_of_migrations_is_no_package(house: House) -> list[str]:
    return [
        f"{file.relative_to(house.root).as_posix()}: would hide the library alembic"
        for file in (house.root / "alembic").rglob("__init__.py")
    ]


def public_names_are_documented(house: House) -> list[str]:
    return [
        module.at(node.lineno, f"{node.name} has no docstring")
        for module in house.modules.values()
        if module.part != "alembic"
        for node in public_definitions(module.tree)
        if ast.get_docstring(node) is None
    ]


def public_definitions(tree: ast.Module) -> Iterator[Function | ast.ClassDef]:
    """Yield public functions and classes, and the methods of classes that state a contract (they implement none)."""
    for node in tree.body:
        if isinstance(node, Function) and is_documented(node):
            yield node
        if isinstance(node, ast.ClassDef) and is_public(node.name):
            yield node
            if {ast.unparse(base) for base in node.bases} <= {"ABC", "Protocol"}:
                yield from (each for each in node.body if isinstance(each, Function) and is_documented(each))


def is_documented(function: Function) -> bool:
    """Say whether ``function`` has to have a docstring: public, and neither a setter nor one of several overloads."""
    decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in function.decorator_list}
    return is_public(function.name) and not decorators & {"setter", "overload", "override"}


Rule = Callable[[House], list[str]]
RULES: tuple[Rule, ...] = (
    every_module_has_a_place_in_the_layers,
    imports_point_down,
    imports_run_in_no_circle,
    libraries_are_imported_by_their_owners_only,
    databases_are_named_by_their_owners_only,
    nothing_sleeps,
    nothing_is_pickled,
    sql_text_is_not_built_from_pieces,
    only_the_command_line_prints,
    files_are_short,
    functions_are_short,
    modules_are_named_for_what_they_hold,
    the_folder_of_migrations_is_no_package,
    public_names_are_documented,
)


SOUND = {
    "taskqueue/__init__.py": '"""The package."""\n__version__ = "1"\n',
    "taskqueue/errors.py": '"""Errors."""\nclass Broken(Exception):\n    """Names SQLite, as a docstring may."""\n',
    "taskqueue/drivers/sqlite.py": "from sqlalchemy import text\nfrom taskqueue import errors\ntext('SELECT 1')\n",
    "taskqueue/manager.py": "import typing\nif typing.TYPE_CHECKING:\n    from sqlalchemy.orm import Session\n",
    "cli/main.py": "import typer\nfrom taskqueue import __version__\nfrom . import output\nprint(__version__)\n",
    "cli/output.py": "import rich\n",
    "alembic/env.py": "from alembic import context\nfrom taskqueue.drivers import sqlite\n",
}
"""A small house without a fault; each plant adds or replaces one file."""

PLANTS: tuple[tuple[Rule, str, str, str], ...] = (
    (every_module_has_a_place_in_the_layers, "taskqueue/attic.py", "", "taskqueue/attic.py:1: attic is in no line"),
    (imports_point_down, "taskqueue/errors.py", "from taskqueue.drivers import sqlite", "drivers.sqlite, which stands"),
    (
        imports_point_down,
        "taskqueue/errors.py",
        "def f():\n    import taskqueue.manager",
        "errors.py:2: errors imports",
    ),
    (imports_point_down, "taskqueue/errors.py", "import_module('taskqueue.manager')", "imports taskqueue.manager"),
    (imports_point_down, "taskqueue/errors.py", "from .drivers import sqlite", "imports taskqueue.drivers.sqlite"),
    (imports_point_down, "taskqueue/node/loop.py", "from taskqueue import __version__", "imports taskqueue, which"),
    (imports_point_down, "taskqueue/manager.py", "from taskqueue.cli import output", "imports taskqueue.cli.output"),
    (imports_point_down, "alembic/env.py", "import taskqueue.manager", "alembic imports taskqueue.manager"),
    (
        imports_run_in_no_circle,
        "taskqueue/errors.py",
        "if TYPE_CHECKING:\n    from taskqueue.drivers import sqlite",
        "taskqueue.drivers.sqlite <- taskqueue.errors",
    ),
    (libraries_are_imported_by_their_owners_only, "taskqueue/manager.py", "import sqlalchemy", "imports sqlalchemy"),
    (
        libraries_are_imported_by_their_owners_only,
        "taskqueue/registry.py",
        "if TYPE_CHECKING:\n    import sqlalchemy",
        "registry imports sqlalchemy",
    ),
    (libraries_are_imported_by_their_owners_only, "taskqueue/web/api.py", "def f():\n  import rich", "imports rich"),
    (libraries_are_imported_by_their_owners_only, "taskqueue/jobs.py", "import unheard_of", "imports unheard_of"),
    (databases_are_named_by_their_owners_only, "taskqueue/flow.py", "if name == 'SQLite': ...", "'SQLite' names a"),
    (databases_are_named_by_their_owners_only, "taskqueue/flow.py", "engine.is_mysql", "'is_mysql' names a"),
    (databases_are_named_by_their_owners_only, "taskqueue/flow.py", "def f(postgres): ...", "'postgres' names a"),
    (
        databases_are_named_by_their_owners_only,
        "taskqueue/flow.py",
        "import psycopg.errors",
        "'psycopg.errors' names a",
    ),
    (databases_are_named_by_their_owners_only, "taskqueue/flow.py", "f'to {x} mariadb'", "' mariadb' names a"),
    (nothing_sleeps, "taskqueue/node/loop.py", "import time\ntime.sleep(1)", "loop.py:2: time.sleep"),
    (nothing_sleeps, "taskqueue/node/loop.py", "from time import sleep", "loop.py:1: time.sleep"),
    (nothing_is_pickled, "taskqueue/payload/codec.py", "import pickle", "pickle runs code"),
    (sql_text_is_not_built_from_pieces, "taskqueue/drivers/sql.py", "text(f'SELECT {x}')", "sql.py:1: text()"),
    (sql_text_is_not_built_from_pieces, "taskqueue/drivers/sql.py", "sa.text('SELECT %s' % x)", "sql.py:1: text()"),
    (sql_text_is_not_built_from_pieces, "taskqueue/drivers/sql.py", "text('{}'.format(x))", "sql.py:1: text()"),
    (only_the_command_line_prints, "taskqueue/manager.py", "print('pushed')", "manager.py:1: print outside"),
    (files_are_short, "taskqueue/manager.py", "\n" * (LONGEST_FILE + 1), "421 lines, 420 allowed"),
    (functions_are_short, "taskqueue/manager.py", "def f():\n" + "  f()\n" * LONGEST_FUNCTION, "f has 61 lines, 60"),
    (modules_are_named_for_what_they_hold, "taskqueue/node/utils.py", "", "node/utils.py:1: utils says nothing"),
    (modules_are_named_for_what_they_hold, "cli/common/tables.py", "", "common says nothing"),
    (the_folder_of_migrations_is_no_package, "alembic/versions/__init__.py", "", "alembic/versions/__init__.py: would"),
    (public_names_are_documented, "taskqueue/manager.py", "def push(): ...", "manager.py:1: push has no docstring"),
    (public_names_are_documented, "taskqueue/manager.py", "class Manager: ...", "Manager has no docstring"),
    (
        public_names_are_documented,
        "taskqueue/drivers/base.py",
        "class Driver(ABC):\n    'Said.'\n    def claim(self): ...",
        "base.py:3: claim has no docstring",
    ),
)
"""For each rule: a file, what is wrong in it, and what has to be said about it."""


def build(root: Path, files: dict[str, str]) -> House:
    """Write ``files`` below ``root``."""
    for path, source in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(source, encoding="utf-8")
    return House(root)


@pytest.fixture(scope="module")
def house() -> House:
    return House(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_sources_keep(rule: Rule, house: House) -> None:
    assert rule(house) == []


def test_the_sources_are_read(house: House) -> None:
    assert {"taskqueue", "taskqueue.errors", "taskqueue.cli"} <= house.modules.keys()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_sound_house_has_no_fault(rule: Rule, tmp_path: Path) -> None:
    assert rule(build(tmp_path, SOUND)) == []


@pytest.mark.parametrize(("rule", "path", "source", "said"), PLANTS)
def test_a_planted_fault_is_found_and_named(rule: Rule, path: str, source: str, said: str, tmp_path: Path) -> None:
    faults = rule(build(tmp_path, SOUND | {path: source}))
    assert len(faults) == 1
    assert said in faults[0]


def test_every_rule_has_been_seen_to_fail() -> None:
    assert {rule.__name__ for rule, *_ in PLANTS} == {rule.__name__ for rule in RULES}
