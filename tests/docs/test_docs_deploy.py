"""Dashboard, alerts and compose file fit the service that they are for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from flightkalam.config import KEYS
from flightkalam.figures import FIGURES

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
EXPORTED = {f.exported for f in FIGURES.values()} | {
    f.exported + end for f in FIGURES.values() if f.kind == "histogram" for end in ("_bucket", "_sum", "_count")
}


def loaded(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def named(expression: str) -> set[str]:
    return set(re.findall(r"flightkalam_\w+", expression))


def test_the_dashboard_shows_figures_that_exist() -> None:
    board = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    expressions = [t["expr"] for panel in board["panels"] for t in panel["targets"]]
    assert len(expressions) > 20
    assert set().union(*map(named, expressions)) <= EXPORTED
    assert len({p["id"] for p in board["panels"]}) == len(board["panels"])


def test_alerts_ask_for_figures_that_exist_and_are_explained() -> None:
    page = (REPOSITORY / "docs" / "operations.md").read_text()
    (group,) = loaded("alerts.yaml")["groups"]
    for rule in group["rules"]:
        assert named(rule["expr"]) <= EXPORTED, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning") and rule["annotations"]["summary"]
        assert f"`{rule['alert']}`" in page, "an alert that nobody can look up"


def test_compose_sets_what_the_service_knows_and_mounts_what_is_there() -> None:
    compose = loaded("compose.yaml")
    service = compose["services"]["flightkalam"]
    assert set(service["environment"]) <= {key.env for key in KEYS.values()}
    assert (DEPLOY / service["build"] / "Dockerfile").exists()
    mounted = [v.split(":")[0] for v in compose["services"]["prometheus"]["volumes"]]
    assert all((DEPLOY / path).exists() for path in mounted)
    (job,) = loaded("prometheus.yaml")["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [f"flightkalam:{KEYS['http.port'].default}"]
