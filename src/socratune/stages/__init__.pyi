from .curate import curate_traces as curate_traces
from .enhance import enhance_result as enhance_result, enhance_rows as enhance_rows, rows_of_shard as rows_of_shard
from .estimate import estimate_loop as estimate_loop, estimate_source as estimate_source, trained_rows as trained_rows
from .export_rows import export_training as export_training
from .generate import GeneratedFiles as GeneratedFiles, generate_questions as generate_questions
from .items import method_faults as method_faults
from .pooling import pooled_figures as pooled_figures
from .publish import (
    check_gate as check_gate,
    hub_access_fault as hub_access_fault,
    hub_id_fault as hub_id_fault,
    prepared_upload as prepared_upload,
    publish_adapter as publish_adapter,
)
from .split import split_rows as split_rows
from .train import judged_by_rules as judged_by_rules, train_adapter as train_adapter
from .train_on_cards import gpus_fault as gpus_fault, rank_count as rank_count, train_on_ranks as train_on_ranks
from .validate import validate_adapter as validate_adapter
