// The state of the fleet, judged by facts: what is told, how bad it is, and in which words.

import { describe, expect, test } from 'vitest';
import type { QueueFacts } from '../../src/fleet/condition.ts';
import { judgeFleet } from '../../src/fleet/conditions.ts';
import type { PostgresFacts, RefusedFact } from '../../src/fleet/facts.ts';
import type { QueuePlace } from '../../src/queues/queue-store.ts';

const now = new Date('2026-11-28T12:00:00Z');
const at = (seconds: number) => new Date(now.getTime() + seconds * 1_000);
const limits = { reconcileIntervalMs: 15_000, inventorySyncIntervalMs: 900_000 };
const worker = { name: 'a:1', host: 'a', version: '1', startedAt: at(-60), lastSeenAt: at(-2), concurrency: 50, jobs: 0, isAlive: true };
const well: PostgresFacts = { now, workers: [worker], queuePlaces: [], throttledUntil: null, refused: [], untold: [], pauses: [], unfinished: 3, stuck: 0, overdueSeconds: 0, unknownSteps: { sagas: 0, steps: [] }, unknownSagas: { sagas: 0, names: [] }, unmetNeeds: { sagas: 0, ids: [], steps: [] }, missingKeys: { sagas: 0, keys: [] }, unanswered: { sagas: 0, ids: [] }, longRuns: { sagas: 0, standing: 0, ids: [], steps: [], workers: [], since: null }, isReadOnly: false, reconcilerFailingSince: null, providerFailingSince: null, orphansHeld: 0, orphansUnknown: 0, sweepsFailing: { droplets: 0, since: null, error: null }, syncAgeSeconds: 60, leases: { ended: 0, leased: 0, isHeld: false, endedProtected: 0 } };
const moving: QueueFacts = { paused: [], stalled: [] };
const refused: RefusedFact = {
  kind: 'request_refused', request: 'POST /v2/droplets', fields: ['ssh_keys'], subject: null, openedAt: at(-90), nextProbeAt: at(30), message: '403: You may not', scopes: ['ssh_key:read'], held: 21,
};

const judge = (change: Partial<PostgresFacts>, queues: QueueFacts | null = moving) => judgeFleet({ postgres: { ...well, ...change }, queues, usersFile: null }, limits, now);
const toldOf = (change: Partial<PostgresFacts>, queues?: QueueFacts | null) => judge(change, queues).conditions.map(({ name, severity }) => `${severity} ${name}`);

test('says nothing while all is well', () => {
  expect(judge({})).toMatchObject({ status: 'ok', conditions: [], at: now });
});

const toldAt = (queuePlaces: PostgresFacts['queuePlaces'], queuePlace?: QueuePlace) => judgeFleet({ postgres: { ...well, queuePlaces }, queues: moving, usersFile: null }, { ...limits, queuePlace }, now).conditions;

test('workers whose queues are elsewhere are told of, with both places', () => {
  const one = { kind: 'redis', prefix: '{one}' } as const;
  expect([toldAt([one], one), toldAt([one]), toldAt([], one)]).toEqual([[], [], []]);
  expect(toldAt([one], { kind: 'redis', prefix: '{two}' })).toMatchObject([{ name: 'queues_differ', severity: 'critical', count: 2, detail: expect.stringContaining('Live workers have theirs in Redis under QUEUE_PREFIX {one}; this process has its own in Redis under QUEUE_PREFIX {two}.') }]);
  expect(toldAt([one], { kind: 'postgres', prefix: null })).toMatchObject([{ name: 'queues_differ', detail: expect.stringContaining('this process has its own in Postgres') }]);
  expect(toldAt([one, { kind: 'postgres', prefix: null }])).toMatchObject([{ name: 'queues_differ', detail: expect.stringContaining('in Postgres and in Redis under QUEUE_PREFIX {one}') }]);
});

describe('no worker', () => {
  test('says for how long none was seen, and what waits', () => {
    const { status, conditions } = judge({ workers: [{ ...worker, isAlive: false, lastSeenAt: at(-43) }] });
    expect(status).toBe('attention');
    expect(conditions).toMatchObject([{ name: 'no_worker', title: 'No worker has been seen for 43 s', detail: '3 sagas wait.', since: at(-43) }]);
  });

  test('explains what is overdue, what stands still, and that nobody syncs', () => {
    expect(toldOf({ workers: [], overdueSeconds: 900, syncAgeSeconds: 90_000 }, { paused: [], stalled: ['saga-steps: …'] })).toEqual(['critical no_worker']);
  });
});

