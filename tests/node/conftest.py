"""What tests with real nodes share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.running import House, house_in


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Give a folder with a database and a jobs module; whatever ran there is gone afterwards."""
    with house_in(tmp_path) as made:
        yield made
