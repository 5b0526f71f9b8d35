from . import ranks as ranks
from .cards import (
    FREE_SHARE as FREE_SHARE,
    Card as Card,
    answering_s as answering_s,
    card_named as card_named,
    free_gib_by_card as free_gib_by_card,
    rentable as rentable,
    training_flops as training_flops,
    training_s as training_s,
)
from .controls import Tokenizer as Tokenizer, controls_of as controls_of
from .decoding.compilers import hush_compilers as hush_compilers
from .fitness import (
    RowScreen as RowScreen,
    chat_fitness as chat_fitness,
    has_tokenizer as has_tokenizer,
    load_tokenizer as load_tokenizer,
)
from .known import note as note, recall as recall
from .load import load_model as load_model
from .memory import (
    CONTEXT_GIB as CONTEXT_GIB,
    ENOUGH_TOKENS as ENOUGH_TOKENS,
    GIB as GIB,
    HEADROOM as HEADROOM,
    Shape as Shape,
    Training as Training,
    base_dtype as base_dtype,
    free_gib as free_gib,
    plan_memory as plan_memory,
    torch_device as torch_device,
    training_gib as training_gib,
    training_in_words as training_in_words,
)
from .provenance import (
    foreign_fault as foreign_fault,
    identity as identity,
    mean_kl as mean_kl,
    student_grade as student_grade,
    trace_writers as trace_writers,
    with_sampling as with_sampling,
)
from .ranks import is_sharded as is_sharded, refuse_sharded as refuse_sharded, whole_on_each_rank as whole_on_each_rank
from .sizes import Size as Size, model_on_meta as model_on_meta, size_of as size_of
from .student import LocalModels as LocalModels, LocalStudent as LocalStudent, serving_student as serving_student
from .template import (
    IGNORE as IGNORE,
    Rendered as Rendered,
    answer_place as answer_place,
    end_of_turn_id as end_of_turn_id,
    prompt_ids as prompt_ids,
    prompt_text as prompt_text,
    render as render,
)
