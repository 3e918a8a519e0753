#!/bin/sh
# Segment every <case>_0000.nii.gz of a folder into <case>.nii.gz of another.
#
#   sh predict.sh [INPUTS [OUTPUTS [MODEL]]]
#
# Ends as flarekd infer ends: 0 done, 4 some scans failed (the rest is written).
set -eu
inputs=${1:-/workspace/inputs}
outputs=${2:-/workspace/outputs}
model=${3:-/workspace/model.safetensors}

status=0
flarekd infer "$inputs" --model "$model" --out "$outputs" --device auto || status=$?
# whoever scores the folder wants label maps in it and nothing else
rm -f "$outputs/report.json" "$outputs/done.jsonl" "$outputs/labels.txt" "$outputs/labels.ctbl"
exit "$status"
