// Answers with a field that is missing or odd, for good: what DigitalOcean says of the droplet's id and tags is enough.

import { describe, expect, test } from 'vitest';
import type { Faults } from '../../src/sandbox/server.ts';
import { alive, at, posts, requests, useStepStage } from './stage.ts';

const openBench = useStepStage();
const HOUR_MS = 3_600_000;
const lostOnce = { rules: [{ match: { method: 'POST', path: '/v2/droplets' }, times: 1, effect: { lostAnswer: true } }] } satisfies Partial<Faults>;

const odd: [string, Partial<Faults>][] = [
  ['image is null', { garble: { image: null } }],
  ['image has no id', { garble: { image: { slug: 'debian-12-x64' } } }],
  ['region is empty', { garble: { region: {} } }],
  ['vcpus is null', { garble: { vcpus: null } }],
  ['memory and disk are text', { garble: { memory: '1024', disk: '25 GB' } }],
  ['size_slug is missing', { garbleMissing: ['size_slug'] }],
  ['created_at is no time', { garble: { created_at: 'yesterday' } }],
  ['created_at is the year 1', { garble: { created_at: '0001-01-01T00:00:00Z' } }],
  ['name is null', { garble: { name: null } }],
  ['size_slug has a NUL in it', { garble: { size_slug: 's-1vcpu\0', status: 'active' } }],
  ['locked and vpc_uuid are numbers', { garble: { locked: 1, vpc_uuid: 7 } }],
  ['everything else is missing', { garbleMissing: ['name', 'image', 'region', 'vcpus', 'memory', 'disk', 'size_slug', 'created_at', 'locked', 'vpc_uuid', 'size'] }],
];

describe.each(odd)('where %s for good', (_what, faults) => {
  test('the create is answered all the same, and the saga completes', async () => {
    const bench = await openBench();
    bench.sandbox.setFaults(faults);
    const saga = await bench.drive((await bench.provision()).id);
    expect(saga).toMatchObject({ status: 'completed', context: { droplet_origin: 'created', droplet_id: alive(bench.sandbox)[0]?.id } });
    expect(posts(bench.sandbox)).toBe(1);
    expect((await bench.inventory()).map(({ name, tags }) => [name, tags.length > 3])).toEqual([['web-1', true]]);
  });

  test('a create without an answer is found by its tag, and a rollback leaves nothing', async () => {
    const bench = await openBench();
    bench.sandbox.setFaults({ ...faults, ...lostOnce });
    const adopted = await bench.drive((await bench.provision()).id);
    expect(adopted).toMatchObject({ status: 'completed', context: { droplet_origin: 'adopted' } });
    bench.sandbox.setFaults(lostOnce);
    const cancelled = await bench.provision({ name: 'web-2' });
    await bench.step(cancelled.id);
    await bench.cancel(cancelled.id);
    expect((await bench.drive(cancelled.id)).status).toBe('compensated');
    expect(alive(bench.sandbox).map(({ name }) => name)).toEqual(['web-1']);
  });
});

test.each([
  ['tags have odd entries', { tags: [null, 7, 'web', { name: 'web' }] }],
  ['tags are text', { tags: 'web' }],
  ['status is null', { status: null }],
  ['networks are null', { networks: null }],
  ['networks have odd entries', { networks: { v4: [null, { type: 'public' }, 'x'], v6: 'none' } }],
])('where %s, the id of a create is on record, and its rollback destroys it', async (_what, garble) => {
  const bench = await openBench({ settings: { adoptionGraceMs: HOUR_MS } });
  bench.sandbox.setFaults({ garble });
  const saga = await bench.provision();
  const waiting = await bench.drive(saga.id, at('wait_droplet_active'));
  expect(waiting.context).toMatchObject({ droplet_origin: 'created', droplet_id: alive(bench.sandbox)[0]?.id });
  await bench.cancel(saga.id);
  expect((await bench.drive(saga.id)).status).toBe('compensated');
  expect(alive(bench.sandbox)).toEqual([]);
});

test('a droplet whose tags cannot be read is never deleted as the saga\'s own without being on record', async () => {
  const bench = await openBench({ settings: { adoptionGraceMs: 20 } });
  bench.sandbox.setFaults({ garble: { tags: 'unreadable' }, ...lostOnce });
  const saga = await bench.provision();
  await bench.step(saga.id);
  await bench.cancel(saga.id);
  await bench.drive(saga.id);
  expect(alive(bench.sandbox)).toHaveLength(1);
  expect(requests(bench.sandbox, 'DELETE /v2/droplets/:id')).toBe(0);
});

test('an unreadable name in the answer to a create does not make another saga\'s droplet ours', async () => {
  const bench = await openBench();
  const foreign = bench.sandbox.addForeignDroplet({ name: 'somebody-elses', tags: ['arcadia-saga-id-00000000-0000-4000-8000-000000000000'] });
  bench.sandbox.setFaults({ rules: [{ match: { method: 'POST' }, times: 1, effect: { status: 202, body: { droplet: { ...foreign, name: null } } } }] });
  const saga = await bench.drive((await bench.provision()).id);
  expect(saga.status).toBe('completed');
  expect(saga.context['droplet_id']).not.toBe(foreign.id);
});
