"""Answers to the questions of `footprint`: the deployment as it was said, and what it should need.

What a question held never comes back in an error: it may be somebody's command line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, cast

from exporter.capacity.launched import spec_of
from exporter.cli.cases import Case, CaseError, Plain, read_line
from exporter.engines.launch import deployment_of
from exporter.footprint.answer import Answer, footprint_answer, to_plain
from exporter.footprint.deployment import DeploymentSpec, DeviceShape, FootprintError
from exporter.footprint.gpus import gpu_model, shapes
from exporter.footprint.policies import policy_of
from exporter.footprint.result import Explanation
from exporter.models.catalog import Catalog, UnknownModel, UnknownQuantization, catalog
from exporter.models.checkpoint.weights import CheckpointWeights


@dataclass(frozen=True, slots=True)
class Answered:
    """What is said of a question: always the deployment; the answer where model and engine are known."""

    deployment: Mapping[str, Plain]
    answer: Answer | None = None
    spec: DeploymentSpec | None = None
    devices: tuple[DeviceShape, ...] | None = None
    notes: tuple[str, ...] = ()
    error: CaseError | None = None

    def plain(self, *, explain: bool = False) -> dict[str, Plain]:
        """The object of the command contract; with `explain`, the sources of the numbers too."""
        said: dict[str, Plain] = {"deployment": dict(self.deployment)} if self.deployment else {}
        if self.answer is not None:
            said.update(cast(dict[str, Plain], to_plain(self.answer)))
            if explain:
                said["explanations"] = [_plain_explanation(one) for one in self.answer.explanations]
        if self.notes:
            said["notes"] = [*self.notes, *said.get("notes", [])]
        if self.error is not None:
            said.update(self.error.plain())
        return said


def _plain_explanation(one: Explanation) -> dict[str, Plain]:
    return {
        "component": one.component,
        "formula": one.formula,
        "inputs": dict(one.inputs),
        "source": one.source,
        "checked": one.checked,
    }


def answer_case(case: Case) -> Answered:
    """The answer; of a launch whose model is not known, what the launch says. Raises CaseError."""
    launch = case.launch
    if launch is None and case.checkpoint is not None:
        return _of_checkpoint(case, case.checkpoint)
    if launch is None:
        asked = _spec_of_settings(case, case.model or "")
        return _computed(Answered(_said(case, asked), spec=asked), case, catalog())
    answered = Answered(deployment_of(launch), notes=(*launch.notes, *launch.problems))
    spec = spec_of(launch, "footprint")
    if spec is None:
        return answered
    answered = replace(answered, spec=_with_settings(spec, case.settings))
    try:
        if launch.problems:
            _known(spec)
            raise CaseError("launch", f"a setting of the launch cannot be right: {launch.problems[0]}")
        return _computed(answered, case, catalog())
    except CaseError as error:
        if error.kind == "unknown_model":
            return replace(answered, notes=(*answered.notes, _ONLY_THE_LAUNCH))
        return replace(answered, error=error)


_ONLY_THE_LAUNCH = "the model is not in the catalogue: only what the launch says is known"


def _known(spec: DeploymentSpec) -> None:
    try:
        catalog().resolve(spec.model, ollama=spec.engine == "ollama")
    except UnknownModel as error:
        raise CaseError("unknown_model", _unquoted(str(error))) from None


def _computed(
    answered: Answered, case: Case, known: Catalog, stored: CheckpointWeights | None = None
) -> Answered:
    spec = answered.spec
    assert spec is not None
    gpus = case.gpus if case.gpus is not None else (case.launch.gpus if case.launch else None)
    try:
        devices = _devices(case, spec, gpus)
        answer = footprint_answer(spec, devices, gpus, known, stored=stored)
    except UnknownModel as error:
        raise CaseError("unknown_model", _unquoted(str(error))) from None
    except UnknownQuantization as error:
        raise CaseError("unknown_quantization", _unquoted(str(error))) from None
    except FootprintError as error:
        raise CaseError("footprint", _unquoted(str(error))) from None
    return replace(answered, answer=answer, devices=devices)


def _devices(case: Case, spec: DeploymentSpec, gpus: int | None) -> tuple[DeviceShape, ...] | None:
    if case.gpu is None and case.gpu_memory_bytes is None:
        return None
    name = ""
    size = case.gpu_memory_bytes
    if case.gpu is not None:
        try:
            model = gpu_model(case.gpu)
        except FootprintError as error:
            raise CaseError("unknown_gpu", _unquoted(str(error))) from None
        name, size = model.name, size if size is not None else model.memory_bytes
    assert size is not None
    if size == 0:
        raise CaseError("footprint", "gpu_memory_bytes must be above 0")
    # Who names a card has at least one, also where the engine could do without.
    count = gpus if gpus is not None else max(1, len(policy_of(spec.engine).unsized(spec, None)))
    if count > 1 << 16:
        raise CaseError("footprint", "gpus is more than any cluster has")
    return shapes(size, count, name)


_FIELDS = frozenset(one.name for one in fields(DeploymentSpec))


def _with_settings(spec: DeploymentSpec, settings: Mapping[str, Any]) -> DeploymentSpec:
    said = dict(settings)
    if isinstance(said.get("ep"), bool):
        degrees = (said.get("tp", spec.tp), said.get("dp", spec.dp))
        said["ep"] = degrees[0] * degrees[1] if said["ep"] else None
    return replace(spec, **{name: value for name, value in said.items() if name in _FIELDS})


def _spec_of_settings(case: Case, model: str, container: str = "") -> DeploymentSpec:
    said = case.settings.get("engine")
    gguf = container == "gguf" or model.lower().endswith(".gguf")
    engine = str(said).lower() if said is not None else "llama.cpp" if gguf else "vllm"
    spec = DeploymentSpec(name="footprint", model=model, engine=engine)
    return _with_settings(spec, {**case.settings, "engine": engine})


def _of_checkpoint(case: Case, path: str) -> Answered:
    """The answer for files on this host: their headers say what model and quantization they are."""
    # Only a checkpoint needs the reader and its child.
    from exporter.cli.checkpoints import NotRecognised, read_checkpoint
    from exporter.models.checkpoint.tensors import HeaderError

    try:
        found = read_checkpoint(path)
    except HeaderError as error:
        raise CaseError(str(error.kind), error.message) from None
    except NotRecognised as error:
        raise CaseError("unknown_architecture", str(error)) from None
    asked = _spec_of_settings(case, found.model.id, found.container)
    if "quantization" not in case.settings and found.quantization is not None:
        asked = replace(asked, quantization=found.quantization)
    answered = Answered(
        {**_said(case, asked), "model": path, "quantization": asked.quantization},
        spec=asked,
        notes=found.notes,
    )
    computed = _computed(answered, case, found.known, found.stored)
    answer = computed.answer
    assert answer is not None
    stored = replace(answer.model, checkpoint_bytes=found.file_bytes or answer.model.checkpoint_bytes)
    return replace(computed, answer=replace(answer, model=stored))


_SAID = (
    "quantization",
    "kv_cache_dtype",
    "dtype",
    "tp",
    "pp",
    "dp",
    "ep",
    "dp_attention",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "memory_fraction",
)


def _said(case: Case, spec: DeploymentSpec) -> dict[str, Plain]:
    """The deployment of settings without a launch: what was asked."""
    said: dict[str, Plain] = {"engine": spec.engine, "model": spec.model}
    said |= {name: getattr(spec, name) for name in _SAID if name in case.settings}
    types = {side: case.settings.get(f"cache_type_{side}") for side in ("k", "v")}
    if any(types.values()):
        said["kv_cache_dtype"] = {side: kind or "f16" for side, kind in types.items()}
    if case.gpus is not None:
        said["gpus"] = case.gpus
    return said


_QUOTED = re.compile(r"""\s*(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")


def _unquoted(message: str) -> str:
    """A message without the names that it quotes: they are the question's own."""
    return _QUOTED.sub("", message)


def answer_line(line: bytes) -> dict[str, Plain]:
    """The answer to one line of JSON, or its error."""
    try:
        return answer_case(read_line(line)).plain()
    except CaseError as error:
        return error.plain()
