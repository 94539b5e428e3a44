// A profile of measured lags, played by the sandbox.
import { expect, test } from 'vitest';
import { createDigitalOceanClient } from '../../src/do/client.ts';
import { parseProfile, settingsOfProfile } from '../../src/sandbox/profile.ts';
import { aDroplet, call, openSandbox } from './support.ts';

const row = { act: 'provision', readableMs: 0, listedMs: 200, taggedMs: 0, tagListedMs: 900, activeMs: 31_000, publicIpv4Ms: 33_000, pendingEventMs: null, goneMs: 4_000, unlistedMs: 0 };
const profile = {
  version: 1,
  measured: { at: '2026-11-28T12:00:00.000Z', api: 'api.digitalocean.com', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64', lookEveryMs: 1_000 },
  droplets: [row, { ...row, act: 'cancel', activeMs: 24_000, publicIpv4Ms: 24_000, pendingEventMs: 22_000, goneMs: 61_000 }],
};

test('the time to `active` is a range; of each other lag, the longest counts', () => {
  expect(settingsOfProfile(parseProfile(JSON.stringify(profile)))).toEqual({
    activateAfterMs: { minMs: 24_000, maxMs: 31_000 },
    faults: { notFoundAfterCreateMs: 0, listLagMs: 200, tagLagMs: 0, tagIndexLagMs: 900, addressLagMs: { public_ipv4: 2_000 }, pendingEventMs: 22_000, goneLagMs: 61_000, deleteLagMs: 0 },
  });
});

test('a profile of another version, or with a lag that is no number, is refused by name', () => {
  expect(() => parseProfile(JSON.stringify({ ...profile, version: 2 }))).toThrow(/version/);
  expect(() => parseProfile(JSON.stringify({ ...profile, droplets: [{ ...row, goneMs: 'soon' }] }))).toThrow(/goneMs/);
  expect(() => parseProfile('not JSON')).toThrow('the profile cannot be used');
});

test('a sandbox that plays one refuses a deletion while an event is pending, and shows a deleted droplet for a while', async () => {
  const sandbox = await openSandbox({ activateAfterMs: 0, faults: { pendingEventMs: 5_000, goneLagMs: 7_000 } });
  const { body } = await call(sandbox, 'POST', '/v2/droplets', { body: aDroplet });
  const path = `/v2/droplets/${body.droplet.id}`;
  expect(await call(sandbox, 'DELETE', path)).toMatchObject({ status: 422, body: { message: 'Droplet already has a pending event.' } });
  sandbox.advanceClock(5_000);
  expect((await call(sandbox, 'DELETE', path)).status).toBe(204);
  expect((await call(sandbox, 'GET', path)).status).toBe(200);
  expect((await call(sandbox, 'DELETE', path)).status).toBe(204);
  sandbox.advanceClock(7_000);
  expect((await call(sandbox, 'GET', path)).status).toBe(404);
  expect((await call(sandbox, 'DELETE', path)).status).toBe(404);
});

test('the client reads how many resources carry a tag, deletes it, and finds it absent', async () => {
  const sandbox = await openSandbox({ activateAfterMs: 0 });
  sandbox.addForeignDroplet({ name: 'web-1', tags: ['arcadia-saga-0a1b2c3d'] });
  const client = createDigitalOceanClient({ apiUrl: sandbox.url, token: 'token', timeoutMs: 5_000, budget: null });
  expect(await client.readTag('arcadia-saga-0a1b2c3d')).toEqual({ name: 'arcadia-saga-0a1b2c3d', resources: { count: 1 } });
  expect(await client.deleteTag('arcadia-saga-0a1b2c3d')).toBe('deleted');
  expect([await client.readTag('arcadia-saga-0a1b2c3d'), await client.deleteTag('arcadia-saga-0a1b2c3d')]).toEqual([null, 'absent']);
  await expect(client.deleteTag('a/../b')).rejects.toThrow(RangeError);
});
