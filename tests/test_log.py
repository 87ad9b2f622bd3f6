"""One event is one line, in the shape that was asked for, whatever foreign text it carries."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter import log


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """These tests replace the process's logging; pytest wants its own back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def only_line(stream: io.StringIO) -> str:
    (line,) = lines(stream)
    return line


def as_logfmt(level: str = "debug") -> io.StringIO:
    stream = io.StringIO()
    log.configure(level, "logfmt", stream)
    return stream


def as_json() -> io.StringIO:
    stream = io.StringIO()
    log.configure("debug", "json", stream)
    return stream


def test_logfmt_begins_with_time_level_logger_and_message() -> None:
    stream = as_logfmt()
    log.get("exporter.daemon").warning("disk full", free_bytes=3, note="a=b", fine=True, gone=None)
    time, rest = only_line(stream).split(" ", 1)
    assert time.startswith("ts=20")
    assert time.endswith("Z")
    expected = 'level=warning logger=exporter.daemon msg="disk full" free_bytes=3 note="a=b" fine=true gone='
    assert rest == expected


def test_json_has_the_same_keys() -> None:
    stream = as_json()
    log.get("exporter.daemon").error("disk full", free_bytes=3, options=["a"])
    event = json.loads(only_line(stream))
    assert event.pop("ts").endswith("Z")
    assert event == {
        "level": "error",
        "logger": "exporter.daemon",
        "msg": "disk full",
        "free_bytes": 3,
        "options": ["a"],
    }


def test_lines_below_the_level_are_left_out() -> None:
    stream = as_logfmt("warning")
    log.get("a").info("no")
    log.get("a").error("yes")
    assert "msg=yes" in only_line(stream)


def test_libraries_that_use_the_standard_library_come_through_in_the_same_shape() -> None:
    stream = as_logfmt()
    logging.getLogger("some.library").warning("gave up on %s", "x y")
    assert 'level=warning logger=some.library msg="gave up on x y"' in only_line(stream)


def test_an_exception_is_one_line_with_its_traceback() -> None:
    stream = as_logfmt()
    try:
        raise RuntimeError("first\nsecond")
    except RuntimeError:
        logging.getLogger("some.library").exception("failed")
        log.get("exporter").exception("failed")
    assert len(lines(stream)) == 2
    assert all("RuntimeError: first" in line and "Traceback" in line for line in lines(stream))


def test_malformed_requests_do_not_fill_the_log() -> None:
    stream = as_logfmt()
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert lines(stream) == []


class Rude:
    """An object whose text nobody checked."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


hostile = st.text() | st.text(alphabet='\r\n\x1b\x85\x9b\u2028\u202e\ud800\\" =a', max_size=30)


@given(hostile)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_text_stays_on_its_logfmt_line_without_control_characters(text: str) -> None:
    stream = as_logfmt()
    log.get("exporter").info(text, name=text, problem=ValueError(text), thing=Rude(text), several=[text])
    logging.getLogger("library").info(text)
    written = stream.getvalue()
    assert written.count("\n") == 2
    assert written.replace("\n", "").isprintable()


@given(hostile)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_text_reads_back_from_json_as_it_was(text: str) -> None:
    stream = as_json()
    log.get("exporter").info(text, name=text)
    written = stream.getvalue()
    assert written.count("\n") == 1
    assert json.loads(written)["name"] == text


class TestJournal:
    """systemd tells a service by $JOURNAL_STREAM that its stderr is the journal's socket."""

    @staticmethod
    def written(monkeypatch: pytest.MonkeyPatch, *, matches: bool) -> list[str]:
        ours, journal = socket.socketpair()
        with ours, journal, ours.makefile("w") as stream:
            status = os.fstat(ours.fileno())
            inode = status.st_ino if matches else status.st_ino + 1
            monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{inode}")
            log.configure("debug", "logfmt", stream)
            for level in ("debug", "info", "warning", "error", "critical"):
                logging.getLogger("library").log(logging.getLevelName(level.upper()), "hello")
            stream.flush()
            return journal.recv(65536).decode().splitlines()

    def test_lines_carry_their_priority(self, monkeypatch: pytest.MonkeyPatch) -> None:
        begins = [line.split("ts=")[0] for line in self.written(monkeypatch, matches=True)]
        assert begins == ["<7>", "<6>", "<4>", "<3>", "<2>"]

    def test_lines_to_anything_else_do_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert all(line.startswith("ts=") for line in self.written(monkeypatch, matches=False))

    def test_a_stream_without_a_descriptor_is_not_the_journal(self) -> None:
        assert not log.to_journal(io.StringIO())
