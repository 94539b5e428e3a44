"""Starts a droplet for an order from Python, in one transaction with the order, and waits for its end. Needs psycopg 3."""

import json
import os
import sys
import time

import psycopg

START = "select arcadia.start_saga('provision_droplet', %s::jsonb, idempotency_key => %s, requested_by => 'shop')"
LOOK = "select status, context->>'public_ipv4', error->>'message' from arcadia.sagas where id = %s"


def order(connection: psycopg.Connection, customer: str) -> str:
    """Writes an order and starts its saga; both are there once this is committed, or neither."""
    with connection.transaction():
        (number,) = connection.execute("insert into orders (customer) values (%s) returning id", [customer]).fetchone()
        droplet = {"name": f"order-{number}", "region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-12-x64"}
        (saga_id,) = connection.execute(START, [json.dumps(droplet), f"order-{number}"]).fetchone()
        connection.execute("update orders set saga_id = %s where id = %s", [saga_id, number])
    return str(saga_id)


def wait(connection: psycopg.Connection, saga_id: str) -> tuple[str, str | None, str | None]:
    """Waits until the saga is at rest: its status, the droplet's address, and the reason where it failed."""
    while True:
        status, address, why = connection.execute(LOOK, [saga_id]).fetchone()
        if status in ("completed", "compensated", "stuck"):
            return status, address, why
        time.sleep(0.5)


with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
    connection.execute("create table if not exists orders (id bigint generated always as identity primary key, customer text not null, saga_id uuid)")
    saga_id = order(connection, sys.argv[1] if len(sys.argv) > 1 else "ada")
    status, address, why = wait(connection, saga_id)
    print(f"saga {saga_id}: {status}, {address or why}")
    sys.exit(0 if status == "completed" else 1)
