"""The cap on the memory of a job, where the system does not answer."""

from __future__ import annotations

import resource

import pytest

from taskqueue.node.memory_cap import MemoryCap


def test_without_a_free_file_a_job_runs_without_its_limit_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    cap = MemoryCap()
    before = resource.getrlimit(resource.RLIMIT_DATA)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, files[1]))
    try:
        ceiling = cap.put_on(2**30)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
    assert ceiling == 0
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert "without its memory_limit" in caplog.text
