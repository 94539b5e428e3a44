// Checks the invariants of a saga at rest against Postgres, the sandbox's ledger and the queues. Returns all violations as
// text, so that a failed case shows all of them at once.

import { isDeepStrictEqual } from 'node:util';
import type { Job } from 'bullmq';
import type { Database } from '../../src/platform/db.ts';
import type { LedgerEntry, Sandbox } from '../../src/sandbox/server.ts';
import { listInventory } from '../../src/inventory/resources.ts';
import type { QueueConnection } from '../../src/queues/connection.ts';
import { queueNames } from '../../src/queues/jobs.ts';
import type { Saga, SagaStatus } from '../../src/saga/saga.ts';
import { listEvents } from '../../src/saga/events.ts';
import { loadSaga } from '../../src/saga/store.ts';
import { recordedDropletId } from '../../src/inventory/droplet-of-saga.ts';
import { waitFor } from './wait-for.ts';

/** Where to look. */
export type Scene = {
  readonly db: Database;
  readonly queues: QueueConnection;
  readonly sandbox: Pick<Sandbox, 'state' | 'ledger'>;
  /** Droplets that are none of ours: alive and untouched at the end. */
  readonly foreign: readonly number[];
};

/** What a saga is held to, on top of what holds for all of them. */
export type Expectation = {
  readonly status: SagaStatus;
  /** How many creates may have been sent: at least, at most. */
  readonly posts: readonly [number, number];
  /** How many droplets may have been made, over time; never more than one of them is alive at rest. */
  readonly made: readonly [number, number];
  /** Text that must stand in no job. */
  readonly secrets?: readonly string[];
};

const jobsWithinMs = 10_000;

/** Says what is wrong with a saga that should be at rest; empty: nothing. */
export async function problemsAtRest(scene: Scene, sagaId: string, expected: Expectation): Promise<string[]> {
  const saga = (await loadSaga(scene.db, sagaId))?.saga;
  if (saga === undefined) return [`saga ${sagaId} not found`];
  return [
    ...(saga.status === expected.status ? [] : [`the saga is ${saga.status}, not ${expected.status}: ${JSON.stringify(saga.error)}`]),
    ...(await problemsOfHistory(scene, saga)),
    ...problemsOfDroplets(scene, saga, expected),
    ...(await problemsOfInventory(scene, saga)),
    ...(await problemsOfQueues(scene, saga, expected.secrets ?? [])),
  ];
}

async function problemsOfHistory({ db }: Scene, saga: Saga): Promise<string[]> {
  const problems: string[] = [];
  const events = await listEvents(db, saga.id);
  const expected = Array.from({ length: saga.revision + 1 }, (_, seq) => seq);
  const found = events.map(({ seq }) => seq);
  if (found.join() !== expected.join()) problems.push(`revision ${saga.revision} has the events ${found.join()}`);
  if (events.at(-1)?.detail['status'] !== saga.status) problems.push(`the last event says ${JSON.stringify(events.at(-1)?.detail)}`);
  const [row] = await db.sql<{ wakeAt: Date | null; finishedAt: Date | null; isSealed: boolean }[]>`
    select wake_at, finished_at, sealed_user_data is not null as is_sealed from arcadia.sagas where id = ${saga.id}`;
  if (row?.wakeAt !== null) problems.push('a saga at rest has a time to wake');
  if (row?.finishedAt === null) problems.push('a saga that ended has no time of its end');
  if (row?.isSealed === true) problems.push('a saga at rest still has its user data');
  return problems;
}

