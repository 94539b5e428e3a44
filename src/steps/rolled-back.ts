// How a rolled-back provision ended, for people and for whoever runs it again.
import { z } from 'zod';
import type { Saga } from '../saga/saga.ts';
import type { SagaEnd } from '../saga/saga-words.ts';

/** Describes what the rollback of a provision left: nothing, or droplets that were not proven to be the saga's. */
export function describeRolledBack(saga: Pick<Saga, 'context'>): string | SagaEnd {
  return describeUnproven(saga) ?? 'Rolled back. Nothing is left.';
}

/** Asks a person to check the droplets that were not proven to be the saga's; null: there are none. */
export function describeUnproven(saga: Pick<Saga, 'context'>): SagaEnd | null {
  const unproven = unprovenDroplets(saga);
  if (unproven.length === 0) return null;
  return {
    text:
      `Rolled back, but check ${unproven.length === 1 ? 'droplet' : 'droplets'} ${unproven.join(', ')} at DigitalOcean. ` +
      'It may belong to this saga, but does not carry its full id, so it was left alone. If it does, destroy it by hand.',
    label: 'check its droplet',
    tone: 'attention',
  };
}

function unprovenDroplets({ context }: Pick<Saga, 'context'>): readonly number[] {
  return z.array(z.int()).safeParse(context['unproven_droplets']).data ?? [];
}
