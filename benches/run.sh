#!/usr/bin/env bash
# All benchmarks, one after the other. Each prints one table; RESULTS.md keeps them with date and machine.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
for bench in parity.py reading.py stage_one.py; do
  printf '\n== benches/%s\n' "$bench"
  "$python" "benches/$bench" || echo "(that one failed)"
done
data=${ICECAP_DATA:-../shared/data}
coco=$data/captions/captions_val2017.json
if [ -f "$coco" ]; then
  printf '\n== benches/metrics_parity.py, COCO val2017\n'
  "$python" benches/metrics_parity.py --captions "$coco" --java || echo "(that one failed)"
fi
captions=$data/flickr8k/Flickr8k.token.txt
if [ -f "$captions" ]; then
  for mode in "" --speed; do
    printf '\n== benches/metrics_parity.py %s\n' "$mode"
    "$python" benches/metrics_parity.py --captions "$captions" $mode || echo "(that one failed)"
  done
fi
printf '\n== benches/train_lstm_torch.py\n'
"$python" benches/train_lstm_torch.py || echo "(that one failed)"
