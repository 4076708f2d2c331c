"""The page on configuration follows the declarations."""

from __future__ import annotations

from pathlib import Path

from docs.generate import HERE, PAGES
from taskqueue.options import options_of
from taskqueue.settings import GROUPS, load_settings


def test_the_generated_pages_are_current() -> None:
    for name, page in PAGES.items():
        written = (HERE / name).read_text(encoding="utf-8")
        assert written == page(), f"docs/{name} is not what the declarations say: run python -m docs.generate"


def test_the_page_names_every_variable_and_flag() -> None:
    page = PAGES["configuration.md"]()
    for option in (option for cls in GROUPS.values() for option in options_of(cls)):
        assert f"`{option.name}`" in page
        assert all(f"`{name}`" in page for name in option.env)
        assert option.flag in page


def test_the_example_on_the_page_loads(tmp_path: Path) -> None:
    example = PAGES["configuration.md"]().split("```toml\n")[1].split("```")[0]
    (tmp_path / "taskqueue.toml").write_text(example)
    settings = load_settings(environ={}, directory=tmp_path).settings
    assert (settings.worker.workers, settings.worker.memory, settings.general.production) == (4, 100 * 1024**2, True)
