// The timeline: bars out of events, with when each began and ended.
import { expect, test, vi } from 'vitest';
import { showLive } from '../../src/cli/live-progress.ts';
import { formatSaga } from '../../src/cli/saga-text.ts';
import { catalog } from '../../src/steps/catalog.ts';
import { surfaceOf } from '../../src/saga/words.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import type { Saga, SagaEventKind } from '../../src/saga/saga.ts';
import type { Memo } from '../../src/saga/step.ts';
import type { StoredEvent } from '../../src/saga/events.ts';
import { foldAttempts, foldNotes, partTimeline } from '../../src/web/pages/fold-timeline.ts';
import { timelineOf } from '../../src/web/pages/timeline.ts';
import { renderTimeline } from '../../src/web/pages/timeline-view.ts';
import { formatDuration } from '../../src/platform/duration.ts';
import { describeWait, untakenForMs } from '../../src/web/pages/waits.ts';

const surface = surfaceOf(catalog);

const at = (seconds: number): Date => new Date(Date.UTC(2026, 0, 1) + seconds * 1_000);

const saga: Saga = {
  id: 'b7c9f6e0-1f5a-4a53-9d4e-1d9f64c1a001', saga8: 'b7c9f6e0', name: 'provision_droplet', status: 'running',
  steps: ['create_droplet', 'wait_droplet_active', 'register_droplet'], cursor: 1, revision: 9, attempt: 0, input: {}, context: {}, error: null,
  idempotencyKey: null, requestedBy: null, startedBy: null, priority: 'normal', traceparent: null, resource: null, waitsFor: null, rerunOf: null, rerunAs: null, cancelRequestedAt: null, stepStartedAt: at(0), createdAt: at(0), updatedAt: at(0), finishedAt: null,
};

/** What happened when. */
type Told = readonly [kind: SagaEventKind, second: number, step?: string | null, attempt?: number, detail?: JsonObject];

function eventsOf(...told: readonly Told[]): StoredEvent[] {
  return told.map(([kind, second, step = null, attempt = 1, detail = {}], seq) => ({ seq, at: at(second), kind, step, attempt, detail, worker: 'w1' }));
}

const draw = (of: Saga, events: readonly StoredEvent[], now: number, polls?: number): (string | number | null)[][] =>
  timelineOf(of, events, { now: at(now), memo: polls === undefined ? {} : { polls }, isWaiting: false }).map(({ kind, title, from, to, polls: looked }) => [
    kind, title, (from.getTime() - at(0).getTime()) / 1_000, to === null ? null : (to.getTime() - at(0).getTime()) / 1_000, looked,
  ]);

const create: readonly Told[] = [
  ['saga_created', 0],
  ['saga_started', 3],
  ['step_recorded', 4, 'create_droplet', 1, { note: 'announced a create' }],
  ['step_retried', 5, 'create_droplet', 1, { message: 'DigitalOcean: no (request r-1)', delayMs: 2_000 }],
  ['step_completed', 8, 'create_droplet', 2, { note: 'created droplet 7' }],
];

test('draws a step that nobody has taken, and one that is held, as a wait and not as a run', () => {
  const events = eventsOf(...create);
  const present = { now: at(60), memo: {}, isWaiting: false };
  expect(timelineOf(saga, events, present).at(-1)).toMatchObject({ kind: 'attempt', tone: 'live' });
  expect(timelineOf(saga, events, { ...present, untakenSince: at(17) }).at(-1)).toMatchObject({ kind: 'wait', tone: 'wait', title: 'wait_droplet_active · not taken', from: at(17), to: null });
  expect(timelineOf(saga, events, { ...present, isHeld: true }).at(-1)).toMatchObject({ kind: 'wait', tone: 'bad' });
  expect(timelineOf({ ...saga, status: 'pending' }, events, present).at(-1)).toMatchObject({ kind: 'wait', tone: 'live' });
});

test('draws a step as a wait while the queues do not say whether a worker has it', () => {
  const events = eventsOf(...create);
  const present = { now: at(60), memo: {}, isWaiting: false, isJobUnknown: true };
  expect(timelineOf(saga, events, present).at(-1)).toMatchObject({ kind: 'wait', tone: 'wait', text: 'not known: the queues do not answer', to: null });
  expect(timelineOf(saga, events, { ...present, isHeld: true }).at(-1)).toMatchObject({ kind: 'wait', tone: 'bad', text: null });
  expect(timelineOf(saga, events, { ...present, untakenSince: at(17) }).at(-1)).toMatchObject({ title: 'wait_droplet_active · not taken' });
});

