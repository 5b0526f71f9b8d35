#!/bin/sh
# The guide's end-to-end script. As it stands it runs on the embedded model and data; put your own in.
set -eu

MODEL=${MODEL:-demo}          # e.g. unsloth/Phi-3.5-mini-instruct
DATASET=${DATASET:-demo}      # e.g. /data/qa_unsloth_latest.jsonl
OUTPUT=${OUTPUT:-./outputs/train_model}
HUB_ID=${HUB_ID:-}            # e.g. myorg/phi-3.5-enhanced-v1; empty: do not publish

python -m socratune.pipeline \
    --model "$MODEL" \
    --dataset "$DATASET" \
    --output "$OUTPUT" \
    ${HUB_ID:+--hub-id "$HUB_ID"}

# The verdict; jq -r .status "$OUTPUT/pipeline_results.json" where jq is installed.
python -c 'import json, sys; print(json.load(open(sys.argv[1]))["status"])' "$OUTPUT/pipeline_results.json"
