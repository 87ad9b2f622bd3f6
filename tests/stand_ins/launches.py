"""How engines are started, and the processes that they become (titles: vLLM 0.33 v1/executor, SGLang 0.5.23
managers; runners: Ollama llm/server.go of four generations).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stand_ins import answers
from stand_ins.answers import State
from stand_ins.engine import Speaks, StandIn, folder_in
from stand_ins.tree import Door, Plan

Wrap = Callable[[Plan], Plan]
"""What stands around an engine: a container's shim, a shell."""

PYTHON = "/usr/bin/python3"
_NO_ENV: Mapping[str, str] = {}


def as_it_is(plan: Plan) -> Plan:
    """Started by nothing that stays."""
    return plan


def in_container(plan: Plan) -> Plan:
    """Below a container's shim and init, in a pid namespace of its own where this user may make one."""
    return plan.wrapped("/usr/bin/tini", "--", *plan.argv, namespace=True).wrapped(
        "/usr/bin/containerd-shim-runc-v2", "-namespace", "moby", "-id", "4f5d1c"
    )


def in_shell(plan: Plan) -> Plan:
    """`sh -c "…"`, whose line holds the same words."""
    return plan.wrapped("sh", "-c", " ".join(plan.argv) + " 2>&1 | tee server.log")


def vllm(
    directory: Path,
    *,
    model: str,
    port: int,
    tp: int = 1,
    version: str = "0.33.0",
    served: str = "",
    flags: Sequence[str] = (),
    env: Mapping[str, str] = _NO_ENV,
    wrap: Wrap = as_it_is,
    module: bool = False,
    outlives: bool = False,
) -> StandIn:
    """API server → engine core → one worker per GPU; with one GPU the core itself holds the memory.

    `module`: started as `python -m`, as images are, not by the `vllm` script. `outlives`: killing the server
    leaves the rest.
    """
    state = State(model, served or model, version, tp=tp)
    head = (
        ("-m", "vllm.entrypoints.openai.api_server", "--model")
        if module
        else ("/usr/local/bin/vllm", "serve")
    )
    named = ("--served-model-name", served) if served else ()
    sized = ("--tensor-parallel-size", str(tp)) if tp > 1 else ()
    argv = (PYTHON, *head, model, *sized, "--port", str(port), *named, *flags)
    spawned = (PYTHON, "-c", "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5)")
    workers = tuple(
        Plan(spawned, env, f"VLLM::Worker_TP{rank}", outlives=outlives) for rank in range(tp if tp > 1 else 0)
    )
    core = Plan(spawned, env, "VLLM::EngineCore", children=workers, outlives=outlives)
    folder = folder_in(directory, "vllm")
    server = Plan(argv, env, comm="python3" if module else "vllm", door=_door(folder, port), children=(core,))
    holders = "VLLM::Worker" if tp > 1 else "VLLM::EngineCore"
    return _start(folder, wrap(server), state, answers.vllm, holders)


def sglang(
    directory: Path,
    *,
    model: str,
    port: int,
    tp: int = 1,
    version: str = "0.5.23",
    flags: Sequence[str] = (),
    env: Mapping[str, str] = _NO_ENV,
    wrap: Wrap = as_it_is,
    secret: str = "",
) -> StandIn:
    """Server (tokenizer and HTTP) → one scheduler per GPU, and a detokenizer."""
    state = State(model, model, version, tp=tp, secret=secret)
    argv = (PYTHON, "-m", "sglang.launch_server", "--model-path", model, "--tp", str(tp))
    spawned = (PYTHON, "-c", "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5)")
    titles = [f"sglang::scheduler_TP{rank}" for rank in range(tp)] if tp > 1 else ["sglang::scheduler"]
    children = tuple(Plan(spawned, env, title) for title in [*titles, "sglang::detokenizer"])
    folder = folder_in(directory, "sglang")
    server = Plan(
        (*argv, "--port", str(port), *flags),
        env,
        comm="python3",
        door=_door(folder, port),
        children=children,
    )
    return _start(folder, wrap(server), state, answers.sglang, "sglang::scheduler")


def llama_server(
    directory: Path,
    *,
    model: str,
    port: int,
    quantization: str = "Q4_K - Medium",
    context: int = 16_384,
    flags: Sequence[str] = (),
    secret: str = "",
) -> StandIn:
    """One process."""
    state = State(
        model,
        Path(model).name,
        "b11434-0a1b2c3d",
        kv_capacity=context,
        quantization=quantization,
        secret=secret,
    )
    argv = ("/opt/llama.cpp/bin/llama-server", "-m", model, "-c", str(context), "--port", str(port), *flags)
    folder = folder_in(directory, "llama-server")
    plan = Plan(argv, door=_door(folder, port))
    return _start(folder, plan, state, answers.llama_server, argv[0])


