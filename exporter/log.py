"""Log lines: structlog over the standard library's logging, as logfmt or JSON, to stderr.

Under systemd each line carries its priority (`<3>` … `<7>`, sd-daemon(3)), so `journalctl -p warning` works.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, MutableMapping
from typing import Any, Literal, TextIO


@contextlib.contextmanager
def _as_if_missing(name: str) -> Iterator[None]:
    """Inside, the package cannot be imported: None in sys.modules stands for one that is not installed."""
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


# structlog takes rich wherever it finds it, for a console that we do not use: 4.5 MiB of the daemon.
with _as_if_missing("rich"):
    import structlog

Event = MutableMapping[str, Any]

_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
"""Syslog priorities by level name (RFC 5424 §6.2.1)."""


def configure(level: str, shape: Literal["logfmt", "json"], stream: TextIO | None = None) -> None:
    """Send every log line of this process, libraries included, to `stream` (default stderr)."""
    stream = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("msg"),
    ]
    last: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if shape == "json":
        renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    else:
        last.append(_printable)
        renderer = structlog.processors.LogfmtRenderer(
            key_order=["ts", "level", "logger", "msg"], drop_missing=True, bool_as_flag=False
        )
    last.append(_with_priority(renderer) if to_journal(stream) else renderer)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("uvicorn.access", "apscheduler.executors", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    for framework, least in (("uvicorn", logging.ERROR), ("apscheduler", logging.WARNING)):
        # uvicorn warns of every malformed request: whoever reaches the port could fill the journal.
        logging.getLogger(framework).setLevel(max(logging.getLevelName(level.upper()), least))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def get(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one module."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def to_journal(stream: TextIO) -> bool:
    """Whether `stream` is the journal's socket: $JOURNAL_STREAM is its "device:inode" (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _printable(_logger: Any, _method: str, event: Event) -> Event:
    """One event stays one line of text: control characters of foreign text become escapes."""
    for key, value in event.items():
        text = value if value is None or isinstance(value, bool) else str(value)
        if isinstance(text, str) and not text.isprintable():
            text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        event[key] = text
    return event


def _with_priority(renderer: structlog.typing.Processor) -> structlog.typing.Processor:
    def render(logger: Any, method: str, event: Event) -> str:
        priority = _PRIORITIES.get(str(event.get("level")), 6)
        return f"<{priority}>{renderer(logger, method, event)!s}"

    return render
