"""Reads the checkpoints off a tree: which of its folders are laid out how, and what they hold."""

from __future__ import annotations

from exporter.storage.facts import Checkpoint, Kind
from exporter.storage.files import Files
from exporter.storage.huggingface import is_repository, repository
from exporter.storage.ollama import is_store, store
from exporter.storage.plain import Plain
from exporter.storage.tree import Claims, Tree, joined


def checkpoints(tree: Tree, kind: Kind, root_name: str, files: Files, now: float) -> list[Checkpoint]:
    """Everything in a tree, the largest first. ``root_name``: what the root's own folder is called."""
    claims, found = Claims(), []
    plain = Plain(root_name, files, claims, now)
    todo = [""]
    while todo:
        path = todo.pop()
        folder = tree.at(path)
        if folder is None:
            continue
        name = path.rpartition("/")[2] or root_name
        if is_repository(name, folder):
            if kind in (Kind.AUTO, Kind.HUGGINGFACE):
                found += repository(tree, path, name, files, claims, now)
        elif is_store(folder):
            if kind in (Kind.AUTO, Kind.OLLAMA):
                found += store(tree, path, files, claims, now)
        else:
            if kind in (Kind.AUTO, Kind.PLAIN):
                plain.add(path, folder)
            todo += [joined(path, one) for one in reversed(folder.folders)]
    found += plain.checkpoints()
    return sorted(found, key=lambda one: (-one.size_bytes, one.model, one.state))
