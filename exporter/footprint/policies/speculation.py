"""Speculative decoding: which draft a method loads, and what the draft's cache adds to a token.

Methods of vLLM 0.33 (config/speculative.py), SGLang 0.5.23 (arg_groups/choices.py) and llama.cpp
(common/arg.cpp --spec-type). The draft layers of a checkpoint share embedding and head with the model; a
draft model is one of its own.
"""

from __future__ import annotations

from exporter.footprint.deployment import FootprintError
from exporter.footprint.policies.job import Job

_CHECKPOINT_METHODS = frozenset(
    {"mtp", "deepseek_mtp", "nextn", "eagle", "dspark", "deepseek_dspark", "draft-mtp", "on", "true"}
)
_WITHOUT_WEIGHTS = frozenset(
    {"ngram", "ngram_gpu", "suffix", "lookahead", "lookup", "prompt_lookup", "ngram-simple", "none", "off"}
)
_OTHER_MODEL = frozenset(
    {
        "draft_model", "draft", "draft-simple", "draft-eagle3", "eagle", "eagle3", "standalone", "medusa",
        "mlp_speculator", "dflash",
    }
)  # fmt: skip
METHODS = _CHECKPOINT_METHODS | _WITHOUT_WEIGHTS | _OTHER_MODEL


def draft_layers(job: Job) -> int:
    """Draft layers of the checkpoint that speculation loads; 0 where it drafts otherwise or not at all.

    Raises FootprintError for a method that is not known, or that this model has no draft for.
    """
    spec = job.spec
    if spec.speculative is None:
        return 0
    method = spec.speculative.lower()
    if method not in METHODS:
        raise FootprintError(f"speculative is not known; known: {', '.join(sorted(METHODS))}")
    if method in _WITHOUT_WEIGHTS or spec.draft_model is not None:
        return 0
    if method not in _CHECKPOINT_METHODS:
        raise FootprintError(
            f"speculative {method} needs draft_model: its weights are in no checkpoint of ours"
        )
    if job.architecture.draft_layers == 0:
        raise FootprintError(
            "speculative: only the draft layers of the checkpoint (mtp) need no draft_model, "
            f"and {job.model.id} has none"
        )
    return job.architecture.draft_layers


def uses_draft_model(job: Job) -> bool:
    """Whether a second model is loaded."""
    spec = job.spec
    if spec.draft_model is None:
        return False
    return spec.speculative is None or spec.speculative.lower() not in _WITHOUT_WEIGHTS
