// create_droplet and user_data: opened for the POST alone, and no POST where it can't be opened.

import { describe, expect, test } from 'vitest';
import { generateKey, parseKeyRing } from '../../src/platform/key-ring.ts';
import type { Bench } from './stage.ts';
import { alive, at, posts, recorded, useStepStage } from './stage.ts';
import { encryptionKeys } from '../support/keys.ts';

const openBench = useStepStage();

const USER_DATA = '#cloud-config\nhostname: "wéb"\n';
const withUserData = { user_data: USER_DATA };
const strangers = parseKeyRing(generateKey());

async function sealedOf(bench: Bench, sagaId: string): Promise<string> {
  const [row] = await bench.db.sql<{ sealed: string }[]>`select sealed_user_data as sealed from arcadia.sagas where id = ${sagaId}`;
  return row?.sealed ?? '';
}

describe('user data', () => {
  test('reaches DigitalOcean as it was given', async () => {
    const bench = await openBench();
    const saga = await bench.provision(withUserData);
    await bench.step(saga.id);
    expect(alive(bench.sandbox)).toMatchObject([{ userDataBytes: Buffer.byteLength(USER_DATA) }]);
  });

  test('is read where there is some, right before the create is announced, and nowhere else', async () => {
    const bench = await openBench();
    const { io, names } = recorded();
    const saga = await bench.provision(withUserData);
    await bench.step(saga.id, { io });
    expect(names.filter((name) => name !== 'sql store.load')).toEqual(['sql user_data.read', 'sql store.commit', 'http POST /v2/droplets', 'sql store.commit']);
    const other = recorded();
    await bench.step((await bench.provision()).id, { io: other.io });
    expect(other.names).not.toContain('sql user_data.read');
  });

  test('sealed with the key before the newest one is opened all the same', async () => {
    const bench = await openBench();
    const saga = await bench.provision(withUserData);
    await bench.step(saga.id, { keyRing: parseKeyRing(`${generateKey()},${encryptionKeys}`) });
    expect(alive(bench.sandbox)).toMatchObject([{ userDataBytes: Buffer.byteLength(USER_DATA) }]);
  });

  test('whose key a worker lacks holds the saga, which says so, uses no attempt, and goes on with the key', async () => {
    const bench = await openBench();
    const saga = await bench.provision(withUserData);
    expect(await bench.step(saga.id, { keyRing: strangers })).toMatchObject({ kind: 'next', job: { delayMs: 15_000 } });
    for (let look = 0; look < 6; look += 1) expect(await bench.step(saga.id, { keyRing: strangers })).toMatchObject({ kind: 'postpone', delayMs: 15_000 });
    const held = await bench.saga(saga.id);
    expect(held).toMatchObject({ status: 'running', attempt: 0, error: null, context: { missing_encryption_key: expect.stringMatching(/^[0-9a-f]{8}$/) } });
    const told = (await bench.events(saga.id)).filter(({ kind }) => kind === 'step_postponed');
    expect(told).toHaveLength(1);
    expect(told[0]?.detail['reason']).toMatch(/^user_data is sealed with the key [0-9a-f]{8}, .*ARCADIA_ENCRYPTION_KEYS. Add the key to every worker; the saga then resumes by itself$/);
    expect([posts(bench.sandbox), held.context['create_intents']]).toEqual([0, undefined]);
    await bench.step(saga.id);
    expect(alive(bench.sandbox)).toMatchObject([{ userDataBytes: Buffer.byteLength(USER_DATA) }]);
    expect((await bench.saga(saga.id)).context['missing_encryption_key']).toBeNull();
  });

  test.each<[string, (bench: Bench, sagaId: string) => Promise<string | null>]>([
    ["is another saga's", async (bench) => sealedOf(bench, (await bench.provision(withUserData)).id)],
    ['was changed', async (bench, sagaId) => (await sealedOf(bench, sagaId)).replace(/.{4}$/, 'AAAA')],
    ['is nonsense', async () => Promise.resolve('nonsense')],
    ['is gone', async () => Promise.resolve(null)],
  ])('that %s rolls the saga back, and nothing is asked for', async (_what, put) => {
    const bench = await openBench();
    const saga = await bench.provision(withUserData);
    await bench.db.sql`update arcadia.sagas set sealed_user_data = ${await put(bench, saga.id)} where id = ${saga.id}`;
    const ended = await bench.drive(saga.id);
    expect(ended).toMatchObject({ status: 'compensated', error: { code: 'user_data_unreadable', step: 'create_droplet', retryable: false } });
    expect(ended.error?.message).toBe('user_data cannot be opened: the sealed value was changed since it was sealed, or was copied from elsewhere');
    expect(posts(bench.sandbox)).toBe(0);
  });

  test('of a saga that an earlier version wrote goes to DigitalOcean as it stands', async () => {
    const bench = await openBench();
    const saga = await bench.provision();
    await bench.db.sql`update arcadia.sagas set input = input || ${JSON.stringify(withUserData)}::text::jsonb where id = ${saga.id}`;
    const done = await bench.drive(saga.id, at('wait_droplet_active'));
    expect(done.input['user_data']).toBe(USER_DATA);
    expect(alive(bench.sandbox)).toMatchObject([{ userDataBytes: Buffer.byteLength(USER_DATA) }]);
  });
});
