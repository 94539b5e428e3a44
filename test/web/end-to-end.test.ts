// A caller's day: starts a saga over HTTP, follows it, loses the connection, takes it up again, and cancels another one.
// With a real worker, and the sandbox in DigitalOcean's place.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import type { Config } from '../../src/platform/config.ts';
import { startSandbox } from '../../src/sandbox/server.ts';
import type { Sandbox } from '../../src/sandbox/server.ts';
import { textOf } from '../../src/platform/json.ts';
import { silentLog } from '../../src/platform/log.ts';
import { sagaWithTimeline, sagasAnswer } from '../../src/web/api/saga-shapes.ts';
import type { RunningWorker } from '../../src/processes/worker.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { waitFor } from '../support/wait-for.ts';
import { basic, bearer, credentials, droplet, openWebStage, sagaIdOf, secrets } from './stage.ts';
import type { Web } from './stage.ts';
import { programFile } from '../support/programs.ts';

const CANARY = 'canary-user-data-1b7e';
const TOKEN = 'canary-do-token-77aa';

let web: Web;
let sandbox: Sandbox;
let worker: RunningWorker;
beforeAll(async () => {
  sandbox = await startSandbox({ activateAfterMs: 1_500, ratePerMinute: null, ratePerHour: null });
  web = await openWebStage({ ...credentials, DIGITALOCEAN_TOKEN: TOKEN });
  const config: Config = {
    ...web.config,
    digitalOcean: { ...web.config.digitalOcean, apiUrl: sandbox.url },
    wait: { pollIntervalMs: 200, maxPolls: 200 },
  };
  worker = await startWorker(config, silentLog);
});
afterAll(async () => {
  await worker.close();
  await web[Symbol.asyncDispose]();
  await sandbox.close();
});

const toldData = z.looseObject({ seq: z.int().optional(), kind: z.string().optional(), status: z.string().optional() });
type Told = { id: number | null; event: string; data: z.infer<typeof toldData> };

/** Reads a stream until `enough`, then drops the connection; ends by itself with the stream. */
async function follow(path: string, lastEventId: number | null, enough: (told: readonly Told[]) => boolean): Promise<{ status: number; told: Told[]; text: string }> {
  const aborting = new AbortController();
  const response = await fetch(`${web.url}${path}`, {
    headers: { ...bearer(secrets.read), ...(lastEventId === null ? {} : { 'last-event-id': String(lastEventId) }) },
    signal: aborting.signal,
  });
  const told: Told[] = [];
  let text = '';
  if (response.body === null) return { status: response.status, told, text };
  let rest = '';
  const decoder = new TextDecoder();
  const chunks: AsyncIterable<Uint8Array> = response.body;
  for await (const chunk of chunks) {
    const piece = decoder.decode(chunk, { stream: true });
    text += piece;
    const blocks = (rest + piece).split('\n\n');
    rest = blocks.pop() ?? '';
    for (const block of blocks) {
      const fields = new Map(block.split('\n').map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)]));
      const data = fields.get('data');
      const id = fields.get('id');
      if (data !== undefined) told.push({ id: id === undefined ? null : Number(id), event: fields.get('event') ?? 'message', data: toldData.parse(JSON.parse(data)) });
    }
    if (enough(told)) break;
  }
  aborting.abort();
  return { status: response.status, told, text };
}

const idsOf = (told: readonly Told[]) => told.filter(({ event }) => event === 'message').map(({ id }) => id);

const start = async (name: string): Promise<string> => {
  const answer = await web.call('POST', '/v1/sagas/provision_droplet', { body: { ...droplet, name, user_data: CANARY }, headers: bearer(secrets.start) });
  return sagaIdOf(answer);
};
const read = async (id: string) => sagaWithTimeline.parse((await web.call('GET', `/v1/sagas/${id}`, { headers: bearer(secrets.read) })).json());

