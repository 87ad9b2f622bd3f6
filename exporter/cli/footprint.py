"""`footprint`: what a deployment should need, from a launch command, a model's name, or a checkpoint."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import click

from exporter.cli.answers import answer_case, answer_line
from exporter.cli.cases import LONGEST_LINE, CaseError, read_case
from exporter.cli.common import NO, NOTHING_READ, USAGE, fail, print_json
from exporter.cli.footprint_view import render
from exporter.units import parse_bytes, parse_tokens

_UNREADABLE = frozenset({"not_found", "not_permitted", "out_of_time", "reader_failed"})
"""Kinds of checkpoint errors for which nothing could be read."""


@click.command()
@click.argument("path", nargs=-1)
@click.option("--command", "launch", metavar="LINE", help="A server's command line, in quotes.")
@click.option(
    "--env", "variables", multiple=True, metavar="NAME=VALUE", help="A variable of that command; repeatable."
)
@click.option("--model", metavar="NAME", help="A model: hub id, Ollama tag, or a name of `models list`.")
@click.option("--engine", metavar="NAME", help="vllm (default), sglang, llama.cpp, ik_llama.cpp, ollama …")
@click.option(
    "--engine-version", metavar="VERSION", help="Release of the engine; the current one by default."
)
@click.option("--quantization", metavar="NAME", help="fp8, awq, Q4_K_M …; default: as published.")
@click.option("--dtype", metavar="NAME", help="Type of what is not quantized.")
@click.option("--kv-cache-dtype", metavar="NAME", help="Type of the KV cache.")
@click.option("--tp", type=int, help="Tensor parallel ranks.")
@click.option("--pp", type=int, help="Pipeline stages.")
@click.option("--dp", type=int, help="Data parallel replicas, or attention ranks.")
@click.option("--ep", type=int, help="Ranks among which whole experts are dealt.")
@click.option("--nodes", type=int, help="Hosts over which the ranks lie.")
@click.option("--dp-attention", is_flag=True, default=None, help="Data parallel attention (SGLang).")
@click.option(
    "--context",
    "--max-model-len",
    "max_model_len",
    metavar="TOKENS",
    help="Length of a sequence: 32768, 32K.",
)
@click.option("--max-num-seqs", type=int, help="Requests at once.")
@click.option("--max-num-batched-tokens", metavar="TOKENS", help="Tokens of one step.")
@click.option("--memory-fraction", type=float, help="Part of the memory that the engine may take.")
@click.option("--kv-cache", "kv_cache_bytes", metavar="SIZE", help="Size of one rank's KV pool, when known.")
@click.option("--speculative", metavar="METHOD", help="mtp, eagle …")
@click.option("--gpu", metavar="NAME", help="A GPU as its driver names it, or H200, B200 …")
@click.option("--gpus", type=int, help="How many GPUs; 0 for none.")
@click.option("--gpu-memory", "gpu_memory_bytes", metavar="SIZE", help="Memory of one GPU: 141GiB, 80GB.")
@click.option("--gpu-layers", metavar="N", help="llama.cpp: layers on the GPUs, or all.")
@click.option(
    "--override-tensor", multiple=True, metavar="PATTERN=BUFFER", help="llama.cpp: -ot; repeatable."
)
@click.option("--cache-type-k", metavar="TYPE", help="llama.cpp: type of the keys.")
@click.option("--cache-type-v", metavar="TYPE", help="llama.cpp: type of the values.")
@click.option("--parallel", type=int, help="llama.cpp: slots.")
@click.option("--micro-batch", type=int, help="llama.cpp: -ub.")
@click.option("--flash-attention", type=bool, metavar="[true|false]", help="llama.cpp: -fa.")
@click.option("--mla", metavar="MODE", help="ik_llama.cpp: 0 to 3; on or off.")
@click.option("--batch", metavar="FILE|-", help="Answer every line of JSON in FILE; nothing else is read.")
@click.option("--explain", is_flag=True, help="Formula, inputs and source of every number.")
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")
def command(path: tuple[str, ...], batch: str | None, explain: bool, as_json: bool, **given: Any) -> None:
    """What should this need, per GPU and in RAM?

    From a launch --command, a --model and settings, or the PATH of a checkpoint (a folder, a GGUF file).
    Without --gpu or --gpu-memory, only what does not depend on the device is answered.

    Exit codes: 0 answered, 1 it does not fit, 2 a mistake in the question, 3 nothing could be read.
    """
    if batch is not None:
        if path or any(value not in (None, ()) for value in given.values()):
            fail("--batch takes its questions from the file alone")
        _batch(batch)
        return
    if len(path) > 1:
        fail("one PATH only; a command line belongs in quotes behind --command")
    try:
        answered = answer_case(read_case(_document(path, given)))
    except CaseError as error:
        _refused(error, as_json)
    if as_json:
        print_json(answered.plain(explain=explain))
    else:
        click.echo(render(answered, explain=explain))
    if answered.error is not None:
        if not as_json:
            click.echo(f"error: {answered.error.message}", err=True)
        raise SystemExit(USAGE)
    if answered.answer is not None and answered.answer.fits is False:
        raise SystemExit(NO)


def _refused(error: CaseError, as_json: bool) -> NoReturn:
    code = NOTHING_READ if error.kind in _UNREADABLE else USAGE
    if as_json:
        print_json(error.plain())
        raise SystemExit(code)
    fail(error.message, code)


_TOKENS = ("max_model_len", "max_num_batched_tokens")
_SIZES = ("gpu_memory_bytes", "kv_cache_bytes")
_FLAGS = {"max_model_len": "--context", "gpu_memory_bytes": "--gpu-memory", "kv_cache_bytes": "--kv-cache"}


def _document(path: tuple[str, ...], given: dict[str, Any]) -> dict[str, Any]:
    """The options as the object that `--batch` takes."""
    launch, variables = given.pop("launch"), given.pop("variables")
    found = {name: value for name, value in given.items() if value not in (None, ())}
    if "override_tensor" in found:
        found["override_tensor"] = list(found["override_tensor"])
    for names, parse in ((_TOKENS, parse_tokens), (_SIZES, parse_bytes)):
        for name in names:
            if name in found:
                found[name] = _parsed(name, found[name], parse)
    for name in ("gpu_layers", "mla"):
        text = found.get(name)
        if isinstance(text, str) and text.removeprefix("-").isdecimal() and len(text) < 12:
            found[name] = int(text)
    if path:
        found["checkpoint"] = path[0]
    if launch is not None:
        found["command"] = launch
    if variables:
        if any("=" not in one for one in variables):
            raise CaseError("type", "--env must be NAME=VALUE")
        found["env"] = dict(one.split("=", 1) for one in variables)
    return found


def _parsed(name: str, text: str, parse: Callable[[str], int]) -> int:
    try:
        return parse(text)
    except ValueError as error:
        flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
        raise CaseError("type", f"{flag}: {error}") from None


def _batch(name: str) -> None:
    for line in _lines(name):
        if line.strip():
            sys.stdout.write(json.dumps(answer_line(line)) + "\n")
    sys.stdout.flush()


def _lines(name: str) -> Iterator[bytes]:
    """Lines of a file, or of standard input; of one that is too long, only as much as shows it."""
    try:
        with nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as file:
            while line := file.readline(LONGEST_LINE + 1):
                rest = line
                while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
                    rest = file.readline(LONGEST_LINE + 1)
                yield line
    except OSError as error:
        fail(f"--batch: the file cannot be read: {error.strerror or 'input error'}", NOTHING_READ)
