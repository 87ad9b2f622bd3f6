"""The view of a host for a terminal: tables and bars where there is one, the same words elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from exporter.views.facts import AlertFacts, DeploymentFacts, Level, Memory, View
from exporter.views.words import duration, lowered, size

COLUMNS = 80
_BAR_LEAST, _BAR_MOST = 20, 60
_BAR_LEGEND = (("█", "deployments"), ("▒", "others"), ("░", "promised"), ("┃", "what it can give"))

_STYLES = {Level.CRITICAL: "bold red", Level.WARNING: "bold yellow", Level.INFO: "cyan", Level.GOOD: "green"}
_QUIET = "dim"


def plain_text(view: View, columns: int = COLUMNS) -> str:
    """The view without colour, bars or trailing blanks, for pipes and files."""
    page = StringIO()
    console = Console(
        file=page, width=columns, color_system=None, force_terminal=False, markup=False, emoji=False
    )
    console.print(whole(view, console, bars=False), highlight=False)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def terminal() -> Console:
    """A console that takes text as text: no markup, no emoji codes, no guesses about what to colour."""
    return Console(markup=False, emoji=False, highlight=False)


def whole(view: View, console: Console, *, bars: bool, trouble: str = "") -> Group:
    """Everything, most urgent first. ``trouble``: why what is shown may be old."""
    parts: list[RenderableType] = []
    if trouble:
        parts.append(Text(trouble, style="bold white on red"))
    if view.demo:
        parts.append(Text(f"DEMO: the recorded host {view.demo}, played back; nothing here is real"))
    parts += [_head(view), _verdict(view)]
    blocks = [_wrong(view), _memory(view, console, bars=bars), _deployments(view), _stores(view), _rest(view)]
    for block in blocks:
        if block is not None:
            parts += [Text(), block]
    return Group(*parts)


def _head(view: View) -> Text:
    said = [
        view.host_name,
        f"pool {view.pool}" if view.pool else "",
        f"version {view.version}" if view.version else "",
        f"read {duration(view.age_seconds)} ago",
    ]
    return Text(" · ".join(one for one in said if one), style=_QUIET)


def _verdict(view: View) -> Text:
    return Text.assemble((f"{view.verdict}.", _STYLES[view.level]), " ", view.headline)


def _wrong(view: View) -> RenderableType | None:
    lines = [*(one for alert in view.alerts for one in _alert(alert))]
    lines += [_leveled(one.level, one.level, one.text) for one in view.findings]
    return Group(*lines) if lines else None


def _alert(alert: AlertFacts) -> Iterator[RenderableType]:
    said = [alert.name, *alert.subject, f"{alert.state} {alert.since}"]
    if alert.held:
        said.append("data missing, state kept")
    yield _leveled(alert.level, alert.severity, ", ".join(said))
    for text in (alert.summary, alert.runbook_text):
        if text:
            yield Padding(Text(text), (0, 0, 0, 10))


def _leveled(level: Level, word: str, text: str) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=8, no_wrap=True, overflow="ellipsis")
    grid.add_column(overflow="fold")
    grid.add_row(Text(word, style=_STYLES[level]), Text(text))
    return grid


def _memory(view: View, console: Console, *, bars: bool) -> RenderableType | None:
    """A row for each device and RAM; its bar stands beside the numbers, or below where that is too narrow."""
    memories = [*view.devices, *([view.ram] if view.ram else [])]
    if not memories:
        return None
    table = _memory_table(memories, [])
    if not bars:
        return table
    legend = Text("   ".join(f"{sign} {meaning}" for sign, meaning in _BAR_LEGEND), style=_QUIET)
    cells = min(_BAR_MOST, console.width - console.measure(table).maximum - 2)
    if cells >= _BAR_LEAST:
        return Group(_memory_table(memories, [_bar(one, cells) for one in memories]), legend)
    below = _table("", right=())
    below.add_column(no_wrap=True)
    cells = min(_BAR_MOST, console.width - 10)
    for one in memories:
        below.add_row(Text(one.name), _bar(one, cells))
    return Group(table, below, legend)


def _memory_table(memories: list[Memory], bars: list[Text]) -> Table:
    table = _table("memory", "state", right=("used", "capacity", "committed", "headroom"))
    if bars:
        table.add_column(no_wrap=True)
    for at, one in enumerate(memories):
        table.add_row(*_memory_row(one), *bars[at : at + 1])
    return table


def _memory_row(one: Memory) -> list[Text]:
    """Committed and headroom are at the low bound, on which pages are decided."""
    name = Text(f"{one.name} {one.product}".strip())
    name.truncate(20, overflow="ellipsis")
    sizes = (one.used_bytes, one.capacity_bytes, one.committed_low_bytes, one.headroom_low_bytes)
    return [name, Text(one.verdict, style=_STYLES[one.level]), *(Text(size(value)) for value in sizes)]


def _bar(memory: Memory, cells: int) -> Text:
    """In use, promised and capacity on one line; every part has its own sign, so that no colour is needed."""
    if memory.used_bytes is None:
        return Text()
    ours = sum(one.size_bytes for one in memory.held if one.kind in ("deployment", "mapped"))
    in_use = sum(one.size_bytes for one in memory.held)
    promised = max(memory.expected_bytes, in_use)
    capacity = memory.capacity_bytes
    bar = Text()
    for cell in range(cells):
        at = (cell + 0.5) / cells * memory.scale_bytes
        if capacity is not None and cell == min(cells - 1, int(capacity / memory.scale_bytes * cells)):
            bar.append("┃")
        elif at < ours:
            bar.append("█", "blue")
        elif at < in_use:
            bar.append("▒", "magenta")
        elif at < promised:
            bar.append("░", "red" if capacity is not None and at > capacity else "blue")
        else:
            bar.append(" ")
    return bar


def _deployments(view: View) -> RenderableType | None:
    """A line of numbers for each, and below it what it is, how it compares and what room it has."""
    if not view.deployments:
        return None
    table = _table("deployment", "state", right=("per GPU", "RAM", "full-length"))
    table.columns[0].max_width = 24
    for one in view.deployments:
        table.add_row(
            Text(one.name),
            Text(one.state, style=_STYLES[one.level]),
            *(Text(text) for text in (one.per_device, one.ram, one.full_length)),
        )
    parts: list[RenderableType] = [table]
    for one in view.deployments:
        parts += [Text(), *_about(one)]
    return Group(*parts)


def _about(one: DeploymentFacts) -> Iterable[RenderableType]:
    yield Text.assemble((one.name, "bold"), f" {one.where}: {one.model}, {one.what}")
    said = [one.state_words if one.state != "warm" else "", one.comparison, one.headroom, one.about_ram]
    if one.differs:
        said.append(f"not as declared: {', '.join(one.differs)}")
    if one.kv_usage_ratio is not None:
        said.append(f"KV cache {one.kv_usage_ratio * 100:.0f} % in use")
    if one.requests:
        said.append(f"requests: {one.requests}")
    if one.link:
        said.append(one.link)
    yield Padding(Text("; ".join(lowered(text) for text in said if text)), (0, 0, 0, 2))


def _stores(view: View) -> RenderableType | None:
    """A line of numbers for each disk, and below it what takes its room."""
    if not view.stores:
        return None
    table = _table("store", "state", right=("free", "size", "DeepSeek"))
    table.columns[1].max_width = 24
    for one in view.stores:
        state = "ok" if one.level is Level.GOOD else one.words
        sizes = (one.free_bytes, one.size_bytes, one.used_bytes)
        table.add_row(
            Text(one.name), Text(state, style=_STYLES[one.level]), *(Text(size(it)) for it in sizes)
        )
    parts: list[RenderableType] = [table]
    for one in view.stores:
        said = [*([one.words] if one.level is not Level.GOOD else []), *one.details]
        said += [f"{model} {size(stored)} {state}" for model, state, stored in one.models]
        if said:
            parts += [Text(), Text.assemble((one.name, "bold"), f": {'; '.join(said)}")]
    return Group(*parts)


def _rest(view: View) -> RenderableType | None:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    if view.energy:
        grid.add_row(Text("power"), Text(view.energy))
    sources = Text()
    for at, one in enumerate(view.sources):
        sources.append(", " if at else "").append(f"{one.name}: ").append(one.state, _STYLES[one.level])
    if view.sources:
        grid.add_row(Text("sources"), sources)
    return grid if grid.row_count else None


def _table(*left: str, right: tuple[str, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for name in left:
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for name in right:
        table.add_column(name, no_wrap=True, justify="right")
    return table
