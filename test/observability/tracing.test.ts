// One trace for a saga, from its start to its last step: through polls, retries, the rollback, a cancel that somebody else
// asked for, and the loss of the queues. The SDK here is one that a user may register; the project knows only its API.
import { SpanKind, SpanStatusCode, context, propagation, trace } from '@opentelemetry/api';
import type { ReadableSpan } from '@opentelemetry/sdk-trace-base';
import { InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import { NodeTracerProvider } from '@opentelemetry/sdk-trace-node';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { loadConfig } from '../../src/platform/config.ts';
import { silentLog } from '../../src/platform/log.ts';
import { openQueueConnection } from '../../src/queues/connection.ts';
import { intakeJobSchema, jobIdOf, queueNames } from '../../src/queues/jobs.ts';
import { startedAnswer } from '../../src/web/api/saga-shapes.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { startWeb } from '../../src/processes/web.ts';
import type { Fleet } from '../support/fleet.ts';
import { openFleet } from '../support/fleet.ts';
import { waitFor } from '../support/wait-for.ts';

const backends = ['redis', 'postgres'] as const;
const droplet = { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };
const CANARY = 'canary-user-data-51aa';

const exporter = new InMemorySpanExporter();
const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
provider.register();

beforeEach(() => exporter.reset());
afterAll(async () => {
  await provider.shutdown();
  trace.disable();
  context.disable();
  propagation.disable();
});

/** A worker in this process, where its spans can be seen. */
async function work(fleet: Fleet, changes: NodeJS.ProcessEnv = {}) {
  return startWorker(loadConfig(fleet.environment({ WAIT_POLL_INTERVAL_MS: '100', ...changes })), silentLog);
}

const spans = (): ReadableSpan[] => exporter.getFinishedSpans();
const named = (name: string): ReadableSpan[] => spans().filter((span) => span.name === name);

/** Polls are runs of the same job. */
const isPoll = ({ attributes }: ReadableSpan): boolean => attributes['arcadia.step.result'] === 'waiting';

/** Every span that tells of this saga, and those below them, belong to one trace; and there is no other. */
function traceIds(): string[] {
  return [...new Set(spans().map((span) => span.spanContext().traceId))];
}

async function closed(worker: { close(): Promise<void> }): Promise<void> {
  await worker.close();
  await provider.forceFlush();
}

describe.each(backends)('a trace, queues on %s', (backend) => {
  test('holds a whole saga, its polls, requests and statements, and no other', async () => {
    await using fleet = await openFleet(backend, { activateAfterMs: 60_000 });
    const worker = await work(fleet);
    const { sagaId } = await fleet.client.provisionDroplet({ ...droplet, user_data: CANARY });
    await waitFor(() => Promise.resolve(named('process saga-steps').some(isPoll)), { what: 'a poll', deadlineMs: 15_000, everyMs: 20 });
    fleet.sandbox.advanceClock(60_000);
    const saga = await fleet.atRest(sagaId);
    expect(saga.status).toBe('completed');
    await closed(worker);

    expect(traceIds()).toHaveLength(1);
    const [root] = spans().filter((span) => span.parentSpanContext === undefined);
    expect(root?.name).toBe('start provision_droplet');
    expect(root?.attributes).toMatchObject({ 'arcadia.saga.id': sagaId });
    expect(saga.traceparent).toBe(`00-${root?.spanContext().traceId}-${root?.spanContext().spanId}-01`);
    const runs = named('process saga-steps');
    expect(runs.map(({ attributes }) => attributes['arcadia.step.name'])).toEqual(expect.arrayContaining([...saga.steps]));
    expect(runs[0]?.attributes).toMatchObject({
      'arcadia.saga.id': sagaId, 'arcadia.saga.name': 'provision_droplet', 'arcadia.step.direction': 'forward', 'arcadia.step.attempt': 1,
      'messaging.system': 'bullmq', 'messaging.operation.type': 'process', 'messaging.destination.name': 'saga-steps',
    });
    const [post] = named('POST /v2/droplets');
    expect(post).toMatchObject({ kind: SpanKind.CLIENT, attributes: { 'http.request.method': 'POST', 'url.template': '/v2/droplets', 'http.response.status_code': 202 } });
    expect(runs.map((span) => span.spanContext().spanId)).toContain(post?.parentSpanContext?.spanId);
    expect(named('store.commit')[0]).toMatchObject({ kind: SpanKind.CLIENT, attributes: { 'db.system.name': 'postgresql', 'db.query.summary': 'store.commit' } });
    const told = JSON.stringify(spans().map(({ name, attributes, events, status }) => ({ name, attributes, events, status })));
    expect(told).not.toContain(CANARY);
    expect(told).not.toContain('web-1');
  });

  test('goes on after the queues were emptied', async () => {
    await using fleet = await openFleet(backend);
    const { sagaId } = await fleet.client.provisionDroplet(droplet);
    const connection = openQueueConnection(fleet.queueStore, silentLog);
    const steps = connection.queue(queueNames.steps);
    expect(await steps.getJob(jobIdOf({ sagaId, revision: 0 }))).toBeDefined();
    await steps.obliterate({ force: true });
    await steps.close();
    await connection.close();
    await fleet.db.sql`update arcadia.sagas set wake_at = now() where id = ${sagaId}`;
    const worker = await work(fleet);
    expect((await fleet.atRest(sagaId)).status).toBe('completed');
    await closed(worker);
    const [root] = named('start provision_droplet');
    const runs = named('process saga-steps');
    expect(runs.length).toBeGreaterThanOrEqual(3);
    expect(new Set(runs.map((span) => span.spanContext().traceId))).toEqual(new Set([root?.spanContext().traceId]));
  });
});

test('a rollback that a request of the HTTP API asked for is in the trace of the saga, which is that of its caller', async () => {
  await using fleet = await openFleet('redis', { activateAfterMs: 60_000 });
  const config = loadConfig(fleet.environment({ PORT: '0' }));
  const web = await startWeb(config, silentLog);
  const worker = await work(fleet);
  const caller = { traceId: '4bf92f3577b34da6a3ce929d0e0e4736', spanId: '00f067aa0ba902b7' };
  const post = async (path: string, body: unknown, headers: Record<string, string> = {}): Promise<unknown> => {
    const response = await fetch(`${web.url}${path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) });
    expect(response.status).toBe(202);
    return response.json();
  };
  const started = await post('/v1/sagas/provision_droplet', droplet, { traceparent: `00-${caller.traceId}-${caller.spanId}-01` });
  const { sagaId } = startedAnswer.pick({ sagaId: true }).parse(started);
  await waitFor(() => named('process saga-steps').some(({ attributes }) => attributes['arcadia.step.result'] === 'waiting'), { what: 'the wait to begin' });
  await post(`/v1/sagas/${sagaId}/cancel`, {});
  expect((await fleet.atRest(sagaId)).status).toBe('compensated');
  await closed(worker);
  await web.close();

  const [request] = named('POST /v1/sagas/provision_droplet');
  expect(request).toMatchObject({ kind: SpanKind.SERVER, attributes: { 'http.response.status_code': 202 }, parentSpanContext: { spanId: caller.spanId } });
  const runs = spans().filter(({ name }) => name.startsWith('process '));
  expect(new Set(runs.map((span) => span.spanContext().traceId))).toEqual(new Set([caller.traceId]));
  expect(runs.filter(({ attributes }) => attributes['arcadia.step.direction'] === 'backward').length).toBeGreaterThanOrEqual(2);
  const [cancel] = named('POST /v1/sagas/:id/cancel');
  expect(cancel?.spanContext().traceId).not.toBe(caller.traceId);
});

test('a producer of another program takes the intake into its trace; a failed step is marked', async () => {
  await using fleet = await openFleet('redis', { faults: { rules: [{ match: { method: 'POST', path: '/v2/droplets' }, effect: { status: 422, body: { id: 'unprocessable_entity', message: 'no such size' } } }] } });
  const worker = await work(fleet);
  const connection = openQueueConnection(fleet.queueStore, silentLog);
  const intake = connection.queue(queueNames.intake);
  await provider.getTracer('another program').startActiveSpan('order', async (span) => {
    await intake.add('provision_droplet', intakeJobSchema.parse({ input: droplet }));
    span.end();
  });
  const sagas = await waitFor(async () => {
    const found = await fleet.client.list();
    return found.length === 1 && found;
  }, { what: 'the saga' });
  expect((await fleet.atRest(sagas[0]?.id ?? '')).status).toBe('compensated');
  await intake.close();
  await connection.close();
  await closed(worker);
  const [order] = named('order');
  const runs = spans().filter(({ name }) => name.startsWith('process '));
  expect(runs.map(({ name }) => name)).toEqual(expect.arrayContaining(['process sagas', 'process saga-steps', 'process saga-compensations']));
  expect(new Set(runs.map((span) => span.spanContext().traceId))).toEqual(new Set([order?.spanContext().traceId]));
  const [failed] = runs.filter(({ attributes }) => attributes['arcadia.step.result'] === 'failed');
  expect(failed).toMatchObject({ status: { code: SpanStatusCode.ERROR }, attributes: { 'error.type': 'failed' } });
  expect(named('POST /v2/droplets')[0]).toMatchObject({ status: { code: SpanStatusCode.ERROR }, attributes: { 'error.type': 'DigitalOceanError', 'http.response.status_code': 422 } });
});