test('what DigitalOcean refuses is named with the scope that is probably missing, since when, and how many sagas wait', () => {
  const { conditions } = judge({ refused: [refused] });
  expect(conditions).toMatchObject([
    { name: 'scope_missing', title: 'DigitalOcean refuses POST /v2/droplets with ssh_keys', detail: 'The token probably lacks the scope ssh_key:read. 403: You may not. 21 sagas wait.', since: at(-90), until: at(30), count: 21 },
  ]);
  const token = { ...refused, kind: 'token_refused', request: null, fields: [], scopes: [], message: '401: Unable to authenticate you', held: 1 } as const;
  expect(judge({ refused: [token] }).conditions).toMatchObject([{ name: 'token_refused', title: 'DigitalOcean refuses the token', detail: '401: Unable to authenticate you. 1 saga waits.' }]);
  // A probe is due: it comes when somebody asks.
  expect(judge({ refused: [{ ...refused, nextProbeAt: at(-90) }] }).conditions).toMatchObject([{ name: 'scope_missing', until: null }]);
  expect(judge({ refused: [{ ...refused, subject: 'web-1', fields: [] }] }).conditions[0]?.title).toBe('DigitalOcean refuses POST /v2/droplets, so far only for web-1');
});

test('a budget that is used up passes by itself; a short wait for a turn is not worth a word', () => {
  expect(judge({ throttledUntil: at(240) })).toMatchObject({ status: 'waiting', conditions: [{ name: 'budget_used_up', severity: 'info', until: at(240) }] });
  expect(toldOf({ throttledUntil: at(5) })).toEqual([]);
});

test('stores that are away are told first, and a paused queue is no sync that is overdue', () => {
  expect(judgeFleet({ postgres: null, queues: null, usersFile: null }, limits, now)).toMatchObject({ status: 'attention', at: now, conditions: [{ name: 'postgres_away' }, { name: 'queue_store_away' }] });
  expect(toldOf({ stuck: 2, syncAgeSeconds: 5_000 }, { paused: ['inventory'], stalled: [] })).toEqual(['critical sagas_stuck', 'warning queue_paused']);
  expect(toldOf({ syncAgeSeconds: 5_000 })).toEqual(['warning sync_overdue']);
  expect(toldOf({ syncAgeSeconds: null })).toEqual([]);
});

test('a database without the migrations of this version is told as that, and not as a Postgres that is away', () => {
  expect(judgeFleet({ postgres: null, queues: moving, usersFile: null, isNotMigrated: true }, limits, now)).toMatchObject({ status: 'attention', conditions: [{ name: 'not_migrated', severity: 'critical', action: expect.stringContaining('arcadia migrate') }] });
  expect(judgeFleet({ postgres: well, queues: moving, usersFile: null, isNotMigrated: true }, limits, now).conditions.map(({ name }) => name)).toEqual(['not_migrated']);
});

test('overdue sagas and jobs that stand still are told of beside a live worker', () => {
  expect(toldOf({ overdueSeconds: 46 }, { paused: [], stalled: ['saga-steps: …'] })).toEqual(['critical sagas_overdue', 'critical jobs_stand_still']);
  expect(toldOf({ overdueSeconds: 44 })).toEqual([]);
});

test('sagas at steps that no worker knows are told of, with the first of their names', () => {
  expect(judge({ unknownSteps: { sagas: 1, steps: ['pack'] } }).conditions).toMatchObject([{ name: 'steps_unknown', severity: 'critical', count: 1, title: '1 saga waits for a worker that knows the step pack' }]);
  expect(judge({ unknownSteps: { sagas: 9, steps: ['a', 'b', 'c', 'd'] } }).conditions).toMatchObject([{ title: '9 sagas wait for a worker that knows the steps a, b, c and others' }]);
  expect(toldOf({ unknownSteps: null })).toEqual([]);
});

test('sagas that no worker can admit are told of, with the first of their names', () => {
  expect(judge({ unknownSagas: { sagas: 2, names: ['gone'] } }).conditions).toMatchObject([{ name: 'sagas_unknown', severity: 'critical', count: 2, title: '2 sagas wait for a worker that knows the saga gone' }]);
  expect(toldOf({ unknownSagas: null })).toEqual([]);
});

