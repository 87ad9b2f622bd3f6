"""A second, smaller model that drafts: its weights and its cache, on the ranks of the last stage.

vLLM 0.33 v1/worker (a drafter is loaded with the target's parallelism unless told otherwise), SGLang 0.5.23
speculative/ (draft worker).
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from exporter.footprint import cache_rows, pool_layout
from exporter.footprint.deployment import FootprintError
from exporter.footprint.policies.job import Job
from exporter.footprint.policies.pool import Rank
from exporter.footprint.policies.speculation import uses_draft_model
from exporter.footprint.weights import Layout, Stage, check_layout, rank_weights
from exporter.models.architecture import Architecture
from exporter.models.blocks import CompressedAttention


def with_draft_model(job: Job, rank: Rank, layout: Layout) -> Rank:
    """The rank with the draft model's weights and cache; unchanged where there is none.

    A draft model that is not in the catalogue leaves ``draft_bytes`` unknown. Raises FootprintError where its
    heads cannot be cut like the model's.
    """
    if not uses_draft_model(job):
        return rank
    draft = job.draft
    if draft is None:
        return replace(rank, draft_bytes=None)
    architecture = draft.architecture
    whole = Stage(0, architecture.layers, architecture.layers)
    parts = replace(layout, experts=layout.attention, whole_experts=False, redundant_experts=0)
    check_layout(architecture, parts, "draft_model")
    weights = sum(rank_weights(architecture, draft.native_quantization, parts, whole).values())
    token = Fraction(token_bytes(architecture, job.spec.kv_cache_dtype, layout.attention))
    pools = rank.layout
    wider = replace(
        pools,
        token_bytes=pools.token_bytes + token,
        block_bytes=pools.block_bytes + token * pools.block_tokens,
    )
    return replace(rank, layout=wider, draft_bytes=weights)


def token_bytes(architecture: Architecture, kv_cache_dtype: str | None, parts: int) -> int:
    """Bytes of one token in all layers of a plain cache."""
    if isinstance(architecture.attention, CompressedAttention):
        raise FootprintError("draft_model: compressed attention does not draft for another model")
    name = cache_rows.cache_format(kv_cache_dtype)
    return architecture.layers * pool_layout.token_row_bytes(architecture, name, parts)
