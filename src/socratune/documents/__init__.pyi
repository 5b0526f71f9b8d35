from .arango_place import place_of as place_of
from .document import Passage as Passage
from .duplicate_questions import asked_before as asked_before
from .gathering import (
    DATABASES as DATABASES,
    Gathered as Gathered,
    cut_passages as cut_passages,
    gather_passages as gather_passages,
    linked_documents as linked_documents,
    read_passages as read_passages,
    source_faults as source_faults,
    source_hash as source_hash,
)
from .graph import Edge as Edge, Graph as Graph
from .grounding import injection_in as injection_in
from .passages import estimated_tokens as estimated_tokens, token_counter as token_counter
from .writers import (
    Writers as Writers,
    as_journal_value as as_journal_value,
    attending_writers as attending_writers,
    checked_draft as checked_draft,
)
from .writing import Draft as Draft, Task as Task, questions_by_type as questions_by_type
