from .cast import assemble_cast as assemble_cast
from .gepa import evolve_instruction as evolve_instruction, with_instruction as with_instruction
from .hints import (
    HintRequest as HintRequest,
    arithmetic_teacher as arithmetic_teacher,
    leak as leak,
    parse_product as parse_product,
    split_tens as split_tens,
)
from .leaks import hint_uses as hint_uses, leak_rate as leak_rate, measure_hints as measure_hints
from .loop import (
    Loop as Loop,
    Rules as Rules,
    answer_pieces as answer_pieces,
    enhance_row as enhance_row,
    last_wrong_answer as last_wrong_answer,
    rejection as rejection,
    training_text as training_text,
)
from .student import (
    ServedStudent as ServedStudent,
    Student as Student,
    accuracy as accuracy,
    answer_and_judge as answer_and_judge,
    attending_student as attending_student,
    counted_from as counted_from,
    draw_seed as draw_seed,
    served_student as served_student,
)
