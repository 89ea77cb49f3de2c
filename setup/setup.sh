#!/usr/bin/env bash
# Makes .venv (torch, torchvision, ONNX Runtime, ...) from a lock file with hashes, and .dev/libtorch for the build.
# Can be run at any time: it does nothing when all is in place, and starts afresh where an earlier run was broken off.
#   GPU=1        take ONNX Runtime with its CUDA provider (the default where an NVIDIA driver is found; GPU=0 refuses it)
#   EXTRAS=bench what the benchmarks compare against (h5py, pycocoevalcap)
#   EXTRAS=metrics METEOR and SPICE for `icecap evaluate` (pycocoevalcap; they run in Java)
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$1" >&2; [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2; exit 1; }

python=${PYTHON:-python3}
command -v "$python" >/dev/null || die "\`$python\` was not found" "install Python 3.11 or newer, or set PYTHON"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  die "\`$python\` is $("$python" -V 2>&1), icecap's set-up needs 3.11 or newer" "install one and set PYTHON=/path/to/python3"

gpu=${GPU:-}
# What was chosen once stays chosen: a later `make test` doesn't fetch the other one.
if [ -z "$gpu" ]; then gpu=$(cat .venv/icecap-gpu 2>/dev/null || true); fi
if [ -z "$gpu" ]; then if [ -e /proc/driver/nvidia/version ]; then gpu=1; else gpu=0; fi; fi
lock=setup/requirements.lock
[ "$gpu" = 0 ] || lock=setup/requirements-gpu.lock

want=$({ "$python" -V; cat "$lock"; } | "$python" -c 'import hashlib,sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
stamp=.venv/icecap-setup

ensure_uv() {
  uv=.dev/uv/bin/uv
  "$uv" --version >/dev/null 2>&1 && return
  say "installing uv into .dev/uv"
  rm -rf .dev/uv && mkdir -p .dev
  "$python" -m venv .dev/uv || die "\`$python -m venv\` failed" "install Python's venv module (Debian: apt install python3-venv)"
  .dev/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r setup/requirements-uv.lock ||
    die "uv could not be installed from PyPI" "check the network, then run the same command again"
}

if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ] || ! .venv/bin/python -c '' 2>/dev/null; then
  ensure_uv
  # A .venv that works is brought up to date, and stays where that fails. One that doesn't, or in which an installation was
  # killed half-way, is made anew.
  if [ ! -e .venv/icecap-installing ] && [ "$(.venv/bin/python -V 2>/dev/null)" = "$("$python" -V)" ]; then
    say "bringing .venv up to date with $lock"
  else
    say "making .venv from $lock (torch brings about 5 GB)"
    rm -rf .venv
    "$uv" venv --quiet --no-project --python "$python" .venv
  fi
  rm -f "$stamp" && : > .venv/icecap-installing
  installed=1
  "$uv" pip sync --quiet --python .venv/bin/python --require-hashes "$lock" || installed=0
  rm -f .venv/icecap-installing
  [ "$installed" = 1 ] ||
    die "the packages of $lock could not be installed" "check the network and the disk (6 GB), then run the same command again"
  printf '%s\n' "$gpu" > .venv/icecap-gpu
  printf '%s\n' "$want" > "$stamp"
fi

if [ -n "${EXTRAS:-}" ]; then
  extra=setup/requirements-$EXTRAS.lock
  [ -f "$extra" ] || die "no extras are called \`$EXTRAS\`" "known: $(cd setup && ls requirements-*.lock | sed 's/requirements-//; s/\.lock//' | grep -v -e gpu -e uv | tr '\n' ' ')"
  ensure_uv
  "$uv" pip install --quiet --python .venv/bin/python --require-hashes -r "$extra"
  if [ "$EXTRAS" = metrics ] && ! command -v java >/dev/null; then
    say "\`java\` was not found: METEOR and SPICE need one (Debian: apt install default-jre-headless)"
  fi
fi

torch=$(echo .venv/lib/python3*/site-packages/torch)
[ -f "$torch/lib/libtorch_cpu.so" ] || die "\`$torch/lib/libtorch_cpu.so\` is missing" "remove .venv and run the same command again"
mkdir -p .dev
if [ "$(readlink .dev/libtorch 2>/dev/null)" != "../$torch" ]; then ln -sfn "../$torch" .dev/libtorch; fi
