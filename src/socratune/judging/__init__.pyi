from .choices import choice_of as choice_of, options_in as options_in
from .guard import Judge as Judge, undecided_on_error as undecided_on_error
from .quantities import (
    NUMBER_WORDS as NUMBER_WORDS,
    Quantity as Quantity,
    joined_quantities_in as joined_quantities_in,
    quantities_in as quantities_in,
    with_digits as with_digits,
)
from .rules import can_judge as can_judge, judge_by_rules as judge_by_rules, mechanical_judge as mechanical_judge
from .text import (
    Statement as Statement,
    canonical as canonical,
    final_answer as final_answer,
    final_number as final_number,
    is_numeric_answer as is_numeric_answer,
    loose_numbers_in as loose_numbers_in,
    normalise as normalise,
    numbers_in as numbers_in,
    parse_number as parse_number,
    plain_text as plain_text,
    statement_of as statement_of,
    still_thinking as still_thinking,
    strip_thinking as strip_thinking,
    taken_back as taken_back,
)
