// The filter options of `sagas`: the same as in the HTTP API.
import { z } from 'zod';
import { ofDroplet } from '../inventory/droplet-of-saga.ts';
import { unitSeconds } from '../platform/duration.ts';
import { sagaStatuses } from '../saga/saga.ts';
import type { SagaFilter } from '../saga/filter.ts';
import { UsageError } from './usage-error.ts';

export type FilterOptions = Readonly<{
  status?: readonly string[];
  name?: string;
  tag?: string;
  dropletId?: number;
  since?: string;
  until?: string;
  requestedBy?: string;
  text?: string;
}>;

const absoluteTime = z.union([z.iso.datetime({ offset: true }), z.iso.date()]);

/**
 * Parses the options.
 *
 * @param nowMs the time from which durations such as `2h` count back, in Unix milliseconds
 * @throws {UsageError} naming the option and what was expected
 */
export function toSagaFilter({ status, since, until, dropletId, ...same }: FilterOptions, nowMs: number): SagaFilter {
  return {
    ...same,
    field: dropletId === undefined ? undefined : ofDroplet(dropletId),
    status: status?.flatMap((given) => given.split(',')).map(requireStatus),
    createdFrom: since === undefined ? undefined : requireTime('--since', since, nowMs),
    createdBefore: until === undefined ? undefined : requireTime('--until', until, nowMs),
  };
}

function requireStatus(given: string) {
  const status = sagaStatuses.find((known) => known === given);
  if (status === undefined) throw new UsageError(`--status: expected one of ${sagaStatuses.join(', ')}, found ${given}`);
  return status;
}

function requireTime(option: string, given: string, nowMs: number): Date {
  const [, count = '', unit = ''] = /^(\d{1,6})([smhd])$/.exec(given) ?? [];
  if (count !== '') return new Date(nowMs - Number(count) * (unitSeconds[unit] ?? 0) * 1_000);
  if (absoluteTime.safeParse(given).success) return new Date(given);
  throw new UsageError(`${option}: expected an age such as 30m, 2h or 7d, or a time such as 2026-01-31 or 2026-01-31T12:00:00Z; found ${JSON.stringify(given)}`);
}
