-- The record of attempts, what is counted from it, and the hourly files made of it.
--
-- Nothing here refers to users, chutes or instances by constraint: the record outlives them and must never be refused.

create table invocations (
    invocation_id uuid not null,
    parent_invocation_id uuid not null,
    chute_id uuid not null,
    chute_user_id uuid not null,
    function_name text not null,
    user_id uuid not null,
    api_key_id uuid,
    image_id uuid not null,
    image_user_id uuid not null,
    instance_id uuid not null,
    miner_uid integer not null,
    miner_hotkey text not null,
    started_at timestamptz not null,
    completed_at timestamptz not null,
    -- none for an attempt that is paid
    error_message text,
    compute_multiplier double precision not null,
    bounty integer not null default 0 constraint invocations_bounty_range check (bounty >= 0),
    metrics jsonb,
    outcome text not null constraint invocations_outcome_known check (outcome in ('finished', 'failed', 'aborted', 'lost')),
    delivered boolean not null,
    -- the end of the window whose file holds the row; given once, at insert
    export_hour timestamptz not null,
    -- of the record as it arrived, to tell a repetition from a contradiction
    content_hash bytea not null constraint invocations_hash_length check (length(content_hash) = 32),
    constraint invocations_pkey primary key (invocation_id, started_at)
) partition by range (started_at);

-- A net for times that no weekly partition holds; `ingest_usage` makes those ahead.
create table invocations_default partition of invocations default;

create index invocations_by_export on invocations (export_hour, started_at, invocation_id);
create index invocations_by_start on invocations (started_at);
create index invocations_by_miner on invocations (miner_hotkey, started_at);

-- Usage entries that nobody could read, once each.
create table usage_rejects (
    content_hash bytea constraint usage_rejects_pkey primary key,
    entry_id text not null,
    writer_id uuid,
    sequence bigint,
    reason text not null,
    raw bytea not null,
    received_at timestamptz not null
);

-- What each record log has confirmed.
create table log_writers (
    writer_id uuid constraint log_writers_pkey primary key,
    -- highest contiguous sequence that is in `invocations` or `usage_rejects`
    mark bigint not null constraint log_writers_mark_range check (mark >= 0),
    -- everything completed before it is at or below the mark; before the first beat, when the writer was first heard of
    clock timestamptz not null,
    closed boolean not null,
    first_seen timestamptz not null,
    last_seen timestamptz not null
);

-- Moving averages of each chute (`domain::pace`); its row lock orders the attempts of a chute.
create table pace (
    chute_id uuid constraint pace_pkey primary key,
    averages jsonb not null
);

-- Calls that count against a daily allowance.
create table quota_usage (
    user_id uuid not null,
    day date not null,
    -- `*`, or the id of a chute
    bucket text not null,
    calls bigint not null constraint quota_usage_calls_range check (calls >= 0),
    constraint quota_usage_pkey primary key (user_id, day, bucket)
);

create table reports (
    -- the call, that is the parent of attempts
    invocation_id uuid constraint reports_pkey primary key,
    user_id uuid not null,
    timestamp timestamptz not null,
    confirmed_at timestamptz,
    confirmed_by uuid,
    reason text not null,
    -- the ends of the windows whose files hold the report and its confirmation
    export_hour timestamptz not null,
    confirmed_export_hour timestamptz,
    constraint reports_confirmed_whole check ((confirmed_at is null) = (confirmed_export_hour is null))
);
create index reports_by_export on reports (export_hour);
create index reports_by_confirmed_export on reports (confirmed_export_hour) where confirmed_export_hour is not null;

-- Hours by the end of their window, without gaps from the first the platform worked in; only the newest is open.
create table export_hours (
    hour timestamptz constraint export_hours_pkey primary key constraint export_hours_whole check (hour = date_trunc('hour', hour, 'UTC')),
    closed_at timestamptz
);
create unique index export_hours_one_open on export_hours ((closed_at is null)) where closed_at is null;

-- Files that lie in the object store for good.
create table exports (
    hour timestamptz not null constraint exports_hour_exists references export_hours,
    kind text not null constraint exports_kind_known check (kind in ('invocations', 'reports', 'jobs')),
    sha256 text not null constraint exports_sha256_form check (sha256 ~ '^[0-9a-f]{64}$'),
    rows bigint not null,
    written_at timestamptz not null,
    constraint exports_pkey primary key (hour, kind)
);