test.each([
  ['a worker that lives has it', { takenBy: 'a:1', dueInMs: 0, dueSinceMs: 43_000 }, ['a:1'], null],
  ['the worker that had it is dead', { takenBy: 'b:2', dueInMs: 0, dueSinceMs: 43_000 }, ['a:1'], 43_000],
  ['none has it', { takenBy: null, dueInMs: 0, dueSinceMs: 43_000 }, ['a:1'], 43_000],
  ['it has just become due', { takenBy: null, dueInMs: 0, dueSinceMs: 400 }, [], null],
  ['it is not due yet', { takenBy: null, dueInMs: 5_000, dueSinceMs: 0 }, [], null],
  ['nobody knows who lives', { takenBy: 'b:2', dueInMs: 0, dueSinceMs: 43_000 }, null, null],
  ['its queue has no job and no worker lives', null, [], 60_000],
  ['its queue has no job and a worker lives', null, ['a:1'], null],
] as const)('a step counts as not taken, or does not, where %s', (_where, job, aliveWorkers, expected) => {
  expect(untakenForMs({ updatedAt: at(0) }, job, { aliveWorkers, now: at(60) })).toBe(expected);
});

test('shows each attempt from when it ran, the back-off between them, and a wait that goes on as one bar', () => {
  const events = eventsOf(...create);
  expect(draw(saga, events, 20, 4)).toEqual([
    ['mark', 'requested', 0, 0, null],
    ['wait', 'waited for a worker', 0, 3, null],
    ['attempt', 'create_droplet · attempt 1', 3, 5, null],
    ['wait', 'back-off', 5, 7, null],
    ['attempt', 'create_droplet · attempt 2', 7, 8, null],
    ['wait', 'wait_droplet_active', 8, null, 4],
  ]);
  const [, , failed] = timelineOf(saga, events, { now: at(20), memo: {}, isWaiting: false });
  expect(failed).toMatchObject({ tone: 'bad', text: 'DigitalOcean: no', requestId: 'r-1', notes: [{ at: at(4), text: 'announced a create' }], job: { revision: 0, direction: 'forward' } });
});

/** Attempts at a step that failed, two seconds each, with a back-off of a second between them. */
const failing = (messages: readonly string[], from = 3): Told[] =>
  messages.map((message, index): Told => ['step_retried', from + 2 + index * 3, 'create_droplet', index + 1, { message, delayMs: 1_000 }]);
const said = (seconds: number) => `DigitalOcean: 503 (request r-${seconds}); again in ${seconds} s`;
const folded = (told: readonly Told[]) =>
  foldAttempts(timelineOf(saga, eventsOf(['saga_created', 0], ['saga_started', 0.5], ...told), { now: at(99), memo: {}, isWaiting: false })).map(({ title }) => title);

test('folds attempts in a row that failed alike into one entry, with each of them in it', () => {
  const entries = foldAttempts(timelineOf(saga, eventsOf(['saga_created', 0], ['saga_started', 0.5], ...failing(['other', said(1), said(2), said(3)])), { now: at(99), memo: {}, isWaiting: false }));
  expect(entries.map(({ title }) => title)).toEqual(['requested', 'create_droplet · attempt 1', 'back-off', 'create_droplet · attempts 2–4 failed alike', 'back-off', 'wait_droplet_active']);
  const [, , , fold] = entries;
  expect(fold).toMatchObject({ tone: 'bad', from: at(6), to: at(14), requestId: 'r-3', job: null });
  expect(fold?.alike.map(({ attempt, requestId }) => [attempt?.nth, requestId])).toEqual([[2, 'r-1'], [3, 'r-2'], [4, 'r-3']]);
});

