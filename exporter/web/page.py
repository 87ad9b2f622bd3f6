"""The landing page: what runs here, whether it can read its sources, and where the metrics are."""

from __future__ import annotations

import string
from html import escape

from exporter import __version__
from exporter.snapshot import Snapshot
from exporter.units import format_bytes

_PAGE = string.Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>deepseek-capacity-exporter</title>
<style>
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0;width:100%}
caption{text-align:left;font-weight:600;padding:.3rem 0}
th,td{text-align:left;padding:.3rem 1rem .3rem 0;border-bottom:1px solid #8884}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
@media(max-width:40rem){
body{font-size:12px;margin:1rem auto;padding:0 .5rem}h1{font-size:1.3em}th,td{padding-right:.3rem}
}
</style></head><body>
<h1>deepseek-capacity-exporter $version</h1>
$demo<p><a href="metrics">Metrics</a> · <a href="-/healthy">healthy</a> · <a href="-/ready">ready</a></p>
$tables
</body></html>
""")


def landing(snapshot: Snapshot) -> bytes:
    """The page for one snapshot, self-contained."""
    tables = [
        _table("Memory", ("where", "state", "used", "capacity", "committed", "headroom"), _memory(snapshot)),
        _table("Deployments", ("name", "model", "quantization", "state"), _deployments(snapshot)),
        _table("Sources", ("source", "state", "expected here"), _sources(snapshot)),
    ]
    played = f"the recorded host {escape(snapshot.demo)} is played; nothing here is this machine's"
    page = _PAGE.substitute(
        version=escape(__version__),
        demo=f"<p><strong>Demo</strong>: {played}.</p>\n" if snapshot.demo else "",
        tables="\n".join(table for table in tables if table),
    )
    return page.encode()


def _sources(snapshot: Snapshot) -> list[tuple[str, ...]]:
    return [(one.name, one.state, "yes" if one.expected else "no") for one in snapshot.sources]


def _memory(snapshot: Snapshot) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for gpu in snapshot.gpus:
        commitment = snapshot.assessment.devices.get(gpu.identity.uuid)
        used = gpu.reading.memory_used_bytes if gpu.reading else None
        rows.append(
            (
                f"GPU {gpu.identity.index} {gpu.identity.name.removeprefix('NVIDIA ').removeprefix('AMD ')}",
                gpu.state.value,
                _size(used),
                _size(commitment.capacity if commitment else None),
                _size(commitment.committed.low if commitment else None),
                _size(commitment.headroom.low if commitment else None),
            )
        )
    host, commitment = snapshot.host, snapshot.assessment.host
    if host is not None and commitment is not None:
        used = host.memory_total_bytes - host.memory_available_bytes
        sizes = (used, commitment.capacity, commitment.committed.low, commitment.headroom.low)
        rows.append(("RAM", "up", *(_size(size) for size in sizes)))
    return rows


def _deployments(snapshot: Snapshot) -> list[tuple[str, ...]]:
    return [
        (
            one.declared.name,
            one.declared.model,
            one.declared.footprint.quantization if one.declared.footprint else one.declared.problem,
            one.state,
        )
        for one in snapshot.assessment.deployments
    ]


def _size(size_bytes: int | None) -> str:
    return "–" if size_bytes is None else format_bytes(size_bytes)


def _table(caption: str, heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    numeric = {"used", "capacity", "committed", "headroom"}

    def cells(tag: str, values: tuple[str, ...]) -> str:
        return "".join(
            f"<{tag}{' class=n' if head in numeric else ''}>{escape(value)}</{tag}>"
            for head, value in zip(heads, values, strict=True)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><tr>{cells('th', heads)}</tr>{body}</table>"
