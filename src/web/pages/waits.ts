// What a saga that is under way waits for, in plain words. Pure.
import { textOf } from '../../json.ts';
import type { Saga } from '../../saga/saga.ts';
import { currentStep, directionOf } from '../../saga/saga.ts';
import type { StoredEvent } from '../../saga/store.ts';
import type { PeekedJob } from '../ports.ts';
import { withoutRequest } from './timeline.ts';

/** What its step does, where the name alone does not say it. */
const doing: Readonly<Record<string, string>> = {
  create_droplet: 'creating the droplet',
  wait_droplet_active: 'waiting for the droplet to become active',
  register_droplet: 'entering the droplet into the inventory',
  destroy_droplet: 'destroying the droplet',
};

/** Says what a saga waits for, by its last event and by what its job tells. */
export function describeWait(saga: Saga, last: StoredEvent | undefined, { memo, reason }: Pick<PeekedJob, 'memo' | 'reason'>): string {
  if (saga.status === 'pending') return 'waits for a worker to take its first step';
  const step = currentStep(saga);
  const what = directionOf(saga) === 'backward' ? `undoing ${step}` : (doing[step] ?? `running ${step}`);
  const polls = memo['polls'] ?? 0;
  if (reason !== undefined) return `${what}: ${withoutRequest(reason)}${polls > 0 ? ` (looked ${times(polls)})` : ''}`;
  if ((memo['outages'] ?? 0) > 0) return `${what}: DigitalOcean is out of reach (asked ${times(memo['outages'] ?? 0)}); it waits as long as it takes`;
  if (last?.kind === 'step_retried' || last?.kind === 'compensation_retried') {
    return `${what}: attempt ${saga.attempt} failed, it tries again: ${withoutRequest(textOf(last.detail['message']))}`;
  }
  if (last?.kind === 'step_postponed' || last?.kind === 'compensation_postponed') return `${what}: ${textOf(last.detail['reason'])}`;
  return polls > 0 ? `${what}: looked ${times(polls)}, not yet` : what;
}

function times(count: number): string {
  return count === 1 ? 'once' : `${count} times`;
}
