from .adapters import lora_config as lora_config, peft_faults as peft_faults
from .checkpoints import disk_faults as disk_faults
from .distil import Distilled as Distilled
from .fit import (
    TrainingJob as TrainingJob,
    fit_adapter as fit_adapter,
    graded_students as graded_students,
    sweep_rates as sweep_rates,
    unsloth_faults as unsloth_faults,
)
from .grokking import Point as Point, grokking_outlook as grokking_outlook, grokking_phases as grokking_phases
from .grpo import Sampled as Sampled, advantages as advantages
from .labels import control_faults as control_faults, label_faults as label_faults
from .layers import layer_faults as layer_faults
from .monitor import Exam as Exam, tracker_faults as tracker_faults
from .preference import Pair as Pair
from .replay import FEWEST_ROWS as FEWEST_ROWS, own_answers as own_answers
from .steps import length_and_decay as length_and_decay, warmup_steps as warmup_steps
from .unsloth import UNSLOTH_LINEAR as UNSLOTH_LINEAR
from .weights import Weighted as Weighted, answer_weight as answer_weight