test('sagas that lack what the live version of a step needs are told of, with how to cancel them', () => {
  expect(judge({ unmetNeeds: { sagas: 1, ids: ['one'], steps: ['pack'] } }).conditions).toMatchObject([
    { name: 'needs_unmet', severity: 'critical', count: 1, title: '1 saga lacks what the live version of the step pack needs', action: expect.stringMatching(/or cancel: `arcadia cancel one`\.$/) },
  ]);
});

test('sagas whose workers lack an encryption key are told of, with its id', () => {
  expect(judge({ missingKeys: { sagas: 2, keys: ['0a1b2c3d'] } }).conditions).toMatchObject([{ name: 'key_missing', severity: 'critical', count: 2, title: '2 sagas wait for the encryption key 0a1b2c3d', action: expect.stringContaining('ARCADIA_ENCRYPTION_KEYS') }]);
});

test('steps that do not return are told of, with their sagas and workers', () => {
  const one = { sagas: 1, standing: 1, ids: ['one'], steps: ['charge'], workers: ['host:7'], since: at(-2_040) };
  expect(judge({ longRuns: one }).conditions).toMatchObject([
    { name: 'steps_hang', severity: 'warning', count: 1, since: at(-2_040), title: 'The step charge has been running for 34 min 0 s', detail: 'It takes a place of its worker: host:7. Its saga stands still.', action: expect.stringContaining('`arcadia saga one`') },
  ]);
  expect(judge({ longRuns: { ...one, standing: 0 } }).conditions).toMatchObject([{ detail: 'It takes a place of its worker: host:7. Its saga went on without it.', action: expect.stringMatching(/Restart the worker\.$/) }]);
  const four = { ...one, sagas: 4, standing: 3, ids: ['one', 'two', 'three'], steps: ['charge', 'refund'] };
  expect(judge({ longRuns: four }).conditions).toMatchObject([{ title: '4 steps (charge, refund) have been running for 10 minutes or more', action: expect.stringContaining('`arcadia saga three` and others') }]);
});

test('surplus droplets that cannot be destroyed are told of, with the error', () => {
  expect(judge({ sweepsFailing: { droplets: 1, since: at(-1_800), error: '422: Droplet is locked by support' } }).conditions).toMatchObject([
    { name: 'surplus_not_destroyed', severity: 'critical', count: 1, since: at(-1_800), title: '1 surplus droplet cannot be destroyed', detail: 'It exists and costs money. 422: Droplet is locked by support. Each sync tries again.' },
  ]);
  // The brake, or a person, holds the sweep.
  expect(judge({ orphansHeld: 6, sweepsFailing: { droplets: 1, since: at(-1_800), error: 'no' } }).conditions).toMatchObject([{ name: 'surplus_held' }, { name: 'surplus_not_destroyed', detail: 'It exists and costs money. no.' }]);
  expect(judge({ sweepsFailing: { droplets: 1, since: at(-1_800), error: 'no' } }, { ...moving, paused: ['inventory'] }).conditions.find(({ name }) => name === 'surplus_not_destroyed')?.detail).toBe('It exists and costs money. no.');
});

test('a store that is full or takes no writes is told of by its name', () => {
  expect(toldOf({}, { ...moving, isFull: true })).toEqual(['critical queue_store_full']);
  expect(judge({}, { ...moving, evictionPolicy: 'allkeys-lru' }).conditions).toMatchObject([{ name: 'queue_store_evicts', severity: 'critical', detail: expect.stringContaining('maxmemory-policy allkeys-lru') }]);
  expect(toldOf({}, { ...moving, isFull: false, evictionPolicy: null })).toEqual([]);
  // Its workers cannot show that they live.
  expect(toldOf({ isReadOnly: true, workers: [] })).toEqual(['critical postgres_read_only']);
});

test('a DigitalOcean that answers nobody for a minute is told of', () => {
  const unanswered = { sagas: 4, ids: ['one', 'two', 'three'] };
  expect(judge({ unanswered }).conditions).toMatchObject([{ name: 'sagas_unanswered', severity: 'warning', count: 4, action: expect.stringContaining('`arcadia saga one`, `arcadia saga two`, `arcadia saga three` and others') }]);
  expect(toldOf({ unanswered, providerFailingSince: at(-61) })).toEqual(['warning provider_away']);
  expect(judge({ providerFailingSince: at(-61), unfinished: 2 }).conditions).toMatchObject([{ name: 'provider_away', severity: 'warning', since: at(-61), detail: expect.stringContaining('2 sagas are unfinished') }]);
  expect(toldOf({ providerFailingSince: at(-59) })).toEqual([]);
});

