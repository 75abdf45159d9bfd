"""The metrics page, the alert rules and the dashboard in ``docs`` agree with the metrics."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from tests.fixtures.scrapes import Installed, find_program

DOCS = Path(__file__).parents[1] / "docs"


METRIC = re.compile(r"\b(?:http_client|llm_pool|gen_ai_client)_\w+(?=[{\[ )])")


def promtool(*arguments: str, cwd: Path = DOCS) -> None:
    done = subprocess.run(
        [find_program("promtool"), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alert_rules_are_valid() -> None:
    promtool("check", "rules", "alerts.yml")


def test_alerts_fire_when_they_should_and_not_before() -> None:
    promtool("test", "rules", "alerts_test.yml", cwd=Path(__file__).parent)


def test_the_dashboard_and_the_alerts_use_metrics_that_exist() -> None:
    """Names are compared with every suffix that Prometheus adds."""
    exposed = {
        f"{family.name}{ending}"
        for family in Installed().registry.collect()
        for ending in ("", "_total", "_count", "_sum", "_bucket")
    }
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    used = set(METRIC.findall(" ".join([*expressions, (DOCS / "alerts.yml").read_text()])))
    assert len(used) >= 15
    assert {f"shop_{name}" for name in used} <= exposed


def test_every_metric_is_in_the_docs() -> None:
    text = (DOCS / "metrics.md").read_text()
    for family in Installed().registry.collect():
        name = family.name.removeprefix("shop_") + ("_total" if family.type == "counter" else "")
        assert f"`{name}`" in text
