"""A snapshot in which every name that somebody else may choose is meant to do harm."""

from __future__ import annotations

import dataclasses

from fixed_snapshot import FULL, NOW_SECONDS, READING, RUNNING, declared, identity

from exporter.capacity.alert import Alert
from exporter.capacity.assessment import DeploymentStatus
from exporter.capacity.attribution import Holding
from exporter.engines.process import ProcessMemory
from exporter.hardware.gpu import Gpu, GpuState
from exporter.snapshot import Snapshot, Source
from exporter.units import GIB

SCRIPT = "<script>window.harmed=1</script>"
IMAGE = "\"><img src=x onerror=window.harmed=1>'"
TEMPLATE = "{{ 7 * 7 }}{% raw %}${harm}"
REVERSED = "user\u202egnp.exe\u2066"
CONTROL = "a\x1b[31mred\x00\x07\r\nb\x9b2J"
EMOJI = "🐳👩‍🔬 深度求索"
LONG = "long" * 2500
assert FULL.assessment.deployments[0].link is not None
FULL_LINK = FULL.assessment.deployments[0].link
NAMES = (SCRIPT, IMAGE, TEMPLATE, REVERSED, CONTROL, EMOJI, LONG)
RUNBOOKS = (
    "javascript:window.harmed=1",
    "JaVaScRiPt:alert(1)",
    "data:text/html,<script>window.harmed=1</script>",
    "//evil.example/x",
    "/\\evil.example",
    "https://user:secret@evil.example/",
    " javascript:alert(1)",
)


def hostile() -> Snapshot:
    """The full snapshot with bad names everywhere."""
    uuid = IMAGE
    gpus = (
        Gpu(
            dataclasses.replace(identity(0), name=SCRIPT, uuid=uuid),
            GpuState.UP,
            reason=LONG,
            reading=READING,
        ),
        Gpu(dataclasses.replace(identity(1), name=REVERSED + LONG), GpuState.ERROR, reason=SCRIPT + CONTROL),
    )
    running = FULL.assessment.deployments[0]
    deployments = tuple(
        dataclasses.replace(
            running,
            declared=dataclasses.replace(
                declared(name, name), problem="", ranks=(uuid, ""), engine=name, kv_cache_dtype=name
            ),
            running_as=dataclasses.replace(RUNNING, quantization=name, engine_version=name, speculative=name),
            matches={name: False},
            link=dataclasses.replace(FULL_LINK, interfaces=(name,)),
        )
        for name in NAMES
    )
    unknown = DeploymentStatus(declared("v9", SCRIPT, problem=SCRIPT + CONTROL + LONG), SCRIPT, frozenset())
    return dataclasses.replace(
        FULL,
        gpus=gpus,
        pool=SCRIPT,
        demo=IMAGE,
        assessment=dataclasses.replace(
            FULL.assessment,
            devices={uuid: next(iter(FULL.assessment.devices.values()))},
            held={uuid: tuple(Holding(name, "deployment", 5 * GIB) for name in NAMES)},
            host_held={name: ProcessMemory(GIB, GIB, 0, 0) for name in NAMES},
            deployments=(*deployments, unknown),
        ),
        sources=tuple(Source(name, name, True, None, 0.0, {name: 1}) for name in NAMES),
        alerts=tuple(
            Alert(
                name=name,
                severity=name,
                subject={name: name, "uuid": uuid},
                firing=True,
                active_since_seconds=NOW_SECONDS - 100,
                firing_since_seconds=NOW_SECONDS - 50,
                held=True,
                summary=name,
                description=name,
                runbook_url=runbook,
            )
            for name, runbook in zip(NAMES, RUNBOOKS, strict=True)
        ),
    )
