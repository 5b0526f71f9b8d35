from .naming import environment as environment, environment_faults as environment_faults
from .verifying_answers import environment_judge as environment_judge, environment_of as environment_of
from .writing_rows import write_environment_rows as write_environment_rows
