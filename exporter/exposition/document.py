"""Writes docs/METRICS.md from the table of families.

`python -m exporter.exposition.document > docs/METRICS.md`; a test says when it is stale.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from exporter.exposition.families import SECTIONS, Family

_INTRODUCTION = """\
# Metrics

Generated from `exporter/exposition/families/`; change it there, then type

```sh
python -m exporter.exposition.document > docs/METRICS.md
```

* Base units; ratios run from 0 to 1 (overcommit may exceed 1). Sizes are bytes, times Unix seconds.
* A value that is not known is an absent series: never zero, never the last value.
* `gpu` is the driver's index as text and `uuid` its identifier verbatim, together on every device series.
* What only describes stands on `…_info`, whose value is 1, and is joined:
  `deepseek_gpu_memory_used_bytes * on (uuid) group_left (name) deepseek_gpu_info`.
* `bound` is `low` or `high`: what can only be estimated counts at this end. Pages are decided on `low`,
  tickets on `high`.
* An info metric appears as a gauge in the text format and as info in OpenMetrics, under the same name.
* `process_*` and `python_info` come from prometheus-client and are described there.
"""


def markdown(sections: Mapping[str, Sequence[Family]]) -> str:
    """The tables of families, one for each section, as one Markdown document."""
    parts = [_INTRODUCTION]
    for title, families in sections.items():
        rows = [_row(family) for family in families]
        parts.append(
            "\n".join((f"## {title}\n", "| metric | type | labels | meaning |", "|---|---|---|---|", *rows))
        )
        parts.append("")
    return "\n".join(parts)


def _row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels) or "–"
    return f"| `{family.name}` | {family.kind} | {labels} | {family.help.replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    sys.stdout.write(markdown(SECTIONS))
