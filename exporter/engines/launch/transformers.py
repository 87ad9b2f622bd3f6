"""Plain transformers: `transformers serve` (transformers 4.53 commands/serving.py) and DeepSeek's reference
script (DeepSeek-V3 inference/generate.py).
"""

from __future__ import annotations

from exporter.engines.launch import values
from exporter.engines.launch.common import first_word, launch_of
from exporter.engines.launch.facts import Launch, Role
from exporter.engines.launch.flags import ARGPARSE, Grammar, read_flags, value
from exporter.engines.launch.program import Program

_SUBCOMMANDS = {"serve": Role.SERVER, "chat": Role.CLIENT}
_COMMANDS = frozenset({"transformers", "transformers-cli"})

GRAMMAR = Grammar(
    ARGPARSE,
    (
        value("model", values.model, "--force-model", "--force_model", "--model"),
        value("dtype", values.word, "--torch_dtype", "--torch-dtype", "--dtype"),
        value("host", values.host, "--host"),
        value("port", values.port, "--port"),
    ),
)


def role_of(program: Program) -> Role | None:
    """What this program is for; None when it is neither of them."""
    for name in program.names:
        if name in _COMMANDS:
            return _SUBCOMMANDS.get(first_word(program), Role.TOOL if first_word(program) else Role.NONE)
        if name == "generate.py" and "--ckpt-path" in program.arguments:
            return Role.TOOL
        if name == "fastchat.serve.model_worker":
            return Role.WORKER
    return None


def read(program: Program, role: Role) -> Launch:
    """The settings of a server; of the others only what they are."""
    if role is not Role.SERVER:
        return Launch(role, "transformers" if _COMMANDS.intersection(program.names) else None)
    return launch_of(read_flags(program.arguments[1:], program.environment, GRAMMAR), role, "transformers")