test('a stream that is cut off goes on where it was: no event is lost, none comes twice', async () => {
  const id = await start('followed');
  const path = `/v1/sagas/${id}/events`;
  const [first, whole, also] = await Promise.all([follow(path, null, (told) => told.length >= 2), follow(path, null, () => false), follow(path, null, () => false)]);
  const second = await follow(path, first.told.at(-1)?.id ?? null, () => false);
  const saga = await read(id);
  expect(saga.status).toBe('completed');
  const seqs = saga.events.map(({ seq }) => seq);
  expect(first.told.length).toBeLessThan(seqs.length);
  expect([...idsOf(first.told), ...idsOf(second.told)]).toEqual(seqs);
  for (const all of [whole, also]) {
    expect(idsOf(all.told)).toEqual(seqs);
    expect(all.told.at(-1)).toEqual({ id: null, event: 'end', data: { status: 'completed' } });
  }
  expect((await follow(path, seqs.at(-1) ?? 0, () => false)).status).toBe(204);
  expect((await follow(path, seqs.at(-2) ?? 0, () => false)).told.map(({ event }) => event)).toEqual(['message', 'end']);
  const wrong = await web.call('GET', path, { headers: { ...bearer(secrets.read), 'last-event-id': 'x' } });
  expect(wrong.json()).toMatchObject({ status: 400, errors: [{ field: 'last-event-id' }] });
  expect([first, second, whole].map(({ text }) => text).join()).not.toContain(CANARY);

  // Bull Board tells of each job what the saga's events say, and why it was put back.
  const logsOf = async (revision: number) => {
    const answer = await web.call('GET', `/queues/api/queues/saga-steps/${id}_${revision}/logs`, { headers: bearer(secrets.read) });
    expect(answer.text).not.toContain(CANARY);
    return z.array(z.string()).parse(answer.json()).map((line) => line.replace(/^\d{4}-\S+Z /, ''));
  };
  const created = saga.events.find(({ kind, step }) => kind === 'step_completed' && step === 'create_droplet')?.seq ?? 0;
  expect(await logsOf(0)).toEqual(['saga started', 'create_droplet: announced a create', expect.stringMatching(/^create_droplet completed: created droplet \d+$/)]);
  const waits = await logsOf(created);
  expect(waits.length).toBeGreaterThan(1);
  expect(waits.at(-1)).toMatch(/^wait_droplet_active completed/);
  expect(waits.slice(0, -1).every((line) => line.includes('new'))).toBe(true);

  const metrics = await web.call('GET', '/metrics', { headers: bearer(secrets.read) });
  expect(metrics.text).toMatch(/^bullmq_job_completed_total\{queue="saga-steps"\} [1-9]/m);
  expect(metrics.text).toMatch(/^arcadia_step_outcomes\{step="create_droplet",outcome="completed"\} 1$/m);

  const resources = await web.call('GET', `/v1/resources?droplet_id=${textOf(saga.context['droplet_id'])}`, { headers: bearer(secrets.read) });
  expect(resources.json()).toMatchObject({ resources: [{ name: 'followed', status: 'active', provisionedBy: `saga:${id}` }] });
  expect((await web.call('GET', `/v1/sagas?droplet_id=${textOf(saga.context['droplet_id'])}`, { headers: bearer(secrets.read) })).json()).toMatchObject({ sagas: [{ id }] });
});

test('a cancel takes down what was made, and the stream tells of it', async () => {
  const id = await start('cancelled');
  await waitFor(async () => (await read(id)).context['droplet_id'] !== undefined, { what: 'the droplet' });
  const following = follow(`/v1/sagas/${id}/events`, null, () => false);
  expect((await web.call('POST', `/v1/sagas/${id}/cancel`, { body: { reason: 'changed my mind' }, headers: basic() })).status).toBe(202);
  const { told } = await following;
  expect(told.at(-1)).toMatchObject({ event: 'end', data: { status: 'compensated' } });
  expect(told.map(({ data }) => data.kind)).toContain('cancel_requested');
  const response = await fetch(`${sandbox.url}/v2/droplets`, { headers: { authorization: `Bearer ${TOKEN}` } });
  const left = z.object({ droplets: z.array(z.object({ name: z.string() })) }).parse(await response.json());
  expect(left.droplets.map(({ name }) => name)).not.toContain('cancelled');
});

test('neither user data nor the token is in any answer', async () => {
  const [saga] = sagasAnswer.parse((await web.call('GET', '/v1/sagas', { headers: basic() })).json()).sagas;
  const id = saga?.id ?? '';
  const conflict = { body: { ...droplet, name: 'followed', user_data: `${CANARY} other` }, headers: { ...basic(), 'idempotency-key': 'k' } };
  await web.call('POST', '/v1/sagas/provision_droplet', conflict);
  const answers = await Promise.all([
    ...['/v1/sagas', `/v1/sagas/${id}`, '/v1/resources?deleted=true', '/sagas', `/sagas/${id}`, '/metrics', '/readyz', '/openapi.json', '/docs', '/queues'].map((path) =>
      web.call('GET', path, { headers: basic() }),
    ),
    ...['sagas', 'saga-steps', 'saga-compensations'].map((queue) =>
      web.call('GET', `/queues/api/queues?activeQueue=${queue}&status=latest&page=1&jobsPerPage=100`, { headers: basic() }),
    ),
    web.call('POST', '/v1/sagas/provision_droplet', { ...conflict, body: { ...conflict.body, user_data: `${CANARY} third` } }),
    web.call('POST', '/v1/sagas/provision_droplet', { ...conflict, body: { ...conflict.body, user_data: `${CANARY}\0` } }),
    web.call('POST', '/v1/sagas/provision_droplet', { body: `{"user_data": "${CANARY}`, headers: basic() }),
    web.call('POST', `/v1/sagas/${id}/cancel`, { headers: basic() }),
  ]);
  expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 409, 409, 400, expect.any(Number)]);
  for (const { text } of answers) {
    expect(text).not.toContain(CANARY);
    expect(text).not.toContain(TOKEN);
  }
  expect(answers[0]?.text).toMatch(/\[sealed, \d+ bytes\]/);
});

test('the process says where it listens, ends its streams at SIGTERM, and exits 0', async () => {
  await worker.close();
  const id = await start('left-alone');
  const redisUrl = web.config.redisNodes?.join(',') ?? '';
  const child = spawn(process.execPath, [programFile('main'), 'web'], {
    env: { PATH: process.env['PATH'], ARCADIA_ENV: 'test', DATABASE_URL: web.config.databaseUrl ?? '', REDIS_URL: redisUrl, QUEUE_PREFIX: web.config.queuePrefix, PORT: '0' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const url = await waitFor(() => /"url":"([^"]+)".*"web ready"/.exec(said)?.[1], { what: 'the web to be ready' });
  const stream = await fetch(`${url}/v1/sagas/${id}/events`);
  const text = stream.text();
  child.kill('SIGTERM');
  await once(child, 'close');
  expect(child.exitCode).toBe(0);
  expect(await text).toContain('retry: 1000');
});
