// When a provision would start, as far as this process knows: workers, paused queues, refusals of DigitalOcean, and the budget
// of requests. Pure.
import { usedFields } from '../../do/scopes.ts';
import type { PostgresFacts } from '../../fleet/facts.ts';
import { formatDuration } from '../../platform/duration.ts';
import { shorten, visible } from '../../platform/text.ts';
import type { ProvisionDropletInput } from '../../steps/inputs.ts';
import type { KnownFacts } from './checks.ts';

/** `inSeconds`: 0: now; null: not known, and the message says why. */
export type PlanStart = Readonly<{ inSeconds: number | null; message: string }>;

/**
 * What the fleet knows. `budgetMs`: how long a create would wait for the request budget; null: could not be read. `isPaused`:
 * whether somebody paused the queue of steps; null: could not be read.
 */
export type FleetFactsOfPlan = KnownFacts & Readonly<{ facts: Pick<PostgresFacts, 'now' | 'workers' | 'refused' | 'throttledUntil'>; budgetMs: number | null; isPaused: boolean | null }>;

const CREATE = 'POST /v2/droplets';

/** Estimates when the create would be sent. */
export function judgeStart(input: ProvisionDropletInput, { facts, budgetMs, isPaused }: FleetFactsOfPlan): PlanStart {
  const refusal = facts.refused.find((one) => one.request === null || (one.request === CREATE && (one.subject === null || one.subject === input.name) && one.fields.every((field) => usedFields(input).includes(field))));
  if (!facts.workers.some(({ isAlive }) => isAlive)) return later('No worker is running. The saga would start once one runs.');
  if (isPaused === true) return later('The queue saga-steps is paused. The saga would start once somebody resumes it.');
  if (refusal !== undefined) return later(`DigitalOcean refuses ${refusal.request === null ? 'the token' : 'such creates'}: ${visible(shorten(refusal.message, 200))}. The saga would start once the cause is fixed.`);
  const told = facts.throttledUntil === null ? 0 : facts.throttledUntil.getTime() - facts.now.getTime();
  if (budgetMs === null) {
    if (told > 0) return { inSeconds: Math.ceil(told / 1_000), message: `In about ${formatDuration(told)}: workers wait for the budget of requests to DigitalOcean.` };
    return later('Not known: the budget of requests to DigitalOcean could not be read.');
  }
  if (isPaused === null) return later('Not known: the queues could not be read.');
  if (budgetMs <= 0) return { inSeconds: 0, message: 'Now: the budget of requests to DigitalOcean has room.' };
  return { inSeconds: Math.ceil(budgetMs / 1_000), message: `In about ${formatDuration(Math.ceil(budgetMs / 1_000) * 1_000)}, when the budget of requests to DigitalOcean has room.` };
}

function later(message: string): PlanStart {
  return { inSeconds: null, message };
}