test('folds no two attempts, none that failed differently, and none over what lies between them', () => {
  expect(folded(failing(['a', 'a']))).toEqual(['requested', 'create_droplet · attempt 1', 'back-off', 'create_droplet · attempt 2', 'back-off', 'wait_droplet_active']);
  expect(folded(failing(['a', 'b', 'a', 'b'])).filter((title) => title.includes('alike'))).toEqual([]);
  const stuck: Told[] = [['step_stuck', 20, 'create_droplet', 3, { message: 'a' }], ['retry_requested', 30, 'create_droplet', 1, { by: 'http:ada', status: 'running' }]];
  expect(folded([...failing(['a', 'a']), ...stuck, ...failing(['a', 'a'], 30)])).toEqual([
    'requested', 'create_droplet · attempts 1–3 failed alike', 'needed attention', 'retry requested', 'create_droplet · attempt 1', 'back-off', 'create_droplet · attempt 2', 'back-off', 'wait_droplet_active',
  ]);
});

test('keeps the first and the newest entries of a long timeline in sight, and loses none', () => {
  const entries = timelineOf(saga, eventsOf(['saga_created', 0], ['saga_started', 0.5], ...failing(Array.from({ length: 100 }, (_, index) => ['a', 'b'][index % 2] ?? ''))), { now: at(999), memo: {}, isWaiting: false });
  const { first, between, newest } = partTimeline(entries);
  expect([...first, ...between, ...newest]).toEqual(entries);
  expect([first.length, newest.length, newest.at(-1)?.to]).toEqual([3, 20, null]);
  const html = renderTimeline(saga, entries, at(999), () => ({ queue: 'q', id: 'j' })).text;
  expect(html).toContain(`<details id="between"><summary>${between.length} more, `);
  const few = entries.slice(0, 24);
  expect(partTimeline(few)).toEqual({ first: [], between: [], newest: few });
});

test('joins notes in a row that say the same', () => {
  const note = (second: number, text: string) => ({ at: at(second), text });
  expect(foldNotes([note(1, 'not yet'), note(2, 'not yet'), note(3, 'announced'), note(4, 'not yet')])).toEqual([
    { at: at(1), until: at(2), count: 2, text: 'not yet' },
    { at: at(3), until: at(3), count: 1, text: 'announced' },
    { at: at(4), until: at(4), count: 1, text: 'not yet' },
  ]);
});

test('shows a wait that is over with its polls, what a cancel cut short, and how long a stuck saga waited for a person', () => {
  const waited = eventsOf(...create, ['step_completed', 30, 'wait_droplet_active', 1, { note: 'droplet 7 is active after 5 polls' }]);
  expect(draw({ ...saga, cursor: 2 }, waited, 31).slice(5)).toEqual([
    ['wait', 'wait_droplet_active', 8, 30, 5],
    ['attempt', 'register_droplet', 30, null, null],
  ]);
  const stuck = eventsOf(
    ...create,
    ['cancel_requested', 12, 'wait_droplet_active', 1, { by: 'http:ada', reason: 'too large', status: 'compensating' }],
    ['compensation_completed', 13, 'wait_droplet_active'],
    ['compensation_stuck', 14, 'create_droplet', 1, { message: 'locked' }],
  );
  const soFar = [
    ['attempt', 'wait_droplet_active · cut short', 8, 12, null],
    ['mark', 'cancel requested', 12, 12, null],
    ['attempt', 'undo wait_droplet_active', 12, 13, null],
    ['attempt', 'undo create_droplet · attempt 1', 13, 14, null],
  ];
  expect(draw({ ...saga, status: 'stuck', cursor: 0, attempt: 1 }, stuck, 99).slice(5)).toEqual([...soFar, ['wait', 'needs attention', 14, null, null]]);
  const resumed = [...stuck, ...eventsOf(['retry_requested', 60, 'create_droplet', 1, { by: 'http:ada' }])];
  expect(draw({ ...saga, status: 'compensating', cursor: 0 }, resumed, 61).slice(5)).toEqual([
    ...soFar,
    ['wait', 'needed attention', 14, 60, null],
    ['mark', 'retry requested', 60, 60, null],
    ['attempt', 'undo create_droplet', 60, null, null],
  ]);
});

test('a saga that was cancelled before anything ran has nothing that was cut short', () => {
  const events = eventsOf(['saga_created', 0], ['cancel_requested', 2, 'create_droplet', 1, { by: 'x', status: 'compensated' }]);
  expect(draw({ ...saga, status: 'compensated', cursor: 0 }, events, 3).map(([, title]) => title)).toEqual(['requested', 'cancel requested']);
});

