// What the tests of an outage start with, and what must have come of it in the end.
import { expect } from 'vitest';
import type { Stage } from '../support/fault-stage.ts';
import { waitFor } from '../support/wait-for.ts';

export const SAGAS = 12;

export async function provisionAll(stage: Stage): Promise<string[]> {
  return Promise.all(Array.from({ length: SAGAS }, (_, at) => stage.provision(`web-${at}`)));
}

/** Some sagas are in the middle of it, none is done with everything. */
export async function untilUnderWay(stage: Stage): Promise<void> {
  await waitFor(() => stage.sandbox.state().length >= 3, { what: 'the first droplets', everyMs: 5 });
}

export async function expectAllCompleted(stage: Stage): Promise<void> {
  const sagas = await stage.atRest(35_000);
  expect(sagas.map(({ status, error }) => error?.message ?? status)).toEqual(sagas.map(() => 'completed'));
  await stage.expectLawful();
  expect(stage.sandbox.state({ alive: true })).toHaveLength(sagas.length);
}
