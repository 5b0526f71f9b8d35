from .naming import environment_faults as environment_faults
from .verifying_answers import environment_judge as environment_judge
from .writing_rows import write_environment_rows as write_environment_rows
