from .clusters import (
    Clusters as Clusters,
    Recall as Recall,
    SplitPart as SplitPart,
    contaminated_kin as contaminated_kin,
    drop_contaminated as drop_contaminated,
    settle_parts as settle_parts,
)
from .duplicates import Marks as Marks, wording_of as wording_of
from .qa_files import (
    Screen as Screen,
    commit_of as commit_of,
    data_path as data_path,
    data_set as data_set,
    forget_data_sets as forget_data_sets,
    hub_name as hub_name,
    read_qa_rows as read_qa_rows,
)
from .records import Unreadable as Unreadable, read_records as read_records
from .shapes import parse_row as parse_row
from .tally import FaultTally as FaultTally
