"""Reads and validates the configuration: TOML file < environment `DEEPSEEK_EXPORTER_…` < flags.

Uses pydantic-settings. Every error names the key, where it came from, and what to do; the value of an
unknown key is never repeated, because it may be a secret in the wrong place.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError, create_model
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from exporter import units
from exporter.settings import foreign, options
from exporter.settings.errors import ConfigurationError
from exporter.settings.options import DEFAULT_FILE, DEVICE, Settings

ENV_PREFIX = "DEEPSEEK_EXPORTER_"
MOST_STORES = 16
_MAX_FILE_BYTES = 4 * 2**20
_DEVICE = 'should name a GPU: by its index (0), a MIG slice as "GPU:INSTANCE" ("0:3"), or by uuid ("MIG-…")'


def read(file: Path | None, flags: Mapping[str, Any]) -> Settings:
    """The effective settings of this process's environment.

    `file` None means the default file, which may be absent; `flags` is nested by section.
    Raises ConfigurationError.
    """
    table = _table(file)
    _refuse_unknown_environment(os.environ)
    sources = _Sources(
        flags=dict(flags), variables=_from_environment(), table=table, file=file or DEFAULT_FILE
    )
    try:
        merged = sources.merged()
        settings = TypeAdapter(Settings).validate_python(_with_sizes(merged, sources))
    except ValidationError as error:
        raise ConfigurationError("\n".join(sources.explain(error))) from None
    problems = [
        *_deployment_problems(settings, sources),
        *_alertmanager_problems(settings, sources),
        *_store_problems(settings, sources),
    ]
    problems += [
        f"{sources.origin(('foreign_exporters', index))}: {problem}"
        for index, problem in foreign.problems(settings.foreign_exporters)
    ]
    if problems:
        raise ConfigurationError("\n".join(problems))
    return settings


def _table(file: Path | None) -> dict[str, Any]:
    path = file or DEFAULT_FILE
    try:
        return tomllib.loads(_bytes(path).decode())
    except FileNotFoundError:
        if file is None:
            return {}
        raise ConfigurationError(
            f"{path}: no such file; give an existing one with --config.file, or write one with "
            f"`deepseek-exporter config default > {path}`"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigurationError(f"{path}: nested too deeply for a configuration file") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None


def _bytes(path: Path) -> bytes:
    # Opening a named pipe blocks until somebody writes, unless asked not to.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ConfigurationError(f"{path}: not a regular file")
        data = stream.read(_MAX_FILE_BYTES + 1)
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigurationError(f"{path}: larger than 4 MiB, which is no configuration file")
    return data


class _Environment(BaseSettings):
    """Lets pydantic-settings read the variables; validation happens once, on the merged whole."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        extra="ignore",
        validate_default=False,
    )


def _from_environment() -> dict[str, Any]:
    kinds: dict[str, Any] = {
        f.name: (dict[str, Any] if f.name in options.sections() else Any, None)
        for f in dataclasses.fields(Settings)
    }
    try:
        return create_model("Environment", __base__=_Environment, **kinds)().model_dump(exclude_unset=True)
    except (SettingsError, ValidationError) as error:
        raise ConfigurationError(f"environment: {error}") from None


