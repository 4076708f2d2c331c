"""Name <-> job class, and the imports that fill the registry."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskqueue.errors import ConfigurationError, ImportFailed, UnknownJobClass
from taskqueue.registry import Registry, import_jobs, module_name


def kind(name: str, module: str = "app.jobs") -> type:
    return type(name, (), {"__module__": module, "__qualname__": name})


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    made.add(kind("Mail"), "app.jobs.Mail", ["old.Mail"])
    return made


@pytest.mark.parametrize("name", ["app.jobs.Mail", "old.Mail", "Mail"])
def test_a_class_is_found_by_name_alias_and_unique_bare_name(registry: Registry, name: str) -> None:
    found = registry.find(name)
    assert found is not None
    assert found.__name__ == "Mail"


def test_a_bare_name_that_two_classes_have_finds_neither(registry: Registry) -> None:
    registry.add(kind("Mail", "other.jobs"), "other.jobs.Mail")
    assert registry.find("Mail") is None
    assert registry.find("other.jobs.Mail") is not None


@pytest.mark.parametrize("name", ["", "os.system", "subprocess.Popen", "app.jobs", "mail"])
def test_an_unknown_name_finds_nothing_and_imports_nothing(registry: Registry, name: str) -> None:
    before = set(sys.modules)
    assert registry.find(name) is None
    assert set(sys.modules) == before


def test_an_unknown_name_that_was_asked_for_is_refused_with_the_nearest_one(registry: Registry) -> None:
    with pytest.raises(UnknownJobClass, match=r"app\.jobs\.Mial.*--import; did you mean app\.jobs\.Mail"):
        registry.get("app.jobs.Mial")


def test_an_unknown_name_like_no_other_is_refused_with_what_there_is(registry: Registry) -> None:
    with pytest.raises(
        UnknownJobClass, match=r"name the module that defines it with --import; known are app\.jobs\.Mail"
    ):
        registry.get("xyz")


def test_two_classes_cannot_have_one_name(registry: Registry) -> None:
    with pytest.raises(ConfigurationError, match=r"two job classes are named 'app.jobs.Mail'"):
        registry.add(kind("Other"), "app.jobs.Mail")


def test_a_name_cannot_be_the_alias_of_another_class(registry: Registry) -> None:
    with pytest.raises(ConfigurationError, match=r"two job classes are named 'old.Mail'"):
        registry.add(kind("Other"), "old.Mail")
    with pytest.raises(ConfigurationError, match=r"two job classes are named 'app.jobs.Mail'"):
        registry.add(kind("Other"), "app.jobs.Other", ["app.jobs.Mail"])


def test_a_refused_class_leaves_nothing_behind(registry: Registry) -> None:
    with pytest.raises(ConfigurationError):
        registry.add(kind("Other"), "app.jobs.Other", ["app.jobs.Mail"])
    assert registry.find("app.jobs.Other") is None
    assert registry.names() == ["Mail", "app.jobs.Mail", "old.Mail"]


def test_the_same_class_defined_again_replaces_itself(registry: Registry) -> None:
    again = kind("Mail")
    registry.add(again, "app.jobs.Mail", ["old.Mail"])
    assert registry.get("old.Mail") is again
    assert len(registry) == 1


def test_the_names_are_all_that_a_stored_job_may_carry(registry: Registry) -> None:
    registry.add(kind("Report"), "reports")
    assert registry.names() == ["Mail", "Report", "app.jobs.Mail", "old.Mail", "reports"]
    assert list(registry) == ["app.jobs.Mail", "reports"]


# --- imports -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_the_modules_that_are_named_are_imported(folder: Path) -> None:
    (folder / "one_jobs.py").write_text("x = 1")
    (folder / "two_jobs.py").write_text("x = 2")
    assert import_jobs(["one_jobs", "two_jobs"], folder) == ["one_jobs", "two_jobs"]
    assert sys.modules["two_jobs"].x == 2


def test_without_a_name_a_jobs_module_in_the_folder_is_imported(folder: Path) -> None:
    (folder / "jobs.py").write_text("x = 1")
    assert import_jobs([], folder) == ["jobs"]


def test_without_a_name_a_jobs_package_in_the_folder_is_imported(folder: Path) -> None:
    (folder / "jobs").mkdir()
    (folder / "jobs" / "__init__.py").write_text("x = 1")
    assert import_jobs([], folder) == ["jobs"]


def test_without_a_name_and_a_module_nothing_is_imported(folder: Path) -> None:
    assert import_jobs([], folder) == []


def test_a_module_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(ImportFailed, match="cannot import 'nowhere': there is no such module here"):
        import_jobs(["nowhere"], folder)


def test_a_missing_module_further_in_is_not_taken_for_the_one_that_was_named(folder: Path) -> None:
    (folder / "outer_jobs.py").write_text("import missing_inside")
    with pytest.raises(ImportFailed, match=r"cannot import 'outer_jobs': ModuleNotFoundError: .*missing_inside"):
        import_jobs(["outer_jobs"], folder)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 / 0", r"ZeroDivisionError: division by zero \(bad_jobs.py, line 1\)"),
        ("x = \n", "SyntaxError"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
    ],
)
def test_a_failing_import_says_what_failed_and_where(folder: Path, source: str, said: str) -> None:
    (folder / "bad_jobs.py").write_text(source)
    with pytest.raises(ImportFailed, match=f"cannot import 'bad_jobs': {said}"):
        import_jobs(["bad_jobs"], folder)


def test_a_class_of_a_script_is_found_under_the_name_of_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/somewhere/send_mails.py", raising=False)
    assert module_name(kind("Mail", "__main__")) == "send_mails"
    assert module_name(kind("Mail", "app.jobs")) == "app.jobs"