OLLAMA_RUNNERS: Mapping[str, tuple[str, ...]] = {
    "0.1.44": (
        *("/tmp/ollama172/runners/cuda_v11/ollama_llama_server", "--model", "{blob}", "--ctx-size", "8192"),
        *("--n-gpu-layers", "62", "--parallel", "1", "--port", "{port}"),
    ),
    "0.5.13": (
        *("/usr/bin/ollama", "runner", "--model", "{blob}", "--ctx-size", "8192", "--batch-size", "512"),
        *("--n-gpu-layers", "62", "--threads", "32", "--parallel", "1", "--port", "{port}"),
    ),
    "0.12.3": ("/usr/bin/ollama", "runner", "--ollama-engine", "--model", "{blob}", "--port", "{port}"),
    "0.30.0": (
        *("/usr/lib/ollama/llama-server", "--model", "{blob}", "--port", "{port}", "--host", "127.0.0.1"),
        *("--no-webui", "--offline", "-c", "8192", "-np", "1", "--flash-attn", "auto"),
    ),
}
"""A release of each generation of runners → its command line."""


def ollama(
    directory: Path,
    *,
    model: str,
    port: int,
    runner_port: int,
    version: str = "0.30.0",
    quantization: str = "Q4_K_M",
    env: Mapping[str, str] = _NO_ENV,
) -> StandIn:
    """`ollama serve` (no GPU memory) → the runner of the loaded model."""
    state = State(model, model, version, max_model_len=8192, quantization=quantization)
    folder = folder_in(directory, "ollama")
    words = {
        "{blob}": "/usr/share/ollama/.ollama/models/blobs/sha256-" + "0a" * 32,
        "{port}": str(runner_port),
    }
    runner = tuple(words.get(word, word) for word in OLLAMA_RUNNERS[version])
    serve = Plan(
        ("/usr/bin/ollama", "serve"),
        {"OLLAMA_HOST": f"127.0.0.1:{port}", **env},
        door=_door(folder, port),
        children=(Plan(runner, env),),
    )
    return _start(folder, serve, state, answers.ollama, " ".join(runner))


def lmdeploy(directory: Path, *, model: str, port: int, tp: int = 1, flags: Sequence[str] = ()) -> StandIn:
    """Turbomind: one process with a thread per GPU."""
    argv = (PYTHON, "/usr/local/bin/lmdeploy", "serve", "api_server", model, "--tp", str(tp))
    folder = folder_in(directory, "lmdeploy")
    plan = Plan((*argv, "--server-port", str(port), *flags), comm="lmdeploy", door=_door(folder, port))
    return _start(folder, plan, State(model, model, "0.18.0", tp=tp), answers.lmdeploy, PYTHON)


def tensorrt_llm(
    directory: Path, *, model: str, port: int, tp: int = 1, flags: Sequence[str] = ()
) -> StandIn:
    """`trtllm-serve` → one MPI worker per GPU."""
    argv = (PYTHON, "/usr/local/bin/trtllm-serve", model, "--tp_size", str(tp), "--port", str(port), *flags)
    worker = Plan((PYTHON, "-m", "mpi4py.futures.server"), comm="python3")
    folder = folder_in(directory, "tensorrt-llm")
    plan = Plan(argv, comm="trtllm-serve", door=_door(folder, port), children=(worker,) * tp)
    return _start(
        folder, plan, State(model, model, "1.2.0", tp=tp), answers.tensorrt_llm, worker.argv[0] + " -m"
    )


def tgi(directory: Path, *, model: str, port: int, tp: int = 1, flags: Sequence[str] = ()) -> StandIn:
    """Launcher → router (HTTP) and one server per GPU."""
    argv = (
        "text-generation-launcher",
        "--model-id",
        model,
        "--num-shard",
        str(tp),
        "--port",
        str(port),
        *flags,
    )
    folder = folder_in(directory, "tgi")
    router = Plan(("text-generation-router", "--port", str(port)), door=_door(folder, port))
    shards = tuple(
        Plan(
            (PYTHON, "/opt/conda/bin/text-generation-server", "serve", model),
            {"RANK": str(rank), "WORLD_SIZE": str(tp)},
            comm="text-generation",
        )
        for rank in range(tp)
    )
    plan = Plan(argv, children=(router, *shards))
    return _start(folder, plan, State(model, model, "3.3.6", tp=tp), answers.tgi, PYTHON)


def llama_cpp_python(directory: Path, *, model: str, port: int, flags: Sequence[str] = ()) -> StandIn:
    """`python -m llama_cpp.server`: one process."""
    argv = (PYTHON, "-m", "llama_cpp.server", "--model", model, "--port", str(port), *flags)
    folder = folder_in(directory, "llama-cpp-python")
    plan = Plan(argv, comm="python3", door=_door(folder, port))
    return _start(folder, plan, State(model, model, "0.3.9"), answers.llama_cpp_python, PYTHON)


def _door(folder: Path, port: int) -> Door:
    return Door(port, folder / "answers")


def _start(folder: Path, plan: Plan, state: State, speaks: Speaks, holders: str) -> StandIn:
    return StandIn(folder, plan, state, speaks, holders, folder / "answers")
