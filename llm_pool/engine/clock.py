"""The monotonic clock of the package: it runs on while a test freezes ``time.monotonic``."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec, module_from_spec

__all__ = ["monotonic"]


def _monotonic() -> Callable[[], float]:
    """Return the function ``monotonic`` of a second copy of the module ``time``.

    freezegun replaces ``time.monotonic`` in every module that has it as an attribute, also if this module is
    imported while the time is frozen. It does not find the function of another copy, which costs the same.
    """
    spec = find_spec("time")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[[], float] = module.monotonic
    return function


monotonic = _monotonic()
"""Return the seconds of a clock that never goes back. A frozen or changed wall clock does not change it."""
