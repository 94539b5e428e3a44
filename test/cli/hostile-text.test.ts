// Names, reasons and messages that a terminal would obey, or that would pass for lines of ours: each command shows what is in
// them, and with --json they come through unchanged.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Fleet } from '../support/fleet.ts';
import { openFleet, runCommand, web as droplet } from '../support/fleet.ts';
import { programFile } from '../support/programs.ts';

// Clears the screen, sets its title, C1, bidi, zero width, separators, a tag beyond the basic plane, and forged lines.
const HOSTILE = '\u001b[2J\u001b]0;x\u0007\u009b31m\u202egnp\u2066\u200b\u2028\u{e0041}\r\nstatus   completed, revision 1\nx';
const SHOWN = String.raw`\x1b[2J\x1b]0;x\x07\u009b31m\u202egnp\u2066\u200b\u2028\udb40\udc41\r\nstatus   completed, revision 1\nx`;
const HIDDEN = /[[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]--[\n]]/v;

let fleet: Fleet;
let id: string;
beforeAll(async () => {
  fleet = await openFleet('redis', {});
  id = (await fleet.client.provisionDroplet(droplet)).sagaId;
  const { sql } = fleet.db;
  const detail = JSON.stringify({ status: 'stuck', message: HOSTILE, note: HOSTILE, reason: HOSTILE, by: HOSTILE, requestedBy: HOSTILE });
  const steps = ['create_droplet', HOSTILE, 'register_droplet'];
  await sql`
    update arcadia.sagas set status = 'stuck', wake_at = null, revision = 9, cursor = 1, steps = ${steps}::text[], requested_by = ${HOSTILE}, idempotency_key = ${HOSTILE},
      input = ${JSON.stringify({ name: HOSTILE, tags: [HOSTILE], [HOSTILE]: HOSTILE })}::text::jsonb, context = ${JSON.stringify({ droplet_id: 7, public_ipv4: HOSTILE })}::text::jsonb,
      error = ${JSON.stringify({ code: HOSTILE, message: HOSTILE, step: HOSTILE, retryable: false })}::text::jsonb
    where id = ${id}`;
  const kinds = ['saga_started', 'step_recorded', 'step_postponed', 'step_retried', 'step_failed', 'compensation_retried', 'cancel_requested', 'retry_requested', 'compensation_stuck'];
  for (const [index, kind] of kinds.entries()) {
    await sql`insert into arcadia.saga_events (saga_id, seq, kind, step, attempt, detail, worker) values (${id}, ${index + 1}, ${kind}, ${HOSTILE}, 1, ${detail}::text::jsonb, ${HOSTILE})`;
  }
  const [resource] = await sql<{ id: string }[]>`
    insert into arcadia.cloud_resources (provider, provider_id, kind, name, region, status, size_slug, tags, attrs)
    values ('digitalocean', '7', 'droplet', ${HOSTILE}, ${HOSTILE}, 'active', ${HOSTILE}, '{}', '{}') returning id`;
  await sql`insert into arcadia.cloud_provisioned (resource_id, spec, provisioned_by, saga_id) values (${resource?.id ?? ''}, '{}', ${`saga:${id}`}, ${id})`;
  await sql`insert into arcadia.cloud_drift (resource_id, field, desired, actual) values (${resource?.id ?? ''}, 'size', ${HOSTILE}, ${HOSTILE})`;
  await sql`
    insert into arcadia.cloud_orphans (resource_id, category, reason, created_at, first_sync, last_sync)
    values (${resource?.id ?? ''}, 'unknown', ${HOSTILE}, now(), 1, 1)`;
});
afterAll(() => fleet[Symbol.asyncDispose]());

const arcadia = (...args: string[]) => runCommand(args, fleet.environment());

// A table cuts a cell, and the state of the fleet quotes nobody.
test.each([
  ['saga', ['saga', 'ID'], SHOWN],
  ['saga --follow', ['saga', 'ID', '--follow'], SHOWN],
  ['sagas', ['sagas'], String.raw`\x1b[2J`],
  ['status', ['status'], ''],
  ['drift', ['drift'], SHOWN],
  ['orphans', ['orphans'], SHOWN],
])('%s shows what is in them, on lines of its own', async (_name, args, shown) => {
  const { stdout, stderr } = await arcadia(...args.map((arg) => (arg === 'ID' ? id : arg)));
  expect(stderr).toBe('');
  expect(stdout).not.toMatch(HIDDEN);
  expect(stdout).not.toMatch(/^status +completed/m);
  expect(stdout).toContain(shown);
});

test.each([
  ['saga', ['saga', 'ID', '--json']],
  ['saga --follow', ['saga', 'ID', '--follow', '--json']],
  ['sagas', ['sagas', '--json']],
  ['drift', ['drift', '--json']],
  ['orphans', ['orphans', '--json']],
])('%s --json hides nothing and changes nothing', async (_name, args) => {
  const { stdout } = await arcadia(...args.map((arg) => (arg === 'ID' ? id : arg)));
  expect(stdout).not.toMatch(HIDDEN);
  const found: string[] = [];
  for (const line of stdout.trimEnd().split('\n')) {
    JSON.parse(line, (_key, value: unknown) => {
      if (typeof value === 'string' && value.includes('gnp')) found.push(value);
      return value;
    });
  }
  expect(found.length).toBeGreaterThan(1);
  expect(new Set(found)).toEqual(new Set([HOSTILE]));
});

test.each([
  [['saga', HOSTILE]],
  [['sagas', '--status', HOSTILE]],
  [['sagas', '--since', HOSTILE]],
  [['sagas', `--${HOSTILE}`]],
  [[HOSTILE]],
  [['destroy', HOSTILE]],
  [['provision', '--name', HOSTILE, '--region', HOSTILE, '--size', HOSTILE, '--image', HOSTILE]],
  [['provision', '--name', 'x', '--region', 'x', '--size', 'x', '--image', 'x', '--user-data-file', HOSTILE]],
])('what is wrong with an argument is said without obeying it: %#', async (args) => {
  const { code, stdout, stderr } = await arcadia(...args);
  expect([code, stdout]).toEqual([2, '']);
  expect(stderr).not.toMatch(HIDDEN);
  expect(stderr).not.toMatch(/^status +completed/m);
});

test('a cancel and a retry tell of the saga without them', async () => {
  for (const args of [['cancel', id, '--reason', HOSTILE], ['retry', id], ['cancel', id, '--json'], ['retry', id, '--json']]) {
    const { stdout, stderr } = await arcadia(...args);
    expect(`${stdout}${stderr}`).not.toMatch(HIDDEN);
  }
});

test('on a terminal, the live display shows them too', async () => {
  await fleet.db.sql`update arcadia.sagas set status = 'stuck', wake_at = null where id = ${id}`;
  const main = programFile('main');
  const shown = await promisify(execFile)('script', ['-qec', `'${process.execPath}' '${main}' saga ${id} --follow`, '/dev/null'], { env: { ...fleet.environment(), TERM: 'xterm' } }).catch((error: unknown) => error);
  const stdout = typeof shown === 'object' && shown !== null && 'stdout' in shown ? String(shown.stdout) : '';
  expect(stdout).toContain(String.raw`\x1b[2J`);
  expect(stdout).not.toContain('\u001b[2J');
  expect(stdout).not.toMatch(/[\u009b\u202e\u2066\u200b\u2028]/);
});
