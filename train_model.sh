#!/bin/bash
# The guide's end-to-end script. Each value can be given from outside: MODEL=demo DATASET=demo HUB_ID= ./train_model.sh
cd "$(dirname "$0")" || exit

# Configuration
MODEL="${MODEL:-unsloth/Phi-3.5-mini-instruct}"
DATASET="${DATASET:-/data/qa_unsloth_latest.jsonl}"
OUTPUT="${OUTPUT:-./outputs/phi35_student_teacher}"
HUB_ID="${HUB_ID-myorg/phi-3.5-enhanced-v1}" # empty: nothing is published

# Run pipeline; further flags of socratune run are passed on
python -m src.unsloth.pipeline.complete_training_pipeline \
    --model "$MODEL" \
    --dataset "$DATASET" \
    --output "$OUTPUT" \
    ${HUB_ID:+--hub-id "$HUB_ID"} "$@"
code=$?

# Check results
if [ -e "$OUTPUT/pipeline_results.json" ]; then
    if command -v jq >/dev/null; then
        jq .status <"$OUTPUT/pipeline_results.json"
    else
        python -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["status"]))' <"$OUTPUT/pipeline_results.json"
    fi
fi
exit $code
