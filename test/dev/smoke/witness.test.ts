// What the gate lets through to DigitalOcean, whatever a worker asks for.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { directSmokeIo } from '../../../src/dev/smoke/io.ts';
import type { SmokeState } from '../../../src/dev/smoke/state.ts';
import { keepState } from '../../../src/dev/smoke/state.ts';
import { createWitness } from '../../../src/dev/smoke/witness.ts';

const name = 'arcadia-smoke-0123abcd-1';
const first: SmokeState = {
  version: 1, run: '0123abcd', phase: 'open', startedAt: new Date(0).toISOString(), apiUrl: 'http://127.0.0.1', account: 'one', store: 'embedded',
  region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64', hard: false, priceUsdPerHour: 0.01, before: { droplets: [], tags: [] },
  acts: [{ act: 'provision', dropletName: name }], creates: [], refused: [], droplets: [],
};
const create = (droplet: string) => ({ method: 'POST', path: '/v2/droplets', body: { name: droplet, tags: [] } });

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'arcadia-test-witness-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('a create', () => {
  test('is let through as often as --max-usd pays for it', async () => {
    const witness = createWitness(keepState(folder, first, directSmokeIo), 1);
    expect(await witness.onRequest(create(name))).toBeNull();
    expect(await witness.onRequest(create(name))).toBe(`droplet ${name} would be number 2 of this run, and --max-usd pays for 1: an earlier create was not answered in time`);
  });

  test('is refused while an earlier run is finished, and the message does not speak of an amount', async () => {
    const state = keepState(folder, first, directSmokeIo);
    const witness = createWitness(state, 0);
    expect(await witness.onRequest(create(name))).toBe(`droplet ${name} is not made: this run only finishes an earlier one`);
    expect(state.read().creates).toEqual([]);
  });

  test('of any other droplet is refused', async () => {
    const witness = createWitness(keepState(folder, first, directSmokeIo), 9);
    expect(await witness.onRequest(create('web-1'))).toMatch(/^droplet web-1 is not of the smoke test that runs on this database/);
  });
});

test.each([
  ['of all droplets with a tag', { method: 'DELETE', path: '/v2/droplets', body: null }],
  ['of a droplet of somebody else', { method: 'DELETE', path: '/v2/droplets/77', body: null }],
  ["of somebody else's tag", { method: 'DELETE', path: '/v2/tags/web', body: null }],
])('a deletion %s is refused', async (_what, request) => {
  expect(await createWitness(keepState(folder, first, directSmokeIo), 9).onRequest(request)).not.toBeNull();
});
