"""`models`: the catalogue, every number with its source."""

from __future__ import annotations

from typing import Any

import click

from exporter.cli.common import fail, print_json, table
from exporter.models.catalog import Model, UnknownModel, catalog
from exporter.models.quantization import Container, file_bytes
from exporter.models.rows import Number, architecture_rows, numbers
from exporter.units import format_bytes

COLUMNS = 80


@click.group()
def command() -> None:
    """The models that are known, and every number behind them with its source."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="The list as JSON.")
def list_(as_json: bool) -> None:
    """Every model: its architecture, size and published form."""
    models = catalog().models
    if as_json:
        print_json([_summary(model) for model in models])
        return
    rows = [
        (
            model.id,
            f"{model.architecture.parameters / 1e9:,.1f}B",
            model.native_quantization,
            format_bytes(size) if (size := _published_bytes(model)) is not None else "–",
        )
        for model in models
    ]
    click.echo(table(("model", "parameters", "published", "checkpoint"), rows, right=(1, 3)))


@command.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")
def show(name: str, as_json: bool) -> None:
    """One model, by any of its names: hub id, Ollama tag, folder or file name."""
    known = catalog()
    try:
        model = known.resolve(name)
    except UnknownModel as error:
        fail(str(error))
    if as_json:
        print_json(_whole(model))
    else:
        click.echo(_text(model))


def _published_bytes(model: Model) -> int | None:
    return file_bytes(model.architecture, model.native_quantization, Container.SAFETENSORS)


def _summary(model: Model) -> dict[str, Any]:
    architecture = model.architecture
    answer: dict[str, Any] = {
        "id": model.id,
        "architecture": model.architecture_name,
        "parameters": architecture.parameters,
        "active_parameters": architecture.active_parameters,
        "quantization": model.native_quantization,
        "checkpoint_bytes": _published_bytes(model),
        "context_tokens": architecture.context_tokens,
    }
    return {name: value for name, value in answer.items() if value is not None}


def _whole(model: Model) -> dict[str, Any]:
    answer = _summary(model)
    answer["aliases"] = list(model.aliases)
    answer["tags"] = dict(model.tags)
    answer["quantizations"] = list(model.quantizations)
    answer["source"] = model.source
    if model.note:
        answer["note"] = model.note
    answer["family"] = architecture_rows()[model.architecture_name]["family"]
    answer["numbers"] = [
        {"name": one.name, "value": one.value, "source": one.source, "confidence": one.confidence}
        for one in numbers(model.architecture_name)
    ]
    return answer


def _text(model: Model) -> str:
    from exporter.cli.footprint_view import hanging

    architecture = model.architecture
    size = _published_bytes(model)
    facts = [
        ("architecture", f"{model.architecture_name} ({architecture.family})"),
        ("parameters", f"{architecture.parameters:,}, {architecture.active_parameters:,} active"),
        ("published in", model.native_quantization),
        ("checkpoint", "–" if size is None else f"{format_bytes(size)} ({size:,} bytes)"),
        ("context", f"{architecture.context_tokens:,} tokens"),
        ("known from", model.source),
        ("also called", ", ".join(model.aliases)),
        ("asked in", ", ".join(model.quantizations)),
        ("note", model.note),
    ]
    lines = [model.id, *(hanging(f"  {name:<14}", text) for name, text in facts if text)]
    for source, group in _by_source(numbers(model.architecture_name)):
        lines += ["", hanging("  ", f"{source[0]} (confidence {source[1]})")]
        lines += [f"    {one.name:<42}{_value(one.value):>20}" for one in group]
    return "\n".join(lines)


def _by_source(found: tuple[Number, ...]) -> list[tuple[tuple[str, str], list[Number]]]:
    groups: dict[tuple[str, str], list[Number]] = {}
    for one in found:
        groups.setdefault((one.source, one.confidence), []).append(one)
    return list(groups.items())


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        text = " ".join(map(str, value))
        return text if len(text) <= 34 else f"{len(value)} values"
    return f"{value:,}" if isinstance(value, int) else str(value)
