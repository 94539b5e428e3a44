// A saga is not started with a field of the input that only a step which it lacks would carry out.
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import type { JsonObject } from '../../src/platform/json.ts';
import { emptyKeyRing } from '../../src/platform/key-ring.ts';
import { admit } from '../../src/saga/admit.ts';
import { defineSaga } from '../../src/saga/app.ts';
import { startSaga } from '../../src/saga/start.ts';
import { provisionDroplet } from '../../src/steps/catalog.ts';
import { createDroplet } from '../../src/steps/create-droplet.ts';
import { registerDroplet } from '../../src/steps/register-droplet.ts';
import { tagDroplet } from '../../src/steps/tag-droplet.ts';
import { waitDropletActive } from '../../src/steps/wait-droplet-active.ts';
import { useSharedDatabase } from '../support/shared-database.ts';

const database = useSharedDatabase(2);

const web = { name: 'web-0', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };
const bare = defineSaga({ name: 'bare', input: provisionDroplet.input, steps: [createDroplet, waitDropletActive] });
const whole = defineSaga({ name: 'whole', input: provisionDroplet.input, steps: [createDroplet, waitDropletActive, registerDroplet] });
const start = async (saga: typeof bare, more: JsonObject) => startSaga(database(), { [saga.name]: saga }, { name: saga.name, input: { ...web, ...more } }, 0);

describe('a saga without register_droplet', () => {
  test.each<readonly [string, JsonObject]>([
    ['lease', { lease: { ttl_s: 60 } }],
    ['protected', { protected: true }],
    ['project', { project: 'web' }],
  ])('is not started with %s, by anyone', async (field, more) => {
    const message = 'this saga has no step register_droplet, which carries it out';
    await expect(start(bare, more)).rejects.toMatchObject({ code: 'invalid_request', problems: [{ field, message }] });
    const bySql = { id: crypto.randomUUID(), input: { ...web, ...more }, steps: bare.steps.map(({ name }) => name), idempotencyKey: null };
    expect(admit(bare, bySql, emptyKeyRing)).toMatchObject({ kind: 'rejected', error: { code: 'invalid_request', message: expect.stringContaining(message) } });
    expect((await start(whole, more)).firstJob).not.toBeNull();
  });

  test('is started without them', async () => {
    expect((await start(bare, { protected: false })).firstJob).not.toBeNull();
  });

  test('is not defined if its input always asks for one', () => {
    expect(() => defineSaga({ name: 'bare', input: z.object({ lease: z.object({ ttl_s: z.int() }) }), steps: [createDroplet] })).toThrow('saga bare: its input always has lease, which step register_droplet carries out');
    expect(() => defineSaga({ name: 'bare', input: z.object({ protected: z.boolean().default(true), lease: z.object({}).optional() }), steps: [createDroplet] })).not.toThrow();
    expect(() => defineSaga({ name: 'bare', input: z.object({ protected: z.literal(true) }), steps: [createDroplet] })).toThrow('always has protected');
  });
});

test('an adoption without register_adopted_droplet is not started with a lease', async () => {
  const adopt = defineSaga({ name: 'adopt', input: z.object({ droplet_id: z.int(), lease: z.object({ ttl_s: z.int() }).optional() }), steps: [tagDroplet] });
  const started = startSaga(database(), { adopt }, { name: 'adopt', input: { droplet_id: 7, lease: { ttl_s: 60 } } }, 0);
  await expect(started).rejects.toMatchObject({ problems: [{ field: 'lease', message: 'this saga has no step register_adopted_droplet, which carries it out' }] });
});
