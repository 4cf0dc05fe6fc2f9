-- Who may call what, where it runs, and what has changed since the last publishing.
--
-- Rows that gateways know carry a version. It grows with each change under the row's lock, so that an older
-- state never replaces a newer one in Redis.

create table users (
    user_id uuid constraint users_pkey primary key,
    username text not null constraint users_username_form check (username ~ '^[a-zA-Z0-9_-]{3,15}$'),
    fingerprint_hash text not null constraint users_fingerprint_unique unique,
    generation integer not null default 1,
    permissions bigint not null default 0 constraint users_permissions_range check (permissions >= 0),
    rate_per_minute integer constraint users_rate_range check (rate_per_minute > 0),
    max_concurrent integer constraint users_concurrent_range check (max_concurrent > 0),
    version bigint not null default 1,
    created_at timestamptz not null,
    deleted_at timestamptz
);
-- Image ids are made from the lower-cased name. A deleted user keeps the name: ids are made from it.
create unique index users_username_unique on users (lower(username));

-- A hotkey outlives the account that gave it up, so that its version goes on growing.
create table hotkeys (
    hotkey text constraint hotkeys_pkey primary key,
    user_id uuid constraint hotkeys_user_unique unique constraint hotkeys_user_exists references users,
    version bigint not null default 1
);

create table api_keys (
    api_key_id uuid constraint api_keys_pkey primary key,
    user_id uuid not null constraint api_keys_user_exists references users,
    name text not null constraint api_keys_name_length check (length(name) between 1 and 128),
    key_hash bytea not null constraint api_keys_hash_length check (length(key_hash) = 32),
    scopes jsonb not null,
    version bigint not null default 1,
    created_at timestamptz not null,
    revoked_at timestamptz
);
create unique index api_keys_name_unique on api_keys (user_id, name) where revoked_at is null;

create table quotas (
    user_id uuid not null constraint quotas_user_exists references users,
    -- `*`, or the id of a chute
    bucket text not null constraint quotas_bucket_form check (bucket = '*' or bucket ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'),
    calls bigint not null constraint quotas_calls_range check (calls >= 0),
    constraint quotas_pkey primary key (user_id, bucket)
);

create table balances (
    user_id uuid constraint balances_pkey primary key constraint balances_user_exists references users,
    -- pico-dollars
    balance numeric(38, 0) not null default 0,
    version bigint not null default 1
);

create table images (
    image_id uuid constraint images_pkey primary key,
    user_id uuid not null constraint images_user_exists references users,
    name text not null constraint images_name_form check (name ~ '^[a-z0-9][a-z0-9_./-]{2,64}$'),
    tag text not null constraint images_tag_form check (tag ~ '^[a-z0-9][a-z0-9_./-]{1,32}$'),
    created_at timestamptz not null,
    constraint images_name_unique unique (user_id, name, tag)
);

create table chutes (
    chute_id uuid constraint chutes_pkey primary key,
    user_id uuid not null constraint chutes_user_exists references users,
    name text not null constraint chutes_name_length check (length(name) between 3 and 128),
    slug text not null constraint chutes_slug_unique unique constraint chutes_slug_form check (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    image_id uuid not null constraint chutes_image_exists references images,
    template text constraint chutes_template_known check (template in ('vllm', 'embedding', 'diffusion')),
    public boolean not null,
    cords jsonb not null,
    model jsonb,
    -- micro-dollars per million tokens
    price_input bigint constraint chutes_price_input_range check (price_input >= 0),
    price_output bigint constraint chutes_price_output_range check (price_output >= 0),
    concurrency integer not null constraint chutes_concurrency_range check (concurrency between 1 and 256),
    multiplier double precision not null constraint chutes_multiplier_range check (multiplier > 0 and multiplier < 1e6),
    rate_per_minute integer constraint chutes_rate_range check (rate_per_minute > 0),
    max_concurrent integer constraint chutes_concurrent_range check (max_concurrent > 0),
    maintenance boolean not null default false,
    version bigint not null default 1,
    created_at timestamptz not null,
    constraint chutes_name_unique unique (user_id, name),
    constraint chutes_price_whole check ((price_input is null) = (price_output is null))
);

-- Apart from `chutes`, because it changes with each call. Written by `ingest_usage`.
create table chute_calls (
    chute_id uuid constraint chute_calls_pkey primary key,
    calls bigint not null default 0
);

create table shares (
    chute_id uuid not null constraint shares_chute_exists references chutes on delete cascade,
    user_id uuid not null constraint shares_user_exists references users,
    constraint shares_pkey primary key (chute_id, user_id)
);

create table instances (
    instance_id uuid constraint instances_pkey primary key,
    chute_id uuid not null constraint instances_chute_exists references chutes on delete cascade,
    host text not null constraint instances_host_length check (length(host) between 1 and 253),
    port integer not null constraint instances_port_range check (port between 1 and 65535),
    miner_uid integer not null,
    miner_hotkey text not null,
    generation text not null,
    -- under the database key, bound to the instance and the version
    sealed_key text not null,
    active boolean not null,
    verified boolean not null,
    version bigint not null default 1,
    created_at timestamptz not null,
    constraint instances_address_unique unique (host, port)
);
create index instances_by_chute on instances (chute_id);

create table aliases (
    alias text constraint aliases_pkey primary key constraint aliases_length check (length(alias) between 1 and 128),
    name text not null constraint aliases_name_length check (length(name) between 1 and 128)
);

-- Changes of principals that Redis does not have yet.
create table outbox (
    sequence bigint generated always as identity constraint outbox_pkey primary key,
    kind text not null constraint outbox_kind_known check (kind in ('key', 'user', 'hotkey', 'funds')),
    id text not null,
    created_at timestamptz not null default now()
);

-- What was published last, one row per publication.
create table publications (
    name text constraint publications_pkey primary key constraint publications_name_known check (name in ('directory', 'principals')),
    version bigint not null default 0,
    -- until then the operator insists on it, even if it looks wrong
    forced_until timestamptz,
    -- the run of Redis that has everything; another one may have forgotten
    redis_run text
);
insert into publications (name) values ('directory'), ('principals');
