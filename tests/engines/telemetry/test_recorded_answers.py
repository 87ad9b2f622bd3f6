"""What each engine's answers become, by version: shapes as the engines' sources give them (recorded/)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from stand_in_http import Requests, answering, response, serving

from exporter.engines.telemetry import State, Target, Telemetry, TelemetryResult
from exporter.engines.telemetry.reader import TelemetryReader

RECORDED = sorted(Path(__file__).with_name("recorded").glob("*.json"))
STATUSES = {401: "401 Unauthorized", 501: "501 Not Implemented"}


def body(answer: object) -> bytes:
    """Text pages are recorded as their lines, anything else as JSON."""
    if isinstance(answer, list) and all(isinstance(line, str) for line in answer) and answer:
        return "\n".join(answer).encode()
    return json.dumps(answer).encode()


def served(answers: dict[str, object]) -> dict[str, bytes]:
    return {
        path: response(b"{}", status=STATUSES[answer]) if isinstance(answer, int) else response(body(answer))
        for path, answer in answers.items()
    }


def read(recording: dict[str, object]) -> tuple[TelemetryResult, Requests]:
    requests = Requests()

    async def run() -> TelemetryResult:
        async with serving(answering(served(recording["answers"]), requests)) as port:
            target = Target("it", recording["engine"], "127.0.0.1", port, **recording.get("target", {}))
            return (await TelemetryReader().read([target]))["it"]

    return asyncio.run(run()), requests


def said(telemetry: Telemetry) -> dict[str, object]:
    """The fields that differ from "not said", as JSON values."""
    empty, found = asdict(Telemetry()), asdict(telemetry)
    return json.loads(json.dumps({key: value for key, value in found.items() if value != empty[key]}))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_answers_become_the_expected_telemetry(path: Path) -> None:
    recording = json.loads(path.read_text())
    result, requests = read(recording)
    assert result.telemetry is not None, result
    found, expected = said(result.telemetry), recording["expected"]
    ratio = found.pop("kv_usage_ratio", None)
    assert ratio == pytest.approx(expected.pop("kv_usage_ratio", None))
    assert found == expected
    assert dict(result.missing) == recording.get("missing", {})
    assert result.state is (State.SLEEPING if expected.get("sleeping") else State.WARM)
    assert not set(recording.get("never", [])) & set(requests.paths)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_nothing_else_of_an_answer_is_kept(path: Path) -> None:
    result, _ = read(json.loads(path.read_text()))
    assert "canary" not in repr(result)


def test_recordings_hold_canaries() -> None:
    """Otherwise the test above could not fail."""
    assert sum("canary" in path.read_text() for path in RECORDED) >= 4


def test_an_adapter_is_not_the_model() -> None:
    recording = json.loads(RECORDED[0].with_name("vllm-0.9-v1.json").read_text())
    recording["answers"]["/v1/models"]["data"].reverse()
    result, _ = read(recording)
    assert result.telemetry is not None and result.telemetry.served_model == "r1"


def test_another_engines_models_are_refused() -> None:
    """Engines share default ports."""
    recording = json.loads(RECORDED[0].with_name("lmdeploy-0.18.json").read_text())
    recording["engine"] = "llama-cpp-python"
    result, _ = read(recording)
    assert (result.telemetry, result.reason) == (None, "nonsense")