@dataclasses.dataclass
class _Sources:
    """Where each value came from: lowest precedence first in `merged`, highest first in `origin`."""

    flags: dict[str, Any]
    variables: dict[str, Any]
    table: dict[str, Any]
    file: Path

    def merged(self) -> dict[str, Any]:
        return _merge(_merge(self.table, self.variables), self.flags)

    def origin(self, path: tuple[str | int, ...]) -> str:
        dotted = ".".join(str(part) for part in path)
        if _present(self.flags, path):
            return f"--{dotted.replace('_', '-')}"
        if _present(self.variables, path):
            return ENV_PREFIX + "_".join(str(part) for part in path).upper()
        return f"{self.file}: {dotted}"

    def explain(self, error: ValidationError) -> list[str]:
        lines = [self._line(item) for item in error.errors(include_url=False, include_context=True)]
        return list(dict.fromkeys(lines))

    def _line(self, item: Any) -> str:
        path: tuple[str | int, ...] = item["loc"]
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            return f"{self.origin(path)}: unknown key{_nearest(str(path[-1]), _known_keys(path[:-1]))}"
        if item["type"] == "dataclass_type":
            return f"{self.origin(path)}: should be a table, with one key a line"
        if item["type"] == "list_type" and len(path) == 1 and path[0] in options.TABLES:
            return f"{self.origin(path)}: should be a list of tables; write [[{path[0]}]] above each"
        message, value = item["msg"], item["input"]
        if path[-3:-2] == ("devices",):  # one line, not one for each of the two types that would do
            path, message = path[:-1], _DEVICE
        shown = f" (got {value!r})" if isinstance(value, (int, float, str)) and len(str(value)) <= 40 else ""
        return f"{self.origin(path)}: {message[:1].lower()}{message[1:]}{shown}"


def _refuse_unknown_environment(environment: Mapping[str, str]) -> None:
    known = {f"{section}_{key}".upper() for section, key, _, _ in options.scalar_options()}
    known |= {
        f.name.upper()
        for f in dataclasses.fields(Settings)
        if f.name not in options.sections() and f.name not in options.TABLES
    }
    problems = []
    for name in environment:
        if name.upper().startswith(ENV_PREFIX):
            option = name.upper().removeprefix(ENV_PREFIX)
            if option not in known:
                problems.append(f"{name}: unknown environment variable{_nearest(option, known, ENV_PREFIX)}")
    if problems:
        raise ConfigurationError("\n".join(sorted(problems)))


def _known_keys(path: tuple[str | int, ...]) -> list[str]:
    kind: Any = Settings
    for part in path:
        if not isinstance(part, int):
            kind = _table_in(get_type_hints(kind).get(part)) or kind
    return [f.name for f in dataclasses.fields(kind)]


