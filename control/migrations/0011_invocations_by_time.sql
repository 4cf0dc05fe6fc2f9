-- Attempts come about in the order of their beginning: with the time first in their key its index grows at the end, where
-- a random id first touches all of it, and it finds what began since a moment, too.
drop index invocations_by_start;
alter table invocations drop constraint invocations_pkey;
alter table invocations add constraint invocations_pkey primary key (started_at, invocation_id);
