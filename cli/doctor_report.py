"""How findings are shown: one line for each check, with a sign, and what to do about it below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .output import clean, counted, is_terminal, write

if TYPE_CHECKING:
    from taskqueue.drivers.values import Finding

_SIGNS = {"ok": "ok", "warning": "!!", "error": "XX"}
_COLOURS = {"ok": "32", "warning": "33", "error": "31"}


def document(findings: Sequence[Finding], database: str, mended: Sequence[str]) -> dict[str, Any]:
    """Return what ``doctor --json`` prints."""
    return {
        "database": database,
        "level": _worst(findings),
        "mended": list(mended),
        "findings": [
            {"check": each.check, "level": each.level.value, "message": each.message, "fix": each.fix or None}
            for each in findings
        ],
    }


def write_findings(findings: Sequence[Finding], database: str, mended: Sequence[str]) -> None:
    """Write every finding for a person, and how many of them need one."""
    write(clean(database))
    for sentence in mended:
        write(f"  mended  {clean(sentence)}")
    label = max((len(each.check) for each in findings), default=0)
    for each in findings:
        write(f"  {_sign(each.level.value)}  {each.check.ljust(label)}  {clean(each.message)}")
        if each.fix:
            write(f"      {' ' * label}  -> {clean(each.fix)}")
    write(_summary(findings))


def _sign(level: str) -> str:
    sign = _SIGNS[level]
    return f"\x1b[{_COLOURS[level]}m{sign}\x1b[0m" if _is_coloured() else sign


def _is_coloured() -> bool:
    from os import environ

    return is_terminal() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def _summary(findings: Sequence[Finding]) -> str:
    number = {level: sum(each.level.value == level for each in findings) for level in _SIGNS}
    if not number["warning"] and not number["error"]:
        return "All is well."
    parts = [counted(number[level], level) for level in ("error", "warning") if number[level]]
    return f"{' and '.join(parts)}."


def _worst(findings: Sequence[Finding]) -> str:
    levels = list(_SIGNS)
    return max((each.level.value for each in findings), key=levels.index, default=levels[0])
