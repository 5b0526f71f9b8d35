from .student import (
    accuracy as accuracy,
    answer_and_judge as answer_and_judge,
    counted_from as counted_from,
    draw_seed as draw_seed,
)
from .cast import assemble_cast as assemble_cast
from .hints import parse_product as parse_product, split_tens as split_tens
from .leaks import hint_uses as hint_uses, leak_rate as leak_rate, measure_hints as measure_hints
from .loop import Loop as Loop, Rules as Rules, enhance_row as enhance_row
from .student import (
    ServedStudent as ServedStudent,
    Student as Student,
    attending_student as attending_student,
    served_student as served_student,
)
from .loop import (
    answer_pieces as answer_pieces,
    last_wrong_answer as last_wrong_answer,
    rejection as rejection,
    training_text as training_text,
)
