-- How many sagas there are of each name and status, estimated by Postgres: among millions, to count them reads the whole table.
-- Neither lock keeps writes waiting.
create statistics arcadia.sagas_by_name_and_status (mcv) on name, status from arcadia.sagas;
analyze arcadia.sagas;
