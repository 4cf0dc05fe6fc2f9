insert into invocations (
    invocation_id, parent_invocation_id, chute_id, chute_user_id, function_name, user_id, api_key_id, image_id,
    image_user_id, instance_id, miner_uid, miner_hotkey, started_at, completed_at, error_message, compute_multiplier,
    metrics, outcome, delivered, export_hour, content_hash
)
select * from unnest(
    $1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::uuid[], $7::uuid[], $8::uuid[],
    $9::uuid[], $10::uuid[], $11::integer[], $12::text[], $13::timestamptz[], $14::timestamptz[], $15::text[],
    $16::double precision[], $17::jsonb[], $18::text[], $19::boolean[], $20::timestamptz[], $21::bytea[]
)
