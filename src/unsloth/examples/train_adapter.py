"""Steps 3 to 5 of the guide on the embedded model: train with the guide's configuration, then prove it.

    python src/unsloth/examples/train_adapter.py [OUTPUT]

Takes a quarter of a minute.
"""

import sys

import socratune
from socratune import EnhancedTrainingConfig

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"What is {first} * {second}?"},
            {"role": "assistant", "content": f"{first} * {second} = {first * second}."},
        ]
    }
    for first in range(12, 99, 2)
    for second in range(13, 99, 14)
]

if __name__ == "__main__":
    output = sys.argv[1] if len(sys.argv) > 1 else "outputs/example"
    config = EnhancedTrainingConfig(
        model_name="demo",  # or "unsloth/Phi-3.5-mini-instruct"
        max_seq_length=256,
        r=16,
        lora_alpha=32,
        num_train_epochs=4,
        learning_rate=3e-3,  # for a model of 0.4 million parameters
    )
    result = socratune.run(dataset=ROWS, output=output, train=config)
    print(f"status: {result.status}\nadapter: {result.adapter_path}\nreport: {result.report()}")
    print(result)
