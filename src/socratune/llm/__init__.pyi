from .asked import (
    FIELDS as FIELDS,
    AskedModel as AskedModel,
    asked_models as asked_models,
    note_asked as note_asked,
    shown_host as shown_host,
    terms_of as terms_of,
)
from .base import (
    WARM as WARM,
    Chat as Chat,
    ChatModel as ChatModel,
    Completion as Completion,
    Sampling as Sampling,
    Stop as Stop,
    StudentEngine as StudentEngine,
    choose_sampling as choose_sampling,
    exam_sampling as exam_sampling,
    is_thinking as is_thinking,
    served_sampling as served_sampling,
)
from .batch_checks import batch_faults as batch_faults, batch_shares as batch_shares
from .batch_wire import BATCH_TIMES as BATCH_TIMES
from .budget import (
    Budget as Budget,
    budget_faults as budget_faults,
    budget_text as budget_text,
    shared_out as shared_out,
)
from .child import (
    child_process as child_process,
    end_of_log as end_of_log,
    free_port as free_port,
    is_well as is_well,
    told_by_log as told_by_log,
)
from .ledger import (
    FREE as FREE,
    UNLIMITED as UNLIMITED,
    BudgetSpent as BudgetSpent,
    Ledger as Ledger,
    Limits as Limits,
    MeteredModel as MeteredModel,
    Price as Price,
    tally_calls as tally_calls,
)
from .locate import (
    Base as Base,
    chat_template as chat_template,
    default_template as default_template,
    hub_name_of as hub_name_of,
    is_here as is_here,
    is_path as is_path,
    local_name as local_name,
    model_fault as model_fault,
    model_file as model_file,
    model_json as model_json,
    model_location as model_location,
    model_revision as model_revision,
    source_of as source_of,
    weights_fingerprint as weights_fingerprint,
    weights_hash as weights_hash,
)
from .markers import Find as Find, usual_markers as usual_markers
from .places import MOST_ROWS as MOST_ROWS, Places as Places
from .prompts import (
    CHECKER_SCHEMA as CHECKER_SCHEMA,
    EVIDENCE_NOTE as EVIDENCE_NOTE,
    GENERIC_PROMPTS as GENERIC_PROMPTS,
    HINT_NOTE as HINT_NOTE,
    PICK_SCHEMA as PICK_SCHEMA,
    REFERENCE_NOTE as REFERENCE_NOTE,
    WRITER_SCHEMA as WRITER_SCHEMA,
    grounding_messages as grounding_messages,
    judge_messages as judge_messages,
    parse_grounded as parse_grounded,
    parse_hint as parse_hint,
    parse_pick as parse_pick,
    parse_questions as parse_questions,
    parse_verdict as parse_verdict,
    pick_messages as pick_messages,
    solver_messages as solver_messages,
    teacher_messages as teacher_messages,
    with_examples as with_examples,
    with_hint_turn as with_hint_turn,
    with_private_evidence as with_private_evidence,
    with_private_hint as with_private_hint,
    with_private_reference as with_private_reference,
    with_system_prompt as with_system_prompt,
    writer_messages as writer_messages,
)
from .proxies import host_of as host_of, is_this_machine as is_this_machine, proxy_of as proxy_of
from .references import (
    JUDGE_SAMPLING as JUDGE_SAMPLING,
    NOBODY as NOBODY,
    OF_ROWS as OF_ROWS,
    RULES as RULES,
    TEACHER_SAMPLING as TEACHER_SAMPLING,
    ClosableModel as ClosableModel,
    Endpoint as Endpoint,
    LocalModel as LocalModel,
    Role as Role,
    called_safely as called_safely,
    connected_model as connected_model,
    endpoints_of as endpoints_of,
    load_function as load_function,
    module_of as module_of,
    price_at as price_at,
    price_fault as price_fault,
    reached_model as reached_model,
    reference_fault as reference_fault,
    reference_to as reference_to,
    resolve_alias as resolve_alias,
    student_of as student_of,
    teacher_of as teacher_of,
    thoughtful as thoughtful,
    writer_endpoints as writer_endpoints,
)
from .unpacked import GgufSource as GgufSource, cache_folder as cache_folder
from .vendors import TERMS_READ as TERMS_READ
from .vllm import (
    VLLM_ENVIRONMENT as VLLM_ENVIRONMENT,
    vllm_args_fault as vllm_args_fault,
    vllm_arguments as vllm_arguments,
    vllm_fault as vllm_fault,
    vllm_serving as vllm_serving,
)
