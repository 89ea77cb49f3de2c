#!/usr/bin/env bash
# Stage two on a GPU: is it right, how fast is it, beside PyTorch. DEVICE=cpu rehearses it where there is none.
#
#     CACHE=caches/flickr8k benches/gpu_train.sh          on a GPU machine, from a checkout that is built
#     DEVICE=cpu STEPS=6 CACHE=.. benches/gpu_train.sh    the rehearsal, minutes
#
# CACHE is the cache of pipelines/flickr8k-attention.toml (`right` and `wait` read it). Where there is no cargo, carry these and
# name them: ICECAP (the release binary), ICECAP_SPEED (the built tests of the library), LD_LIBRARY_PATH (libtorch, CUDA, cuDNN).
# PYTHON needs torch and transformers. WHAT picks among: right wait lstm small 124M large compiled.
set -uo pipefail
cd "$(dirname "$0")/.."
device=${DEVICE:-cuda} steps=${STEPS:-100} icecap=${ICECAP:-target/release/icecap} python=${PYTHON:-.venv/bin/python}
what=${WHAT:-right wait lstm small 124M large compiled}
[ -x "$(command -v "$python")" ] || python=python3
# torch on Hopper cards plans cuDNN's attention anew for each shape; icecap sets this itself, and PyTorch gains by it too here.
export TORCH_CUDNN_SDPA_DEPRIORITIZED=1
half=bf16 work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v nvidia-smi > /dev/null && nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader || echo "no GPU to be seen"
asked() { [[ " $what " = *" $1 "* ]]; }

if asked right; then export NVIDIA_TF32_OVERRIDE=0; # the same training on the CPU and on the device, without dropout; and in bf16
  one() { # kind name device further settings
    local kind=$1 run=$work/$2 where=$3; shift 3
    local recipe=pipelines/flickr8k-attention.toml
    [ "$kind" = gpt2 ] && recipe=pipelines/flickr8k-gpt2.toml
    "$icecap" train "$recipe" --cache "${CACHE:?names a cache}" --run "$run" --device "$where" \
      --set "decoder.kind=$kind" --set 'decoder.columns=["avgpool"]' --set train.steps=50 --set train.log_every=1 \
      --set train.validate_every=1000 --set train.learning_rate=1e-4 "$@" > "$run.out" 2>&1 || { echo "$run failed:"; tail -5 "$run.out"; }
  }
  still=(--set decoder.dropout=0.0)
  for kind in gpt2 lstm attention-lstm; do
    more=("${still[@]}")
    [ $kind = gpt2 ] && more+=(--set decoder.attention_dropout=0.0)
    one "$kind" "$kind-cpu" cpu "${more[@]}"
    one "$kind" "$kind-f32" "$device" "${more[@]}" --set train.precision=f32
    [ $kind = gpt2 ] && one "$kind" "$kind-bf16" "$device" "${more[@]}" --set train.precision=bf16
  done
  "$python" - "$work" <<'P'
import json, sys
from pathlib import Path
def losses(run):
    path = Path(sys.argv[1]) / run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line["loss"] for line in lines if "loss" in line]
for kind in ("gpt2", "lstm", "attention-lstm"):
    base = losses(f"{kind}-cpu")
    for other in ("f32", "bf16"):
        found = losses(f"{kind}-{other}")
        if found and base:
            apart = max(abs(a - b) for a, b in zip(base, found))
            print(f"{kind:15} {other:5} against f32 on the CPU, loss of {len(found)} steps {base[0]:.3f} -> {base[-1]:.3f}: at most {apart:.2e} apart", flush=True)
P
fi
unset NVIDIA_TF32_OVERRIDE
if asked wait; then # how long the device waited for rows: held on it, and gathered from the cache
  for hold in true false; do
    run=$work/wait-$hold
    "$icecap" train pipelines/flickr8k-attention.toml --cache "${CACHE:?names a cache}" --run "$run" --device "$device" \
      --set "train.steps=$((4 * steps))" --set "train.log_every=$((2 * steps))" --set train.validate_every=1000 --set "train.hold=$hold" \
      > "$run.out" 2>&1 || tail -5 "$run.out"
    "$python" - "$run/metrics.jsonl" "$hold" <<'P'
import json, sys
line = [line for line in map(json.loads, open(sys.argv[1])) if "waited" in line][-1]
where = "held on the device" if sys.argv[2] == "true" else "gathered from the cache"
print(f"attention-lstm, 7x7 {where}: {line['tokens_per_second']:.0f} tokens/s, waited {100 * line['waited']:.2f}% of a step", flush=True)
P
  done
fi
asked lstm && "$python" benches/train_lstm_torch.py --device "$device" --steps "$steps"
asked small && for precision in f32 $half; do
  echo "gpt2 small, $precision:"; "$python" benches/train_gpt2_torch.py --model small --device "$device" --precision $precision --steps "$steps" --rounds 1
done
asked 124M && { echo "124M, $half, 40 captions:"; "$python" benches/train_gpt2_torch.py --model 124M --device "$device" --precision $half --steps "$steps" --rounds 1; }
asked large && { echo "124M, $half, ${LARGE:-1000} captions:"; "$python" benches/train_gpt2_torch.py --model 124M --device "$device" --precision $half --steps "$((steps / 4 + 3))" --rounds 1 --batch "${LARGE:-1000}"; }
asked compiled && { echo "124M, $half, ${LARGE:-1000} captions, compiled:"; "$python" benches/train_gpt2_torch.py --model 124M --device "$device" --precision $half --steps 12 --rounds 1 --batch "${LARGE:-1000}" --compile; }
true