test('a reconciler that fails for a minute, and surplus droplets that wait for approval, are told of', () => {
  expect(toldOf({ reconcilerFailingSince: at(-61) })).toEqual(['critical reconciler_fails']);
  expect(toldOf({ reconcilerFailingSince: at(-59) })).toEqual([]);
  expect(judge({ orphansHeld: 7 }).conditions).toMatchObject([{ name: 'surplus_held', severity: 'critical', count: 7, title: '7 surplus droplets wait for approval', action: expect.stringContaining('arcadia orphans --destroy') }]);
});

test('droplets with our tags that no saga accounts for are told of, unless the app has no inventory', () => {
  expect(judge({ orphansUnknown: 2 }).conditions).toMatchObject([{ name: 'orphans_unknown', severity: 'warning', count: 2, title: '2 droplets carry our tags, and no record here accounts for them', action: expect.stringContaining('arcadia orphans') }]);
  expect(judge({ orphansUnknown: 1 }).conditions).toMatchObject([{ title: '1 droplet carries our tags, and no record here accounts for it' }]);
  expect(judgeFleet({ postgres: { ...well, orphansUnknown: 2 }, queues: moving, usersFile: null }, { ...limits, inventorySyncIntervalMs: null }, now).status).toBe('ok');
});

test('leases that ended at once are told of while the brake holds them, and protected droplets whose lease ended', () => {
  expect(judge({ leases: { ended: 30, leased: 100, isHeld: true, endedProtected: 1 } })).toMatchObject({
    status: 'attention',
    conditions: [
      { name: 'leases_held', severity: 'critical', title: '30 of 100 leases ended at once', count: 30, action: expect.stringContaining('arcadia leases --destroy') },
      { name: 'lease_ended_protected', severity: 'warning', title: 'The lease of 1 protected droplet ended', count: 1 },
    ],
  });
  expect(toldOf({ leases: { ended: 20, leased: 20, isHeld: false, endedProtected: 0 } })).toEqual([]);
});

test('a receiver of outcomes that takes none is told of after a minute, and as critical once it is paused', () => {
  const untold = { name: 'webhook', target: 'https://billing.example', failingSince: at(-90), lastError: 'the receiver answered 503', pausedAt: null, pausedReason: null };
  expect(judge({ untold: [untold] }).conditions).toMatchObject([{ name: 'outcomes_failing', severity: 'warning', title: 'Outcomes do not reach https://billing.example', since: at(-90) }]);
  expect(toldOf({ untold: [{ ...untold, failingSince: at(-30) }] })).toEqual([]);
  const { status, conditions } = judge({ untold: [{ ...untold, pausedAt: at(-10), pausedReason: 'the receiver answered 410 Gone' }] });
  expect(status).toBe('attention');
  expect(conditions).toMatchObject([{ name: 'outcomes_paused', severity: 'critical', detail: 'the receiver answered 410 Gone.', since: at(-10) }]);
});

test('sagas that need attention are spoken of by their number', () => {
  expect(judge({ stuck: 1 }).conditions).toMatchObject([{ title: '1 saga needs attention', detail: expect.stringContaining('What its steps have done'), action: expect.stringMatching(/^Open it,/) }]);
  expect(judge({ stuck: 2 }).conditions).toMatchObject([{ title: '2 sagas need attention', detail: expect.stringContaining('What their steps have done'), action: expect.stringMatching(/^Open each one,/) }]);
});

test('a users file that cannot be used is told of with its problem, even while the stores are away', () => {
  const usersFile = { message: 'DASHBOARD_USERS_FILE: line 2: expected name:role:hash', since: at(-5) };
  const { status, conditions } = judgeFleet({ postgres: well, queues: moving, usersFile }, limits, now);
  expect(status).toBe('attention');
  expect(conditions).toMatchObject([{ name: 'users_file_broken', severity: 'warning', since: at(-5), detail: expect.stringContaining('line 2: expected name:role:hash. Users of its last valid version can still log in') }]);
  expect(judgeFleet({ postgres: null, queues: null, usersFile }, limits, now).conditions.map(({ name }) => name)).toEqual(['postgres_away', 'queue_store_away', 'users_file_broken']);
});
