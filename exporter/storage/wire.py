"""Question and answer between the daemon and the child that scans: plain JSON, both ways."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from exporter.storage.facts import Checkpoint, CheckpointState, Kind, RootState, Scan
from exporter.storage.tree import Entry, Folder
from exporter.storage.walk import Memo

ANSWER_BYTES = 16 << 20
MOST_CHECKPOINTS = 256
"""What one answer tells apart; a root with more tells the rest in sums."""
_MOST_REMEMBERED = 20_000
"""Entries of folders that are handed over to the next scan; some 2 MiB. Larger roots are listed anew."""


@dataclass(frozen=True, slots=True)
class Question:
    """A root to be scanned. ``elsewhere``: (device, inode) of other roots, which it may contain."""

    root: str
    kind: Kind
    most_entries: int
    elsewhere: tuple[tuple[int, int], ...] = ()
    memo: Any = None

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(data: bytes) -> Question:
        raw = json.loads(data)
        elsewhere = tuple((int(device), int(inode)) for device, inode in raw["elsewhere"])
        return Question(raw["root"], Kind(raw["kind"]), raw["most_entries"], elsewhere, raw["memo"])


def encode_answer(scan: Scan, memo: Memo) -> bytes:
    plain = asdict(scan)
    entries = sum(len(one.files) + len(one.links) + len(one.folders) for one in memo.values())
    plain["memo"] = encode_memo(memo) if entries <= _MOST_REMEMBERED else None
    return json.dumps(plain).encode()


def decode_answer(data: bytes) -> tuple[Scan, Any]:
    """The scan, and what the next one may be given as its memo. Raises ValueError, KeyError or TypeError."""
    plain = json.loads(data)
    memo = plain.pop("memo")
    found = tuple(
        Checkpoint(**{**one, "state": CheckpointState(one["state"])}) for one in plain.pop("checkpoints")
    )
    return Scan(**{**plain, "state": RootState(plain["state"]), "checkpoints": found}), memo


def encode_memo(memo: Memo) -> dict[str, list[object]]:
    return {
        path: [one.inode, one.modified_ns, one.files, one.links, one.folders] for path, one in memo.items()
    }


def decode_memo(plain: Any) -> Memo:
    """What an earlier child handed over; the daemon keeps it without looking into it."""
    if plain is None:
        return {}
    return {
        path: Folder(inode, modified, [Entry(*one) for one in files], links, folders)
        for path, (inode, modified, files, links, folders) in plain.items()
    }
