from .adapter_files import WEIGHTS as WEIGHTS, adapter_manifest as adapter_manifest, file_integrity as file_integrity
from .audit import Rate as Rate, audit_verdicts as audit_verdicts
from .audit_sheet import (
    draw_audit_sheet as draw_audit_sheet,
    read_labels as read_labels,
    recorded_judge as recorded_judge,
    reported_by as reported_by,
)
from .compared import compare_logs as compare_logs, compared_rows as compared_rows
from .comparison import (
    FREQUENT as FREQUENT,
    NEARLY_ALL as NEARLY_ALL,
    against_the_majority as against_the_majority,
    answer_rows as answer_rows,
    told_of_questions as told_of_questions,
)
from .deriving import (
    checked_answer_rows as checked_answer_rows,
    judge_warnings as judge_warnings,
    tests_on_answers as tests_on_answers,
)
from .exam import (
    EXAMS as EXAMS,
    Answered as Answered,
    Sitting as Sitting,
    answering_manner as answering_manner,
    exam_files as exam_files,
    exam_papers as exam_papers,
    recorded_answers as recorded_answers,
    take_exam as take_exam,
    take_exam_only as take_exam_only,
)
from .forgetting import no_judge as no_judge
from .gate import (
    Proof as Proof,
    proof_of as proof_of,
    verdict_headline as verdict_headline,
    verdict_on as verdict_on,
    why_not_passed as why_not_passed,
)
from .lm_tasks import lm_eval_fault as lm_eval_fault
from .opening_logs import is_run_folder as is_run_folder, open_log as open_log, open_logs as open_logs
from .pinning import pin_adapter as pin_adapter, pin_training as pin_training, with_pins as with_pins
from .question_sets import forgetting_rows as forgetting_rows, read_prompts as read_prompts
from .stats import (
    FEW_CLUSTERS as FEW_CLUSTERS,
    FEWEST_CLUSTERS as FEWEST_CLUSTERS,
    Detectable as Detectable,
    compare_paired as compare_paired,
    detectable as detectable,
    paired_difference as paired_difference,
    rows_needed as rows_needed,
    t_interval as t_interval,
    total_interval as total_interval,
)
from .verifying import Verification as Verification, answers_differ as answers_differ, verify_run as verify_run
