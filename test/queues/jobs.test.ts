import { describe, expect, test } from 'vitest';
import { claimOfJobId, jobDataOf, jobIdOf, parseStepJob, stepJobSchema } from '../../src/queues/jobs.ts';
import { labelsOf } from '../../src/saga/labels.ts';
import { nextJobOf } from '../../src/saga/saga.ts';
import type { Saga } from '../../src/saga/saga.ts';
import { textOf } from '../../src/platform/json.ts';
import { catalog } from '../../src/steps/catalog.ts';
import { makeSaga } from '../support/engine.ts';

const sagaId = '0c4d2c9e-6c2f-4b51-9a52-6a2f0a6f2f00';

test("a job's id says which saga at which revision", () => {
  for (const revision of [0, 7, 2_147_483_647]) expect(claimOfJobId(jobIdOf({ sagaId, revision }))).toEqual({ sagaId, revision });
});

test.each(['', '1', 'by-hand', sagaId, `${sagaId}_`, `${sagaId}_x`, `${sagaId}_-1`, `${sagaId}_1_1`, `${sagaId}_2147483648`, `${sagaId}_1e3`, `${'-'.repeat(36)}_1`, `x${sagaId}_1`])(
  'an id that no saga gave says nothing: %s',
  (id) => {
    expect(claimOfJobId(id)).toBe(null);
  },
);

test('the data of a job are read as their schema says, whoever wrote them', () => {
  const plain = { sagaId, revision: 3, step: 'one', position: '1 of 1', attempt: 1 };
  const odd: Record<string, readonly unknown[]> = {
    sagaId: [sagaId.toUpperCase(), '00000000-0000-0000-0000-000000000000', `${sagaId} `, `${sagaId}\n`, '', 1, null],
    revision: [0, 2_147_483_647, 2_147_483_648, -1, 1.5, '1', Number.NaN, null],
    step: ['', 1, null, undefined],
    position: ['', 1, null, undefined],
    attempt: [0, -1, 1.5, '1', 2 ** 60, null, undefined],
    memo: [{}, { polls: 1 }, { polls: -1 }, null, undefined],
    reason: ['not yet', 1, null, undefined],
    dueAt: [0, 1.5, -1, null, undefined],
    customer: ['acme', { of: 'another version' }],
  };
  const all: unknown[] = [null, undefined, 7, 'text', [], {}, plain, ...Object.entries(odd).flatMap(([field, values]) => values.map((value) => ({ ...plain, [field]: value })))];
  for (const data of all) {
    const [read, expected] = [parseStepJob(data), stepJobSchema.safeParse(data)];
    expect(read.data).toEqual(expected.data);
    expect(read.error?.issues).toEqual(expected.error?.issues);
  }
});

describe('what a job tells of its saga', () => {
  const dataOf = (change: Partial<Saga>, labels = labelsOf(catalog)) => {
    const job = nextJobOf(makeSaga({ id: sagaId, steps: ['one'], ...change }));
    if (job === null) throw new Error('the saga is at rest');
    return jobDataOf(job, labels);
  };
  const plain = { sagaId, revision: 0, step: 'one', position: '1 of 1', attempt: 1 };

  test('is the droplet, for the droplet sagas: the one that is on record, or is to be destroyed', () => {
    expect(dataOf({ name: 'provision_droplet' })).toEqual(plain);
    expect(dataOf({ name: 'provision_droplet', context: { droplet_id: 4711 } })).toEqual({ ...plain, dropletId: 4711 });
    expect(dataOf({ name: 'destroy_droplet', input: { droplet_id: 4712 } })).toEqual({ ...plain, dropletId: 4712 });
  });

  test('is nothing more than the step, where the saga is not known', () => {
    expect(dataOf({ name: 'other', context: { droplet_id: 4711 } })).toEqual(plain);
    expect(dataOf({ name: 'constructor' })).toEqual(plain);
  });

  test('is what its definition says, and never in the place of a field of the job', () => {
    const labels = labelsOf({ other: { labels: ({ input }) => ({ customer: textOf(input['customer']), sagaId: 'x', memo: 'x', dueAt: 1, serverId: null }) }, bad: { labels: () => { throw new Error('no'); } } });
    expect(dataOf({ name: 'other', input: { customer: 'acme' } }, labels)).toEqual({ ...plain, customer: 'acme' });
    expect(dataOf({ name: 'bad' }, labels)).toEqual(plain);
  });

  test('is read from the job of another version, whatever it tells', () => {
    expect(stepJobSchema.parse({ ...plain, dropletId: 4711, serverId: 'x' })).toEqual(plain);
  });
});
