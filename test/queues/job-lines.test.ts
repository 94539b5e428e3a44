// Which lines a job's log has: decided by the saga's events and the job's revision alone.
import { describe, expect, test } from 'vitest';
import { jobLine, linesOfEvents, mergeLines } from '../../src/queues/job-lines.ts';
import type { SagaEventKind } from '../../src/saga/saga.ts';
import type { StoredEvent } from '../../src/saga/events.ts';

const at = (seq: number) => new Date(Date.UTC(2026, 0, 1, 0, 0, seq));
const line = (seq: number, text: string) => `2026-01-01T00:00:0${seq}.000Z ${text}`;

/** Events from seq 0 on, each with its detail. */
function history(...told: readonly [kind: SagaEventKind, detail?: StoredEvent['detail']][]): StoredEvent[] {
  return told.map(([kind, detail = {}], seq) => ({ seq, at: at(seq), kind, step: 'one', attempt: 1, detail, worker: 'test:1' }));
}

describe('the events of a job', () => {
  const saga = history(
    ['saga_created'],
    ['saga_started'],
    ['step_recorded', { note: 'announced a create' }],
    ['step_retried', { delayMs: 3_000, message: 'busy' }],
    ['step_completed', { note: 'created droplet 1' }],
    ['step_failed', { message: 'no' }],
    ['compensation_recorded', { note: 'asked for the deletion' }],
    ['compensation_completed'],
  );

  test('begin after its revision, and end with the one that ended its run', () => {
    expect(linesOfEvents(saga, 0)).toEqual([line(1, 'saga started'), line(2, 'one: announced a create'), line(3, 'one failed (attempt 1), retrying in 3 s: busy')]);
    expect(linesOfEvents(saga, 3)).toEqual([line(4, 'one completed: created droplet 1')]);
    expect(linesOfEvents(saga, 4)).toEqual([line(5, 'one failed (attempt 1), rolling back: no')]);
    expect(linesOfEvents(saga, 5)).toEqual([line(6, 'one: asked for the deletion'), line(7, 'one undone')]);
  });

  test('are the same, whether or not the earlier ones were read', () => {
    for (const { seq } of saga) expect(linesOfEvents(saga.filter((event) => event.seq > seq), seq)).toEqual(linesOfEvents(saga, seq));
  });

  test('are those so far, while it runs; none, while nothing was written', () => {
    expect(linesOfEvents(saga.slice(0, 3), 0)).toEqual([line(1, 'saga started'), line(2, 'one: announced a create')]);
    expect(linesOfEvents(saga, 7)).toEqual([]);
    expect(linesOfEvents([], 0)).toEqual([]);
  });

  test.each<[kind: SagaEventKind, detail: StoredEvent['detail'], text: string]>([
    ['saga_rejected', { message: 'name: too long' }, 'saga rejected: name: too long'],
    ['step_postponed', { reason: 'is new', delayMs: 2_000 }, 'one waits, next attempt in 2 s: is new'],
    ['step_completed', {}, 'one completed'],
    ['step_retried', { message: 'busy' }, 'one failed (attempt 1), retrying: busy'],
    ['step_failed', { message: 'no' }, 'one failed (attempt 1), rolling back: no'],
    ['compensation_postponed', { reason: 'is locked', delayMs: 2_000 }, 'one waits, next attempt in 2 s: is locked'],
    ['compensation_completed', {}, 'one undone'],
    ['compensation_retried', { message: 'busy' }, 'undoing one failed (attempt 1), retrying: busy'],
    ['compensation_stuck', { message: 'no' }, 'undoing one failed for good (attempt 1), needs attention: no'],
    ['cancel_requested', { by: 'ada', reason: 'a typo' }, 'cancelled by ada'],
    ['retry_requested', { by: 'ada' }, 'resumed by ada'],
  ])('end with %s', (kind, detail, text) => {
    expect(linesOfEvents(history(['saga_created'], ['saga_started'], [kind, detail], ['step_completed']), 1)).toEqual([line(2, text)]);
  });

  test('are cut where they are long', () => {
    expect(linesOfEvents(history(['saga_created'], ['step_completed', { note: 'x'.repeat(10_000) }]), 0)[0]).toHaveLength(line(1, '').length + 500);
  });
});

describe('two logs', () => {
  test('are put together in the order of time, what BullMQ keeps first at the same moment', () => {
    const kept = [line(1, 'a'), line(3, 'b'), line(5, 'c')];
    const made = [line(0, 'k'), line(2, 'l'), line(3, 'm'), line(4, 'n'), line(6, 'o')];
    expect(mergeLines(kept, made).map((each) => each.at(-1)).join('')).toBe('kalbmnco');
    expect(mergeLines([], made)).toEqual(made);
    expect(mergeLines(kept, [])).toEqual(kept);
  });

  test('keep their own order, whatever their clocks and whoever wrote them', () => {
    const kept = ['by hand, without a time', line(5, 'a'), 'more of it', line(4, 'by a clock that is slow')];
    expect(mergeLines(kept, [line(3, 'k'), line(6, 'l')])).toEqual(['by hand, without a time', line(3, 'k'), ...kept.slice(1), line(6, 'l')]);
  });
});

test('a line begins with the time, in UTC', () => {
  expect(jobLine(new Date('2026-01-01T01:00:00.5+01:00'), 'two undone')).toBe('2026-01-01T00:00:00.500Z two undone');
});
