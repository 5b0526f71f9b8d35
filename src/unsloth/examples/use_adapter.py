"""Step 6 of the guide, corrected: load an adapter onto its base and ask it.

    python src/unsloth/examples/use_adapter.py OUTPUT "What is 47 * 83?"

The guide's `FastLanguageModel.from_pretrained(base, adapter_name=…)` loads the base alone, without a warning. With
Unsloth, pass the adapter as the model: `FastLanguageModel.from_pretrained("OUTPUT/adapter")`.
"""

import sys

from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from socratune import model_location

if __name__ == "__main__":
    adapter, question = f"{sys.argv[1]}/adapter", sys.argv[2]
    base = model_location(str(PeftConfig.from_pretrained(adapter).base_model_name_or_path))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**prompt.to(model.device), max_new_tokens=200, do_sample=False)
    print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
