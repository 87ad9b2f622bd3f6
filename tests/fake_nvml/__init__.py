"""A fake NVIDIA driver for tests: a C `libnvidia-ml.so.1`, driven live from a control file. See README.md."""
