// What the command line says of how sagas ended, in the words of the pages.
import { describe, expect, test } from 'vitest';
import { lastAnswersOf } from '../../src/cli/last-answers.ts';
import { describeResult, formatSaga, formatSagas } from '../../src/cli/saga-text.ts';
import type { StoredEvent } from '../../src/saga/events.ts';
import type { Saga } from '../../src/saga/saga.ts';
import { surfaceOf } from '../../src/saga/words.ts';
import { catalog } from '../../src/steps/catalog.ts';

const at = new Date('2026-11-30T03:00:00Z');
const surface = surfaceOf(catalog);
const ended = (change: Partial<Saga>): Saga => ({
  id: 'b7c9f6e0-1f5a-4a53-9d4e-1d9f64c1a001', saga8: 'b7c9f6e0', name: 'provision_droplet', status: 'compensated', steps: ['create_droplet'], cursor: 0, revision: 9, attempt: 20,
  input: { name: 'web-1' }, context: {}, error: { code: 'cancelled', message: 'cancelled by cli:ada', step: 'create_droplet', retryable: false }, idempotencyKey: null, requestedBy: null, startedBy: null, priority: 'normal',
  traceparent: null, resource: null, waitsFor: null, rerunOf: null, rerunAs: null, cancelRequestedAt: null, stepStartedAt: at, createdAt: at, updatedAt: at, finishedAt: null, ...change,
});
const lastEvent: StoredEvent = { seq: 9, at, kind: 'compensation_stuck', step: 'create_droplet', attempt: 20, detail: { message: 'DigitalOcean: Droplet is locked by support (422, DELETE /v2/droplets/{id})' }, worker: 'w:1' };

async function told(saga: Saga, events: readonly StoredEvent[] = []) {
  const lastAnswers = await lastAnswersOf({ events: async (_id, after = -1) => Promise.resolve(events.filter(({ seq }) => seq > after)) }, [saga]);
  return {
    list: formatSagas([saga], surface, { leases: new Map(), holds: new Map(), lastAnswers, now: at, maxWidth: null }).split('\n')[1] ?? '',
    one: formatSaga(saga, events, surface, { lease: undefined, hold: undefined, now: at }),
    end: describeResult(saga, surface, lastAnswers),
  };
}

describe('a saga that was rolled back', () => {
  test.each([
    ['whose droplet may be left', ended({ context: { unproven_droplets: [777] } }), 'check its droplet', '777'],
    ['whose droplet was to be destroyed', ended({ name: 'destroy_droplet', input: { droplet_id: 4711 } }), 'not destroyed', 'was not destroyed'],
    ['whose droplet is unknown', ended({ name: 'destroy_droplet', input: { droplet_id: 99 }, error: { code: 'droplet_unknown', message: 'no such droplet', step: 'destroy_droplet', retryable: false } }), 'nothing destroyed', 'is unknown'],
  ])('%s says so', async (_what, saga, label, attention) => {
    const { list, one } = await told(saga);
    expect(list).toContain(`  ${label}  `);
    expect(one).toMatch(new RegExp(`^status +${label}, revision 9$`, 'm'));
    expect(one).toMatch(new RegExp(`^(?:result|to check) +.*${attention}`, 'm'));
  });

  test('of which nothing is left says no more', async () => {
    const { list, one } = await told(ended({}));
    expect(list).toContain('  rolled back  ');
    expect(one).not.toMatch(/^(?:result|to check) /m);
    expect(one).toMatch(/^reason +cancelled in create_droplet: cancelled by cli:ada$/m);
  });
});

test('a saga whose rollback failed says why, and apart from that what it was rolled back for', async () => {
  const { list, one, end } = await told(ended({ status: 'stuck' }), [lastEvent]);
  expect(list).toContain('Droplet is locked by support');
  expect(list).not.toContain('cancelled by');
  expect(one).toMatch(/^last answer +DigitalOcean: Droplet is locked by support .*\n(?:.*\n)*?reason +cancelled in create_droplet/m);
  expect(end).toMatch(/^needs attention: the rollback failed: DigitalOcean: Droplet is locked by support .*; the saga was rolled back because of: cancelled by cli:ada$/m);
});

test('a saga whose step failed for good says its error', async () => {
  const error = { code: 'forbidden', message: 'DigitalOcean refuses it', step: 'create_droplet', retryable: false, direction: 'forward' } as const;
  const { list, one, end } = await told(ended({ status: 'stuck', error }), [lastEvent]);
  expect(list).toContain('DigitalOcean refuses it');
  expect(one).toMatch(/^error +forbidden in create_droplet: DigitalOcean refuses it$/m);
  expect(end).toContain('create_droplet failed for good: DigitalOcean refuses it');
});
