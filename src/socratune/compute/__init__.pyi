from .decision import may_rent as may_rent
from .outbound import local_only_faults as local_only_faults, stay_offline as stay_offline
from .outlook import look_at_rows as look_at_rows, loop_outlook as loop_outlook
from .paid import paid_notice as paid_notice
from .plan import Plan as Plan, budget_of as budget_of, make_plan as make_plan, settle_placement as settle_placement
from .pods import adopt_pod as adopt_pod, owned_pods as owned_pods, pod_service as pod_service, reap_pods as reap_pods
from .ray import enhance_on_ray as enhance_on_ray, ray_fault as ray_fault
from .remote_run import RemoteRun as RemoteRun
from .renting import spent_usd as spent_usd
from .shipping import is_shipped as is_shipped
from .sky import BySkyPilot as BySkyPilot, sky_task as sky_task, sky_task_name as sky_task_name
from .starting import starting_config as starting_config
