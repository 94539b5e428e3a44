-- The trace that a saga belongs to, as W3C Trace Context writes it, so that its jobs go on in it after the queues were
-- lost. Null where nobody traced its start.
alter table arcadia.sagas add column traceparent text;
