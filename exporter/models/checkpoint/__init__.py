"""What the files of a checkpoint say about themselves: tensors and sizes from safetensors and GGUF headers.

Checkpoints are other people's input. Callers go through ``reader``, whose short-lived child opens the files;
everything else here works on bytes that it hands over, or on the result.
"""
