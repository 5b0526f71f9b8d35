from .encoding import json_decode as json_decode, json_encode as json_encode
from .folder import (
    Results as Results,
    RunDir as RunDir,
    StageResult as StageResult,
    Tick as Tick,
    at_work as at_work,
    existing_run as existing_run,
    export_place as export_place,
    file_hash as file_hash,
    file_state as file_state,
    fingerprint as fingerprint,
    iter_rows as iter_rows,
    locked_file as locked_file,
    output_fault as output_fault,
    read_jsonl as read_jsonl,
    read_rows as read_rows,
    system_turn as system_turn,
    whole_folder as whole_folder,
    write_json as write_json,
    write_jsonl as write_jsonl,
    write_lines as write_lines,
    write_rejected as write_rejected,
    write_text as write_text,
)
from .journal import BatchNote as BatchNote, Journal as Journal, journal_error as journal_error
from .pins import PROVENANCE as PROVENANCE, Pin as Pin, pin as pin, pins_faults as pins_faults, read_pins as read_pins
from .progress import (
    NEEDED as NEEDED,
    OUTPUTS as OUTPUTS,
    STAGES as STAGES,
    Tell as Tell,
    after_split as after_split,
    do_stage as do_stage,
    ending_noted as ending_noted,
    file_hashes as file_hashes,
    first_stage_of as first_stage_of,
    forget_from as forget_from,
    former_defaults as former_defaults,
    is_incomplete as is_incomplete,
    refuse_other_data as refuse_other_data,
    refuse_other_documents as refuse_other_documents,
    settle_config as settle_config,
    stage_faults as stage_faults,
)
from .review import (
    Review as Review,
    ReviewDecision as ReviewDecision,
    record_decision as record_decision,
    review_decisions as review_decisions,
    review_fault as review_fault,
    take_over_reviews as take_over_reviews,
)
from .runner import HasId as HasId, map_rows as map_rows
from .shards import (
    divided_limits as divided_limits,
    gather_shards as gather_shards,
    hand_out_shard as hand_out_shard,
    interleaved as interleaved,
    parse_shard as parse_shard,
    pool_hint_measures as pool_hint_measures,
    shard_rows as shard_rows,
    take_over_journal as take_over_journal,
)