test('says what a droplet has to answer, and how often it was checked', () => {
  const waiting: Saga = { ...saga, steps: ['create_droplet', 'wait_droplet_active', 'wait_droplet_ready', 'register_droplet'], cursor: 2, context: { droplet_id: 7, public_ipv4: '1.2.3.4' } };
  const told = (ready: JsonObject, memo: Memo, reason?: string) => describeWait({ ...waiting, input: { ready } }, surface, undefined, { memo, ...(reason === undefined ? {} : { reason }) });
  expect(told({ tcp: 22 }, {})).toBe('waits for port 22 of 1.2.3.4 to answer');
  expect(told({ tcp: 22 }, { polls: 5 }, 'last check: connection refused')).toBe('waits for port 22 of 1.2.3.4 to answer, checked 5 times; last check: connection refused');
  expect(told({ http: { port: 80, path: '/up' } }, { polls: 1 })).toBe('waits for http://1.2.3.4:80/up to answer, checked 1 time');
  expect(told({ callback: true }, { polls: 2 })).toBe('waits for the droplet to report that its user data ran, checked 2 times');
  expect(told({ nonsense: true }, {})).toBe('waits for the droplet to be ready');
});

test('says in words what is waited for', () => {
  const retried = eventsOf(...create)[3];
  expect(describeWait({ ...saga, cursor: 0, attempt: 1 }, surface, retried, { memo: {} })).toBe('creating the droplet: attempt 1 failed, retrying: DigitalOcean: no');
  expect(describeWait(saga, surface, undefined, { memo: { polls: 2 } })).toBe('waiting for the droplet to become active: 2 polls');
  expect(describeWait(saga, surface, undefined, { memo: { polls: 2 }, reason: 'droplet 7 is new' })).toBe('waiting for the droplet to become active: droplet 7 is new (2 polls)');
  expect(describeWait({ ...saga, status: 'compensating', cursor: 0 }, surface, undefined, { memo: { outages: 1 } })).toContain('undoing create_droplet: DigitalOcean is unreachable (1 attempt)');
  expect(describeWait({ ...saga, status: 'pending' }, surface, undefined, { memo: {} })).toContain('waiting for a worker to run its first step');
});

test.each([
  [0, '0 s'], [-5, '0 s'], [1, '1 ms'], [999, '999 ms'], [1_000, '1 s'], [1_240, '1.2 s'], [9_960, '10 s'], [59_499, '59 s'], [59_500, '1 min 0 s'], [3_599_000, '59 min 59 s'], [3_600_000, '1 h 0 min'], [90_000_000, '1 d 1 h'],
])('%d milliseconds read as %s', (ms, text) => {
  expect(formatDuration(ms)).toBe(text);
});

test('the terminal says how long an attempt took, and a saga, as the page does: without the wait for a worker and the back-off', async () => {
  const done: Saga = { ...saga, steps: ['create_droplet'], cursor: 0, status: 'completed', createdAt: at(0), finishedAt: at(8) };
  const events = eventsOf(...create);
  const onPage = timelineOf(done, events, { now: at(60), memo: {}, isWaiting: false })
    .filter(({ kind, worker }) => kind === 'attempt' && worker !== null)
    .map(({ from, to }) => formatDuration((to ?? from).getTime() - from.getTime()));
  expect(onPage).toEqual(['2 s', '1 s']);
  const inTerminal = [...formatSaga(done, events, surface, { lease: undefined, hold: undefined, now: new Date() }).matchAll(/ {2}\((.+), w1\)$/gm)].map(([, took]) => took);
  expect(inTerminal).toEqual(onPage);
  expect(formatSaga(done, events, surface, { lease: undefined, hold: undefined, now: new Date() })).toMatch(/^took +8 s$/m);

  const shown = await showLiveOnPipe(done, events);
  expect(shown).toContain('create_droplet  1 s  attempt 2 · created droplet 7');
});

/** What stays of the live display, which without a terminal prints each title that a step ends with. */
async function showLiveOnPipe(of: Saga, events: readonly StoredEvent[]): Promise<string> {
  let shown = '';
  const spy = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    shown += String(text);
    return true;
  });
  async function* snapshots() {
    yield await Promise.resolve({ saga: of, events, polls: null });
  }
  try {
    await showLive('x', of.steps, snapshots(), 96, new AbortController().signal, surface);
  } finally {
    spy.mockRestore();
  }
  return shown;
}
