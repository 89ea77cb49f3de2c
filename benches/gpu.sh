#!/usr/bin/env bash
# Stage one on a GPU, whole and in parts, beside the PyTorch script: one table. DEVICE=cpu rehearses it where there is none.
#
#     benches/gpu.sh                                  on a GPU machine, from a checkout that is built (cargo build, cargo bench --no-run)
#     DEVICE=cpu IMAGES=300 benches/gpu.sh            the rehearsal, minutes
#
# Where there is no cargo and no network, carry these and name them: ICECAP (the release binary), STAGE_PARTS (the built
# benches/stage_parts.rs), ORT_DYLIB_PATH (ONNX Runtime with its CUDA provider) and LD_LIBRARY_PATH (libtorch, CUDA, cuDNN).
# PYTHON needs torch, torchvision, onnx and Pillow; ICECAP_DATA holds a few photographs (flickr8k/originals). Further variables:
# DEVICE (cuda; or cuda:0,1), IMAGES (50000), WORKERS (16), BATCH (128), MODELS (resnet50,resnet18), RUNS (2).
set -euo pipefail
cd "$(dirname "$0")"
export DEVICE=${DEVICE:-cuda}
if [ "$DEVICE" = cpu ]; then
  export IMAGES=${IMAGES:-300} WORKERS=${WORKERS:-1} BATCH=${BATCH:-16} MODELS=${MODELS:-resnet18} RUNS=${RUNS:-1}
fi
export IMAGES=${IMAGES:-50000} WORKERS=${WORKERS:-16} BATCH=${BATCH:-128} MODELS=${MODELS:-resnet50,resnet18} RUNS=${RUNS:-2}
python=${PYTHON:-../.venv/bin/python}
[ -x "$(command -v "$python")" ] || python=python3
command -v nvidia-smi > /dev/null && nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader || echo "no GPU to be seen"
exec "$python" gpu.py
