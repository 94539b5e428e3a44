// What pages and terminals say comes from the definitions of sagas and steps: a third saga is not told of in the words of the
// first two, and one that a process does not know is told of in plain facts.

import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { catalog } from '../../src/steps/catalog.ts';
import { textOf } from '../../src/platform/json.ts';
import type { InspectedJob } from '../../src/queues/step-queues.ts';
import type { Saga } from '../../src/saga/saga.ts';
import type { Surface } from '../../src/saga/words.ts';
import { surfaceOf } from '../../src/saga/words.ts';
import { renderDryRun } from '../../src/web/pages/bulk-page.ts';
import { renderList } from '../../src/web/pages/saga-list.ts';
import type { SagaView } from '../../src/web/pages/saga-facts.ts';
import { renderSaga } from '../../src/web/pages/saga-view.ts';

const at = new Date('2026-11-28T03:00:00Z');

const resize: Saga = {
  id: '0a4c2f4e-6f0e-4d2b-9d3c-5a8f8a8c1b11', saga8: '0a4c2f4e', name: 'resize_droplet', status: 'running', steps: ['power_off', 'resize', 'power_on'], cursor: 1, revision: 3, attempt: 0,
  input: { droplet_id: 4711, size: 's-2vcpu-2gb' }, context: { droplet_id: 4711 }, error: null, idempotencyKey: null, requestedBy: 'http:ada', startedBy: 'http:ada', priority: 'normal',
  traceparent: null, resource: null, waitsFor: null, rerunOf: null, rerunAs: null, cancelRequestedAt: null, stepStartedAt: at, createdAt: at, updatedAt: at, finishedAt: null,
};

const known = surfaceOf({
  ...catalog,
  resize_droplet: {
    steps: [{ name: 'power_off' }, { name: 'resize', words: { doing: 'changing the size' } }, { name: 'power_on' }],
    words: {
      subject: ({ input }: Pick<Saga, 'input'>) => ({ kind: 'droplet', name: null, id: textOf(input['droplet_id']) }),
      completed: () => 'The droplet has its new size.',
      cancelled: () => 'The droplet gets its old size again.',
      rolledBack: () => 'The droplet has its old size.',
      stuck: () => 'The droplet may be off.',
    },
  },
});
const unknown = surfaceOf(catalog);

const pageOf = (saga: Saga, surface: Surface, more: Partial<SagaView> = {}): string => {
  const view: SagaView = {
    saga, surface, words: surface.words(saga), now: at, dueInMs: 0, memo: {}, events: [], entries: [], audit: [], job: { kind: 'there', memo: {}, dueInMs: 0, dueSinceMs: 0, takenBy: 'w' },
    isPaused: false, untakenSince: null, isHeld: false, place: () => ({ queue: 'q', id: 'j' }), mayOperate: true, mayRenew: true, hasDroplets: false, subjectName: null, list: null, lease: null, secretsToRerun: null, told: null, ...more,
  };
  return renderSaga(view).text;
};
const listOf = (saga: Saga, surface: Surface, job?: InspectedJob): string =>
  renderList({
    filter: {}, names: [], surface, held: new Map(), leases: new Map(), aliveWorkers: null, overview: { now: at, counts: {} }, cursor: undefined, actor: 'http:ada', mayOperate: true, hasDroplets: false,
    page: { groups: [{ group: { title: 'x', statuses: [] }, sagas: [saga] }], nextCursor: null }, causes: [], lastEvents: new Map(), jobs: new Map(job === undefined ? [] : [[saga.id, job]]),
  }).text;
const bulkOf = (saga: Saga, surface: Surface): string => renderDryRun('cancel', {}, { matched: 1, page: { sagas: [saga], nextCursor: null }, lastEvents: new Map(), surface }).text;

test.each([
  ['due later', { takenBy: null, dueInMs: 65_000, dueSinceMs: 0 }, /next <time .*in 1 min 5 s/],
  ['just taken', { takenBy: 'w', dueInMs: 0, dueSinceMs: 300 }, /running now/],
  ['taken long ago', { takenBy: 'w', dueInMs: 0, dueSinceMs: 171_000 }, /running for .*2 min 51 s/],
])('the list says of a step that is %s when it is due, or how long it has been running', (_when, job, expected) => {
  expect(listOf(resize, known, { memo: {}, ...job })).toMatch(expected);
});

test('the page of a saga that is held says that its queue is paused, too', () => {
  const paused = 'Its queue is paused, too: until somebody resumes it on the <a href="/queues">Queues page</a>, the saga does not go on.';
  expect(pageOf(resize, known, { isHeld: true, isPaused: true })).toContain(paused);
  expect(pageOf(resize, known, { isHeld: true })).not.toContain('paused');
  expect(pageOf(resize, known, { isPaused: true })).toContain('Due now. Its queue is paused.');
});

describe('a saga of somebody else\'s', () => {
  test('is told of in its own words, where the process knows it', () => {
    const page = pageOf(resize, known);
    expect(page).toContain('<h1>droplet 4711</h1>');
    expect(page).toContain('Changing the size.');
    expect(page).toContain('The droplet gets its old size again.');
    expect(page).not.toContain('destroyed');
    expect(pageOf({ ...resize, status: 'completed' }, known)).toContain('The droplet has its new size.');
    expect(listOf(resize, known)).toMatch(/droplet 4711.*<code>4711<\/code>.*changing the size/s);
    expect(bulkOf(resize, known)).not.toContain('destroyed');
  });

  test('is told of in plain facts, and nothing about droplets, where it does not', () => {
    for (const status of ['running', 'completed', 'compensated', 'stuck', 'compensating'] as const) {
      const shown = pageOf({ ...resize, status, input: { size: 'x' }, context: {} }, unknown);
      expect(shown).toContain('<h1>0a4c2f4e</h1>');
      expect(shown.replaceAll('resize_droplet', '')).not.toMatch(/droplet|DigitalOcean/i);
    }
    expect(bulkOf(resize, unknown)).not.toContain('destroyed');
    expect(listOf(resize, unknown)).toContain('running resize');
  });
});

test('a preview of cancels counts what is destroyed, by kind', () => {
  const provision: Saga = { ...resize, name: 'provision_droplet', steps: ['create_droplet'], cursor: 0 };
  expect(bulkOf(provision, known)).toContain('in reverse order; 1 droplet is destroyed, with all data.');
  expect(bulkOf({ ...provision, context: {}, input: { name: 'web-1' } }, known)).not.toContain('destroyed');
  expect(bulkOf({ ...provision, name: 'destroy_droplet' }, known)).not.toContain('destroyed');
});

// What names them for good reason: the steps and their catalogue, the inventory of droplets, the client's and the command
// line's own functions for droplets, and the demo.
const mayName = /^(steps|inventory|do|sandbox|dev)\/|^main\.ts$|^client\/client\.ts$|^cli\/provision\.ts$/;

test('no other code asks for the name of a saga or of a step', () => {
  const root = fileURLToPath(new URL('../../src/', import.meta.url));
  const names = [...Object.keys(catalog), ...Object.values(catalog).flatMap(({ steps }) => steps.map(({ name }) => name))];
  const asking = readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.ts') && !mayName.test(path))
    .flatMap((path) => readFileSync(`${root}${path}`, 'utf8').split('\n').filter((line) => names.some((name) => line.includes(`'${name}'`))).map((line) => `${path}: ${line.trim()}`));
  expect(asking).toEqual([]);
});
