// Finding and following sagas from a terminal: each command a process of its own, but for the reading of its options.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { toSagaFilter } from '../../src/cli/saga-filter.ts';
import { textOf } from '../../src/platform/json.ts';
import type { Fleet } from '../support/fleet.ts';
import { openFleet, runCommand, web as droplet } from '../support/fleet.ts';
import { holdSaga } from '../support/held-saga.ts';
import { writeSagas } from '../support/many-sagas.ts';

let fleet: Fleet;
beforeAll(async () => {
  fleet = await openFleet('redis', { activateAfterMs: 1_000 });
  await fleet.startWorker();
});
afterAll(() => fleet[Symbol.asyncDispose]());

const arcadia = (...args: string[]) => runCommand(args, fleet.environment());
const found = async (...options: string[]): Promise<string[]> => {
  const ended = await arcadia('sagas', '--json', ...options);
  expect([ended.code, ended.stderr]).toEqual([0, '']);
  return z.array(z.object({ id: z.uuid() })).parse(JSON.parse(ended.stdout)).map(({ id }) => id);
};

test('sagas finds by status, tag, droplet, text, time and requester, all of which must hold', async () => {
  const { sagaId: blue } = await fleet.client.provisionDroplet({ ...droplet, name: 'blue-1', tags: ['blue'] }, { requestedBy: 'http:billing' });
  const { sagaId: red } = await fleet.client.provisionDroplet({ ...droplet, name: 'red-1', size: 'none' }, { requestedBy: 'cli:ada' });
  const [saga] = await Promise.all([fleet.atRest(blue), fleet.atRest(red)]);
  await fleet.db.sql`update arcadia.sagas set created_at = now() - interval '3 hours' where id = ${red}`;
  const answers = await Promise.all([
    found('--status', 'completed,compensated'),
    found('--status', 'compensated', '--status', 'stuck'),
    found('--tag', 'blue'),
    found('--droplet-id', textOf(saga.context['droplet_id'])),
    found('--text', 'RED'),
    found('--since', '2h'),
    found('--until', '2h', '--since', '1d'),
    found('--requested-by', 'cli:ada'),
    found('--requested-by', 'cli:ada', '--tag', 'blue'),
  ]);
  expect(answers).toEqual([[blue, red], [red], [blue], [blue], [red], [blue], [red], [red], []]);
});

test('sagas says on stderr that it does not show all, as text and as JSON', async () => {
  await using crowded = await openFleet('postgres');
  await writeSagas(crowded.db, { count: 60, status: 'stuck', daysAgo: 0 });
  const list = (...more: string[]) => runCommand(['sagas', '--status', 'stuck', ...more], crowded.environment());
  const cut = 'Showing the newest 50; there are more: --limit shows up to 1000\n';
  const text = await list();
  expect([text.code, text.stderr, text.stdout.trimEnd().split('\n').length]).toEqual([0, cut, 51]);
  const json = await list('--json');
  expect([json.code, json.stderr, z.array(z.unknown()).parse(JSON.parse(json.stdout)).length]).toEqual([0, cut, 50]);
  const all = await list('--json', '--limit', '60');
  expect([all.code, all.stderr, z.array(z.unknown()).parse(JSON.parse(all.stdout)).length]).toEqual([0, '', 60]);
});

test('sagas and saga say what holds a saga that goes by as running', async () => {
  await using stage = await openFleet('redis');
  const { sagaId } = await stage.client.provisionDroplet(droplet);
  const list = (...args: string[]) => runCommand(args, stage.environment());
  expect((await list('sagas')).stdout).toMatch(/ waiting +1\/3 /);
  const { held, release } = await holdSaga(stage.db, sagaId);
  const why = 'scope_missing since 2026-01-31T12:00:00.000Z: You are not authorized';
  expect((await list('sagas')).stdout).toMatch(new RegExp(` held +1/3 .* ${why}$`, 'm'));
  const shown = (await list('saga', sagaId)).stdout;
  expect(shown).toMatch(/^status +held, revision 0$/m);
  expect(shown).toMatch(new RegExp(`^held +${why}\\. .arcadia status. says what to do$`, 'm'));
  expect(JSON.parse((await list('sagas', '--json')).stdout)).toMatchObject([{ held }]);
  expect(JSON.parse((await list('saga', sagaId, '--json')).stdout)).toMatchObject({ status: 'pending', held });
  await release();
  expect(JSON.parse((await list('sagas', '--json')).stdout)).toMatchObject([{ held: null }]);
});

describe('saga --follow', () => {
  test('shows what happens until the saga is at rest', async () => {
    const { sagaId } = await fleet.client.provisionDroplet(droplet);
    const ended = await arcadia('saga', sagaId, '--follow');
    expect([ended.code, ended.stderr]).toEqual([0, '']);
    const lines = ended.stdout.trimEnd().split('\n');
    expect(lines[0]).toContain(sagaId);
    expect(lines.at(-2)).toMatch(/register_droplet completed$/);
    expect(lines.at(-1)).toMatch(/^droplet \d+ is ready at /);
  });

  test('names the droplets that a rollback could not prove to be its own', async () => {
    const { sagaId } = await fleet.client.provisionDroplet({ ...droplet, size: 'none' });
    await fleet.atRest(sagaId);
    await fleet.db.sql`update arcadia.sagas set context = context || '{"unproven_droplets": [7, 8]}' where id = ${sagaId}`;
    const ended = await arcadia('saga', sagaId, '--follow');
    expect(ended.code).toBe(1);
    expect(ended.stdout.trimEnd().split('\n').at(-1)).toMatch(/^Rolled back, but check droplets 7, 8 at DigitalOcean\./);
  });

  test('with --json: a document a line, the saga last; exit code 1 for one that was rolled back', async () => {
    const { sagaId } = await fleet.client.provisionDroplet({ ...droplet, size: 'none' });
    const ended = await arcadia('saga', sagaId, '--follow', '--json');
    expect([ended.code, ended.stderr]).toEqual([1, '']);
    const documents = ended.stdout.trimEnd().split('\n').map((line): unknown => JSON.parse(line));
    const events = z.array(z.strictObject({ event: z.looseObject({ seq: z.int(), kind: z.string() }) })).parse(documents.slice(0, -1));
    expect(events.map(({ event }) => event.seq)).toEqual(events.map((_, index) => index));
    expect(events.map(({ event }) => event.kind)).toContain('step_failed');
    expect(documents.at(-1)).toMatchObject({ saga: { id: sagaId, status: 'compensated' } });
  });
});

describe('the options of sagas', () => {
  const now = Date.UTC(2026, 0, 31, 12);
  test.each([
    ['90s', '2026-01-31T11:58:30.000Z'],
    ['30m', '2026-01-31T11:30:00.000Z'],
    ['2h', '2026-01-31T10:00:00.000Z'],
    ['7d', '2026-01-24T12:00:00.000Z'],
    ['2026-01-30', '2026-01-30T00:00:00.000Z'],
    ['2026-01-30T12:00:00+02:00', '2026-01-30T10:00:00.000Z'],
  ])('--since %s is %s', (since, expected) => {
    expect(toSagaFilter({ since }, now).createdFrom?.toISOString()).toBe(expected);
  });

  test.each(['yesterday', '2 h', '-1h', '1w', '2026-01-30T12:00:00', '2026-02-30', ''])('--until %j is refused, and says what is expected', (until) => {
    expect(() => toSagaFilter({ until }, now)).toThrow(/^--until: expected an age such as 30m, 2h or 7d, or a time such as .*; found "/);
  });
});
