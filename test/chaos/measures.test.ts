// What the chaos run takes for the cause of a second droplet.
import { expect, test } from 'vitest';
import type { Evidence } from './evidence.ts';
import { findFrozenCreates } from './measures.ts';
import { CLAIM_MS } from './settings.ts';

const SAGA = '00000000-0000-4000-8000-000000000001';

/** A create that worker `a` announced at 1,000 ms, its freeze, and when POSTs that made a droplet came. */
function frozenCreates(freeze: { worker?: string; fromMs: number; toMs: number }, ...postsMs: number[]) {
  const droplets = postsMs.map((_, id) => ({ id, tags: [`arcadia-saga-id-${SAGA}`] }));
  const ledger = postsMs.map((at, id) => ({ at, made: [id] }));
  const announced = { sagaId: SAGA, seq: 2, at: new Date(1_000), kind: 'step_recorded', worker: 'a', note: 'announced a create' };
  const other = { ...announced, kind: 'step_recorded', note: 'something else' };
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- only what is read
  const evidence = { events: new Map([[SAGA, [announced, other]]]), droplets, ledger, load: { foreign: [] }, diary: { freezes: [{ worker: 'a', ...freeze }] } } as unknown as Evidence;
  return findFrozenCreates(evidence).length;
}

test.each<[string, number, Parameters<typeof frozenCreates>]>([
  ['right after its announcement, and its POST comes when it goes on', 1, [{ fromMs: 1_010, toMs: 8_000 }, 7_500, 8_001]],
  ['while its announcement was under way', 1, [{ fromMs: 990, toMs: 8_000 }]],
  ['after its POST', 0, [{ fromMs: 1_020, toMs: 8_000 }, 1_010]],
  ['later than its claim lasts', 0, [{ fromMs: 1_001 + CLAIM_MS, toMs: 8_000 }, 9_000]],
  ['and went on before it announced anything', 0, [{ fromMs: 10, toMs: 900 }, 1_010]],
  ['and is another one', 0, [{ worker: 'b', fromMs: 1_010, toMs: 8_000 }, 8_001]],
])('a worker that is frozen %s: %i', (_when, count, [freeze, ...posts]) => {
  expect(frozenCreates(freeze, ...posts)).toBe(count);
});
