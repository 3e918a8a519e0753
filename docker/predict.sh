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

# the folder is the container's: what an earlier one left there, without its notes, may be replaced,
# and is until then kept; a case that is noted without a key was begun and is done anew
if [ ! -e "$outputs/done.jsonl" ] && [ -w "$outputs" ]; then
  for scan in "$inputs"/*; do
    name=${scan##*/}
    case=$name
    for ending in .nii.gz .nii .mha .mhd .nrrd; do case=${case%"$ending"}; done
    printf '{"case": "%s"}\n' "${case%_0000}"
  done >"$outputs/done.jsonl"
fi
# the shell is process 1 of the container and gets its signals; flarekd must end, and cleanly
flarekd infer "$inputs" --model "$model" --out "$outputs" --device auto &
flarekd=$!
trap 'kill -TERM "$flarekd" || :' TERM INT
status=0
wait "$flarekd" || status=$?
while kill -0 "$flarekd" 2>/dev/null; do # a signal ends the wait, not what is waited for
  status=0
  wait "$flarekd" || status=$?
done
# whoever scores the folder wants label maps in it and nothing else
rm -f "$outputs/report.json" "$outputs/done.jsonl" "$outputs/labels.txt" "$outputs/labels.ctbl"
exit "$status"
