"""What all boards share: the frame, the choices at the top, and how a choice is written in a query."""

from __future__ import annotations

from collections.abc import Iterable

from panels import DATASOURCE, GREEN, ORANGE, RED, Panel, Row, override, placed, said

HOST = 'job=~"$job", instance=~"$instance"'
DEVICE = f'{HOST}, gpu=~"$gpu"'
DEPLOYMENT = f'{HOST}, deployment=~"$deployment"'
POOL = 'job=~"$job", pool=~"$pool"'
LOW, HIGH = 'bound="low"', 'bound="high"'

PER_HOST = "instance, job"
PER_DEVICE = "instance, job, gpu, uuid"
SAME_HOST = f"on ({PER_HOST}) group_left ()"

COMPONENT_COLOURS = {
    "weights": "blue",
    "experts": "purple",
    "kv_cache": "green",
    "activations": "orange",
    "graphs": "yellow",
    "runtime": "#8e8e8e",
    "speculative": "dark-purple",
    "communication": "dark-orange",
    "pinned": "dark-yellow",
    "prompt_cache": "dark-green",
}

# Holders that are no deployment, in the colour of a warning.
HOLDER_COLOURS = {"other": "dark-red", "unattributed": "light-red"}

VERDICT = said(("fits", GREEN), ("near", ORANGE), ("over", RED))


def threshold(name: str) -> str:
    """What is in force on each chosen host."""
    return f'deepseek_threshold{{name="{name}", {HOST}}}'


def over_threshold(values: str, name: str) -> str:
    """1 or 0 for each value: whether it is above the threshold of its own host."""
    return f"{values} > bool {SAME_HOST} {threshold(name)}"


def lowest(name: str) -> str:
    """One line for a graph: the lowest threshold of the chosen hosts."""
    return f"min({threshold(name)})"


def held_by_deployments(chosen: str) -> str:
    """What deployments hold on devices, with the name of the holder as `deployment`, for joins."""
    held = f'deepseek_gpu_memory_held_bytes{{{chosen}, holder_kind="deployment"}}'
    return f'label_replace({held}, "deployment", "$1", "holder", "(.*)")'


def gpu_verdict(ratio: str) -> str:
    """0 fits, 1 near its limit, 2 over it; by the thresholds of each host. See VERDICT."""
    over = over_threshold(ratio, "vram_overcommit_ratio")
    near = over_threshold(ratio, "vram_overcommit_near_ratio")
    return f"({over}) + on ({PER_DEVICE}) ({near})"


def to_board(
    column: str, title: str, uid: str, *choices: tuple[str, str], keep: Iterable[str] = ()
) -> dict[str, object]:
    """A link from a table's column to another board.

    Of its variables some come from the row, as (variable, column), and those of `keep` from this board.
    """
    chosen = [f'var-{variable}=${{__data.fields["{field}"]}}' for variable, field in choices]
    kept = [f"${{{variable}:queryparam}}" for variable in ("datasource", "job", *keep)]
    url = f"/d/{uid}?" + "&".join(("${__url_time_range}", *kept, *chosen))
    return override("byName", column, links=[{"title": title, "url": url}])


def board(
    uid: str,
    title: str,
    description: str,
    variables: Iterable[dict[str, object]],
    panels: Iterable[Panel | Row],
    since: str = "now-6h",
    refresh: str = "30s",
) -> dict[str, object]:
    """A board as Grafana stores it."""
    return {
        "id": None,
        "uid": f"deepseek-{uid}",
        "title": f"DeepSeek {title}",
        "description": description,
        "tags": ["deepseek", "capacity"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": since, "to": "now"},
        "refresh": refresh,
        "links": [
            {
                "type": "dashboards",
                "title": "DeepSeek boards",
                "tags": ["deepseek"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "annotations": {"list": []},
        "templating": {"list": [_DATASOURCE_CHOICE, *variables]},
        "panels": placed(panels),
    }


_DATASOURCE_CHOICE: dict[str, object] = {
    "type": "datasource",
    "name": "datasource",
    "label": "Data source",
    "query": "prometheus",
    "refresh": 1,
    "current": {},
}


def choice(name: str, label: str, query: str, everything: str = ".+") -> dict[str, object]:
    """A choice of label values, of which any number may be chosen; `everything` matches when all are."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": f"variable-{name}"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": everything,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def number(name: str, label: str, value: str, description: str) -> dict[str, object]:
    """A number that the reader types."""
    return {
        "type": "textbox",
        "name": name,
        "label": label,
        "description": description,
        "query": value,
        "current": {"text": value, "value": value},
        "options": [{"text": value, "value": value, "selected": True}],
    }


_SEEN = "deepseek_exporter_snapshot_timestamp_seconds"
JOBS = choice("job", "Job", f"label_values({_SEEN}, job)")
HOSTS = choice("instance", "Host", f'label_values({_SEEN}{{job=~"$job"}}, instance)')
GPUS = choice("gpu", "GPU", f"label_values(deepseek_gpu_up{{{HOST}}}, gpu)")
DEPLOYMENTS = choice(
    "deployment", "Deployment", f"label_values(deepseek_deployment_info{{{HOST}}}, deployment)"
)
# A host without a configured pool has no such label, and belongs to "all" nevertheless.
POOLS = choice("pool", "Pool", 'label_values(deepseek_gpu_info{job=~"$job"}, pool)', everything=".*")
