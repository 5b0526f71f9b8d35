from .arms import chosen_arms as chosen_arms
from .bench import AblationLimits as AblationLimits, compare_ways as compare_ways
from .crossfit import tested_by_folds as tested_by_folds
from .report import ARM_HEADS as ARM_HEADS, arm_cells as arm_cells, arms_not_done as arms_not_done