function problemsOfDroplets({ sandbox, foreign }: Scene, saga: Saga, expected: Expectation): string[] {
  const problems: string[] = [];
  const all = sandbox.state();
  const own = all.filter((line) => line.tags.includes(`arcadia-saga-id-${saga.id}`));
  const alive = own.filter((line) => line.alive).map(({ id }) => id);
  const wanted = saga.name === 'provision_droplet' && saga.status === 'completed' ? [recordedDropletId(saga)] : [];
  if (alive.join() !== wanted.join()) problems.push(`alive are the droplets [${alive.join()}], on record [${wanted.join()}]`);
  if (!isWithin(own.length, expected.made)) problems.push(`it made ${own.length} droplets, not ${expected.made.join(' to ')}`);
  const posts = sandbox.ledger().filter((entry) => isCreateOf(entry, own.map(({ id }) => id))).length;
  if (!isWithin(posts, expected.posts)) problems.push(`it sent ${posts} creates, not ${expected.posts.join(' to ')}`);
  for (const id of foreign) {
    if (all.find((line) => line.id === id)?.alive !== true) problems.push(`droplet ${id} is somebody else's, and is gone`);
  }
  const touched = sandbox.ledger().filter((entry) => foreign.some((id) => entry.method !== 'GET' && entry.path.endsWith(`/${id}`)));
  if (touched.length > 0) problems.push(`a droplet of somebody else's was asked for: ${touched.map(({ method, path }) => `${method} ${path}`).join()}`);
  if (sandbox.ledger().some((entry) => entry.method === 'DELETE' && entry.query['tag_name'] !== undefined)) problems.push('droplets were deleted by tag');
  return problems;
}

// The ledger has no body of a create that made nothing, so such a create is attributed to the saga under test.
function isCreateOf(entry: LedgerEntry, own: readonly number[]): boolean {
  return entry.method === 'POST' && entry.path === '/v2/droplets' && (entry.made.length === 0 || entry.made.some((id) => own.includes(id)));
}

async function problemsOfInventory({ db, sandbox }: Scene, saga: Saga): Promise<string[]> {
  const problems: string[] = [];
  const rows = await listInventory(db);
  const provisions = await db.sql<{ resourceId: string; provisionedBy: string; spec: object; releasedAt: Date | null }[]>`
    select resource_id, provisioned_by, spec, released_at from arcadia.cloud_provisioned where saga_id = ${saga.id}`;
  const own = sandbox.state().filter((line) => line.tags.includes(`arcadia-saga-id-${saga.id}`)).map(({ id }) => String(id));
  const present = rows.filter((row) => own.includes(row.providerId) && row.deletedAt === null);
  if (saga.name === 'provision_droplet' && saga.status === 'completed') {
    const [row] = present;
    const { size, region, image } = saga.input;
    if (present.length !== 1 || row?.providerId !== String(recordedDropletId(saga))) problems.push(`the inventory has ${JSON.stringify(present)}`);
    if (row?.id !== saga.context['cloud_resource_id'] || row?.status !== 'active') problems.push(`the inventory's row is ${JSON.stringify(row)}`);
    const [provision] = provisions;
    const isRight =
      provisions.length === 1 &&
      provision?.resourceId === row?.id &&
      provision?.provisionedBy === `saga:${saga.id}` &&
      provision.releasedAt === null &&
      isDeepStrictEqual(provision.spec, { size_slug: size, region, image });
    if (!isRight) problems.push(`cloud_provisioned has ${JSON.stringify(provisions)}`);
  } else if (saga.name === 'adopt_droplet' && saga.status === 'completed') {
    const [provision] = provisions;
    if (provisions.length !== 1 || provision?.resourceId !== saga.context['cloud_resource_id'] || provision?.releasedAt !== null) problems.push(`cloud_provisioned has ${JSON.stringify(provisions)}`);
  } else {
    if (present.length > 0) problems.push(`the inventory still shows ${JSON.stringify(present)}`);
    if (provisions.length > 0) problems.push(`cloud_provisioned still has ${JSON.stringify(provisions)}`);
  }
  if (saga.name === 'adopt_droplet') problems.push(...problemsOfAdopted(rows, sandbox, saga));
  if (saga.name === 'destroy_droplet' && saga.status === 'completed') problems.push(...(await problemsOfDestroyed(db, sandbox, saga)));
  return problems;
}

