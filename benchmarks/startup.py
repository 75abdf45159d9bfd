"""CPU of a new interpreter that imports Django and httpx, and of one that also imports another library."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.child import Failed
from benchmarks.install import ROOT
from benchmarks.machine import client_core, pin

__all__ = ["measure"]

_DJANGO = "import django, httpx; from django.conf import settings; settings.configure({}); django.setup()"
_POOL = _DJANGO.format('INSTALLED_APPS=["llm_pool"]') + "; from llm_pool import pools; pools"
PROGRAMS = {
    "Django and httpx": _DJANGO.format(""),
    "llm_pool": "sys.modules['prometheus_client'] = None; " + _POOL,  # as if it were not installed
    "llm_pool and its metrics": _POOL,
    "openai": _DJANGO.format("") + "; import openai",
}


def measure(name: str, checkout: str) -> dict[str, float | str]:
    """Run one of ``PROGRAMS``; return its CPU seconds from start to end, or the module that is missing.

    It imports the ``llm_pool`` of ``checkout``, or ours if that is "". Raises Failed.
    """
    program = f"import sys; {PROGRAMS[name]}"
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}  # else each start would compile this package
    process = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, cwd=checkout or ROOT, env=env
    )
    pin(client_core(), process.pid)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stderr is not None
    with process.stderr as stderr:
        output = stderr.read()
    if "No module named 'openai'" in output:
        return {"missing": "openai"}
    if process.returncode:
        raise Failed(output.strip().splitlines()[-1])
    return {"cpu": usage.ru_utime + usage.ru_stime}
