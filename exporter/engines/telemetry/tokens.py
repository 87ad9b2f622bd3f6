"""Token counters out of a metrics page, by our kinds."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.engines.telemetry.samples import Samples


def counts(samples: Samples, kinds: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Kind → tokens, for the kinds that the page has under one of their names."""
    found = {kind: samples.count(*names) for kind, names in kinds.items()}
    return {kind: tokens for kind, tokens in found.items() if tokens is not None}


def drafts(samples: Samples, drafted: tuple[str, ...], accepted: tuple[str, ...]) -> dict[str, int]:
    """Draft tokens accepted and rejected; nothing unless the engine counts both and they agree."""
    tried, kept = samples.count(*drafted), samples.count(*accepted)
    if tried is None or kept is None or kept > tried:
        return {}
    return {"draft_accepted": kept, "draft_rejected": tried - kept}
