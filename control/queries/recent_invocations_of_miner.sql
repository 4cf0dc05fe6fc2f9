select
    invocation_id, parent_invocation_id, chute_id, chute_user_id, function_name, image_id, image_user_id, instance_id,
    miner_uid, miner_hotkey, started_at, completed_at, error_message, compute_multiplier, bounty,
    metrics as "metrics: Json<Metrics>"
from invocations
where started_at > $1 and error_message is null and miner_hotkey = $3
order by started_at desc, invocation_id
limit $2
