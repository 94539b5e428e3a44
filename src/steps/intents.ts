// What a saga's context says about its droplet, and about the creates that it announced. An announced create whose answer is
// not known may have made a droplet.
import { z } from 'zod';
import { DROPLET_FIELD, isDropletId } from '../inventory/droplet-of-saga.ts';
import type { EffectKeys, EffectState } from '../saga/effect.ts';
import { effectState } from '../saga/once.ts';
import type { Saga } from '../saga/saga.ts';
import type { StepRun } from '../saga/step.ts';

/** The create as an effect (see `once`): under the keys that it has had from the beginning. */
export const createKeys: EffectKeys = { sends: 'create_intents', refusals: 'create_refusals', sentAt: 'create_intent_at', value: DROPLET_FIELD, isValue: isDropletId };

/** What is known of the creates of a saga, whichever of its steps asks. */
export function creates(run: Pick<StepRun, 'saga' | 'now'>): EffectState<number> {
  return effectState(run, 'create_droplet', 'droplet', createKeys);
}

/** The tag of the wave in which it was created; null: not known. */
export function recordedWave(saga: Pick<Saga, 'context'>): string | null {
  const wave = saga.context['droplet_wave'];
  return typeof wave === 'string' ? wave : null;
}

/** Droplets that a rollback could not prove to be the saga's, and left alone. */
export function unprovenDroplets(saga: Pick<Saga, 'context'>): readonly number[] {
  return z.array(z.int()).safeParse(saga.context['unproven_droplets']).data ?? [];
}