def _table_in(hint: Any) -> type | None:
    """The dataclass in a type such as `list[Deployment]` or `Match | None`; None where there is none."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return hint
    return next((found for one in get_args(hint) if (found := _table_in(one)) is not None), None)


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{prefix}{near[0]}'?"
    return f"; known here: {', '.join(prefix + one for one in sorted(known))}"


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _present(tree: Any, path: tuple[str | int, ...]) -> bool:
    for part in path:
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True


_SIZES = {
    ("capacity", "gpu_safety_margin"),
    ("capacity", "host_safety_margin"),
    ("thresholds", "foreign_vram_bytes"),
    ("thresholds", "host_swap_used_bytes"),
    ("thresholds", "deployment_swapped_bytes"),
    ("thresholds", "vram_growth_bytes"),
    ("thresholds", "deviation_exact_bytes"),
    ("thresholds", "deviation_estimate_bytes"),
    ("thresholds", "model_store_free_bytes"),
    ("thresholds", "model_store_growth_bytes"),
    ("thresholds", "model_store_download_margin_bytes"),
}
_RATES = {("host", "memory_bandwidth")}


def _with_sizes(merged: dict[str, Any], sources: _Sources) -> dict[str, Any]:
    """Sizes given as text ("512MiB") become bytes, rates ("460GB/s") bytes a second."""
    result: dict[str, Any] = json.loads(json.dumps(merged, default=str))
    places: list[tuple[tuple[str | int, ...], Any]] = [
        ((section, key), result.get(section)) for section, key in _SIZES | _RATES
    ]
    entries = result.get("deployments")
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        places += [
            (("deployments", index, key), entry)
            for key in ("kv_cache_bytes", "cache_ram_bytes", "cpu_offload_bytes")
        ]
    exporters = result.get("foreign_exporters")
    for index, entry in enumerate(exporters if isinstance(exporters, list) else ()):
        places.append((("foreign_exporters", index, "driver_share"), entry))
    problems = []
    for path, table in places:
        key = path[-1]
        if isinstance(table, dict) and isinstance(table.get(key), str):
            try:
                parse = units.parse_bytes_per_second if path in _RATES else units.parse_bytes
                table[key] = parse(table[key])
            except ValueError as error:
                problems.append(f"{sources.origin(path)}: {error}")
    if problems:
        raise ConfigurationError("\n".join(problems))
    return result


def _deployment_problems(settings: Settings, sources: _Sources) -> list[str]:
    problems = []
    seen: set[str] = set()
    for index, entry in enumerate(settings.deployments):
        place = sources.origin(("deployments", index))
        for key in ("name", "model"):
            if not getattr(entry, key):
                problems.append(
                    f"{place}: {key} is missing; every [[deployments]] entry needs a name and a model"
                )
            elif not getattr(entry, key).isprintable():
                problems.append(f"{place}: {key} has control characters, such as a line break, in it")
        if entry.name in seen:
            problems.append(f"{place}: name {entry.name!r} is used twice; names must differ")
        if entry.planned_sequences and not (entry.planned_context or entry.max_model_len):
            problems.append(f"{place}: planned_sequences needs planned_context or max_model_len beside it")
        if entry.planned_context and not entry.planned_sequences:
            problems.append(f"{place}: planned_context needs planned_sequences beside it")
        problems += [
            f"{place}.devices.{at}: {_DEVICE} (got {str(device)[:40]!r})"
            for at, device in enumerate(entry.devices)
            if (device < 0 if isinstance(device, int) else not DEVICE.fullmatch(device))
        ]
        if len(set(entry.devices)) != len(entry.devices):
            problems.append(f"{place}: devices names a GPU twice")
        seen.add(entry.name)
    return problems


_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)


def _alertmanager_problems(settings: Settings, sources: _Sources) -> list[str]:
    problems = []
    for index, entry in enumerate(settings.alertmanagers):
        place = sources.origin(("alertmanagers", index))
        problems += [f"{place}: {problem}" for problem in _url_problems(entry.url)]
        if (entry.username is None) != (entry.password_file is None):
            problems.append(f"{place}: username and password_file go together")
        if entry.bearer_token_file is not None and entry.username is not None:
            problems.append(f"{place}: give username or bearer_token_file, not both")
        if (entry.cert_file is None) != (entry.key_file is None):
            problems.append(f"{place}: cert_file and key_file go together")
        problems += [
            f"{place}: labels: {name[:40]!r} is no name of a label; use letters, digits and _"
            for name in entry.labels
            if not _LABEL_NAME.fullmatch(name)
        ]
    return problems


def _store_problems(settings: Settings, sources: _Sources) -> list[str]:
    problems = []
    names: set[str] = set()
    paths: set[str] = set()
    if len(settings.stores) > MOST_STORES:
        problems.append(f"{sources.origin(('stores',))}: more than {MOST_STORES} stores")
    for index, entry in enumerate(settings.stores):
        place, path = sources.origin(("stores", index)), str(entry.path)
        if not entry.path.is_absolute() or "\0" in path:
            problems.append(f"{place}: path should be the whole path of a folder; every entry needs one")
        if path in paths:
            problems.append(f"{place}: this path is named twice")
        if entry.name and (not entry.name.isprintable() or "/" in entry.name):
            problems.append(f"{place}: name should be one printable word without /; it becomes a label")
        if entry.name and entry.name in names:
            problems.append(f"{place}: name {entry.name!r} is used twice; names must differ")
        names.add(entry.name)
        paths.add(path)
    return problems


def _url_problems(url: str) -> list[str]:
    """What keeps a URL from being an Alertmanager's; it is not repeated, since it may hold a password."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port  # raises when it is no number
    except ValueError:
        return ["url is no URL; write http://HOST:9093"]
    if parts.scheme not in ("http", "https") or not host:
        return ["url should be http://HOST:PORT or https://HOST:PORT"]
    if parts.username is not None or parts.password is not None:
        return ["url has a user or password in it; use username and password_file"]
    if parts.query or parts.fragment:
        return ["url should end with the path, without ? and #"]
    return []
