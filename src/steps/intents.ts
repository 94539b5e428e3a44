// Reads a saga's context: its droplet and the creates that it announced. An announced create with unknown outcome may
// have created a droplet.
import { DROPLET_FIELD, isDropletId } from '../inventory/droplet-of-saga.ts';
import type { EffectKeys, EffectState } from '../saga/effect.ts';
import { effectState } from '../saga/once.ts';
import type { Saga } from '../saga/saga.ts';
import type { StepRun } from '../saga/step.ts';

/** The create as an effect (see `once`), under its original context keys. */
export const createKeys: EffectKeys = { sends: 'create_intents', refusals: 'create_refusals', sentAt: 'create_intent_at', value: DROPLET_FIELD, isValue: isDropletId };

/** Returns what is known of a saga's creates, for any of its steps. */
export function creates(run: Pick<StepRun, 'saga' | 'now'>): EffectState<number> {
  return effectState(run, 'create_droplet', 'droplet', createKeys);
}

/** The tag of the wave in which it was created; null: unknown. */
export function recordedWave(saga: Pick<Saga, 'context'>): string | null {
  const wave = saga.context['droplet_wave'];
  return typeof wave === 'string' ? wave : null;
}
