select
    invocation_id, parent_invocation_id, chute_id, chute_user_id, function_name, image_id, image_user_id, instance_id,
    miner_uid, miner_hotkey, started_at, completed_at, error_message, compute_multiplier, bounty,
    metrics as "metrics: Json<Metrics>"
from invocations
where export_hour = $1
order by started_at, invocation_id
