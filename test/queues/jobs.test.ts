import { expect, test } from 'vitest';
import { claimOfJobId, jobIdOf } from '../../src/queues/jobs.ts';

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
