#!/usr/bin/env bash
# Installs what the GPU backends need besides a C++ compiler: the headers of every flavour of
# TensorRT, CUDA's headers and nvcc. CMake finds TensorRT's headers in /opt. Select nvcc and CUDA
# with CUDACXX=FOLDER/cuda/bin/nvcc and CUDAToolkit_ROOT=FOLDER/cuda. Release wheels are built with
# this script (pyproject.toml). Requires git, curl, zstd and pip.
#
#   tools/gpu_toolchain.sh [FOLDER]
set -euo pipefail
folder=$(realpath --canonicalize-missing "${1:-/opt}")
tensorrt=https://github.com/NVIDIA/TensorRT
declare -A tags=([10]=v10.16 [11]=v11.1)
# TENSORRT_RTX_SDK may be the URL of another copy of the archive, such as a file:// URL.
rtx=${TENSORRT_RTX_SDK:-https://developer.nvidia.com/downloads/trt/rtx_sdk/secure/1.6/\
TensorRT-RTX-1.6.1.120-Linux-x86_64-cuda-13.4-Release-external.tar.zst}
# The first release of CUDA 13, so that every driver for CUDA 13 can run the compiled code.
cuda=13.0

mkdir -p "$folder"
work=$(mktemp -d)
trap '/bin/rm -rf "$work"' EXIT
for major in "${!tags[@]}"; do
  echo "TensorRT ${tags[$major]}: headers"
  git -c advice.detachedHead=false clone --quiet --depth 1 --filter blob:none --sparse \
    --branch "${tags[$major]}" "$tensorrt" "$work/$major"
  git -C "$work/$major" sparse-checkout set include
  mkdir -p "$folder/tensorrt-$major"
  cp -r "$work/$major/include" "$folder/tensorrt-$major/"
done

echo "TensorRT for RTX: headers"
curl --fail --silent --show-error --location "$rtx" --output "$work/rtx.tar.zst"
mkdir -p "$folder/tensorrt-rtx"
zstd --decompress --stdout "$work/rtx.tar.zst" |
  tar --extract --directory "$folder/tensorrt-rtx" --strip-components 1 --wildcards '*/include'

echo "CUDA $cuda: headers and nvcc"
python3 -m pip install --quiet --target "$work/cuda" "nvidia-cuda-nvcc==$cuda.*" \
  "nvidia-nvvm==$cuda.*" "nvidia-cuda-crt==$cuda.*" "nvidia-cuda-runtime==$cuda.*" \
  "nvidia-cuda-cccl==$cuda.*"
mkdir -p "$folder/cuda"
cp -r "$work"/cuda/nvidia/cu13/* "$folder/cuda/"
# nvcc looks for libraries in lib64, but the wheels have them in lib.
ln --symbolic --force --no-dereference lib "$folder/cuda/lib64"
"$folder/cuda/bin/nvcc" --version | tail -2
