// What a saga's context says about the creates that it announced. An announced create whose answer is not known may
// have made a droplet.
import { z } from 'zod';
import type { Saga } from '../saga/saga.ts';
import type { StepRun } from '../saga/step.ts';
import { msBetween } from '../platform/time.ts';
import { stampAgeMs } from './stamps.ts';

/** The droplet on record; null: none. */
export function recordedDropletId(saga: Pick<Saga, 'context'>): number | null {
  const id = saga.context['droplet_id'];
  return typeof id === 'number' && Number.isSafeInteger(id) && id > 0 ? id : null;
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

/** Creates announced so far. */
export function announcedCreates(saga: Pick<Saga, 'context'>): number {
  return count(saga, 'create_intents');
}

/** Creates of which DigitalOcean said, or the network left no doubt, that they made nothing. */
export function refusedCreates(saga: Pick<Saga, 'context'>): number {
  return count(saga, 'create_refusals');
}

/** Creates that may have made a droplet which is not on record. */
export function openCreates(saga: Pick<Saga, 'context'>): number {
  return announcedCreates(saga) - refusedCreates(saga) - (recordedDropletId(saga) === null ? 0 : 1);
}

/**
 * How long ago the last create was announced at least, by the database's clock; infinite when none was. An announcement
 * without a time is one whose time is lost: it counts from the saga's last change.
 */
export function lastCreateAgeMs(run: Pick<StepRun, 'saga' | 'now'>): number {
  if (announcedCreates(run.saga) === 0) return Number.POSITIVE_INFINITY;
  return stampAgeMs(run, 'create_intent_at') ?? msBetween(run.saga.updatedAt, run.now);
}

function count(saga: Pick<Saga, 'context'>, key: string): number {
  const value = saga.context[key];
  return typeof value === 'number' ? value : 0;
}