/** It lives, carries our tags if it was adopted and none if it was not, and is not taken for gone. */
function problemsOfAdopted(rows: Awaited<ReturnType<typeof listInventory>>, sandbox: Scene['sandbox'], saga: Saga): string[] {
  const id = Number(saga.input['droplet_id']);
  const droplet = sandbox.state().find((line) => line.id === id);
  const tags = droplet?.tags.filter((tag) => tag.startsWith('arcadia-') || tag === 'managed-by-arcadia-cloud').toSorted() ?? [];
  const wanted = saga.status === 'completed' ? [`arcadia-adopted-${saga.id}`, 'managed-by-arcadia-cloud'] : [];
  return [
    ...(droplet?.alive === true ? [] : [`droplet ${id} is gone`]),
    ...(tags.join() === wanted.join() ? [] : [`droplet ${id} carries ${tags.join()}, not ${wanted.join()}`]),
    ...(rows.some((row) => row.providerId === String(id) && row.deletedAt !== null) ? [`the inventory takes droplet ${id} for gone`] : []),
  ];
}

async function problemsOfDestroyed(db: Database, sandbox: Scene['sandbox'], saga: Saga): Promise<string[]> {
  const id = Number(saga.input['droplet_id']);
  const problems: string[] = [];
  if (sandbox.state().some((line) => line.id === id && line.alive)) problems.push(`droplet ${id} is alive`);
  const [row] = await db.sql<{ isDone: boolean }[]>`
    select resource.deleted_at is not null and provisioned.released_at is not null as is_done
    from arcadia.cloud_resources resource join arcadia.cloud_provisioned provisioned on provisioned.resource_id = resource.id
    where resource.provider_id = ${String(id)}`;
  if (row?.isDone !== true) problems.push(`the inventory does not show that droplet ${id} is gone`);
  return problems;
}

async function problemsOfQueues({ queues }: Scene, saga: Saga, secrets: readonly string[]): Promise<string[]> {
  const intake = queues.queue(queueNames.intake);
  const steps = [queueNames.steps, queueNames.compensations].map((name) => queues.queue(name));
  const opened = [intake, ...steps];
  try {
    const live = async () => {
      const [requests = [], ...jobs] = await Promise.all(opened.map((queue) => queue.getJobs(['waiting', 'delayed', 'active', 'prioritized'])));
      // A request that was not taken in yet does not name its saga.
      return [...requests, ...jobs.flat().filter((job) => mentions(job, saga.id))];
    };
    let left: Job[] = [];
    let quietLooks = 0;
    // A job that is late finds the saga at rest and ends; one of a dead worker is delivered once more before. One that
    // moves from state to state while the states are read may be missed: a single look proves nothing.
    const quiet = async () => {
      left = await live();
      quietLooks = left.length === 0 ? quietLooks + 1 : 0;
      return quietLooks >= 3;
    };
    await waitFor(quiet, { what: 'the last job of the saga', deadlineMs: jobsWithinMs, everyMs: 40 }).catch(() => undefined);
    const problems = left.map((job) => `a job is left: ${job.id} ${JSON.stringify(job.data)}`);
    const every = (await Promise.all(opened.map((queue) => queue.getJobs(['completed', 'failed', 'waiting', 'delayed', 'active'])))).flat();
    const texts = every.filter((job) => job !== undefined).map((job) => JSON.stringify([job.data, job.failedReason, job.returnvalue]));
    for (const secret of secrets) if (texts.some((text) => text.includes(secret))) problems.push(`${secret} stands in a job`);
    return problems;
  } finally {
    await Promise.all(opened.map((queue) => queue.close()));
  }
}

// A job may be removed between the list of ids and the read of its hash.
function mentions(job: Job | undefined, sagaId: string): boolean {
  return job !== undefined && JSON.stringify(job.data).includes(sagaId);
}

function isWithin(count: number, [least, most]: readonly [number, number]): boolean {
  return count >= least && count <= most;
}
