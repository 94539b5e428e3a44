// Jobs in Redis that BullMQ cannot read, because a program or a person wrote their hash by hand. A worker that takes such a
// job drops it, and it is taken again as soon as its lock has ended: it neither runs nor fails. In Postgres the type of the
// columns refuses such values.
import type { Queue } from 'bullmq';
import { RedisQueueBackend } from 'bullmq';

/** A job that could not be read. `why` names the field, and nothing of its content, which may be secret. */
export type UnreadableJob = Readonly<{ queue: string; jobId: string; why: string }>;

/** Is told of a job that was removed because it could not be read. */
export type OnUnreadable = (job: UnreadableJob) => Promise<void>;

// The fields that BullMQ parses without a way out.
const PARSED = ['data', 'opts', 'progress', 'parent'] as const;

/** Whether an error of BullMQ may come from a job that cannot be read: bad JSON, or options that are null. */
export function mayBeUnreadable(error: unknown): boolean {
  return error instanceof SyntaxError || error instanceof TypeError;
}

/** Says why a job cannot be read; null if it can, or does not exist. */
export async function whyUnreadable(queue: Queue, jobId: string): Promise<string | null> {
  const client = await redisOf(queue);
  if (client === null) return null;
  const values = await client.hmget(queue.toKey(jobId), ...PARSED);
  const reasons = PARSED.map((field, index) => faultOf(field, values[index] ?? ''));
  return reasons.find((reason) => reason !== null) ?? null;
}

/**
 * Removes a job that cannot be read, even if a worker has just taken it: that worker dropped it. If one runs it, because its
 * hash was changed meanwhile, Postgres alone decides what becomes of the saga.
 *
 * @returns false if it is still there
 */
export async function removeUnreadable(queue: Queue, jobId: string): Promise<boolean> {
  const client = await redisOf(queue);
  // BullMQ removes no job that is locked, and a job that nobody can read is locked most of the time. Nor one that names a
  // schedule, and there are no schedules in these queues.
  await client?.hdel(queue.toKey(jobId), 'rjk');
  await client?.del(queue.toKey(`${jobId}:lock`));
  // Who wrote the job may name children in queues that are closed to them.
  return (await queue.remove(jobId, { removeChildren: false })) === 1;
}

function faultOf(field: (typeof PARSED)[number], value: string): string | null {
  if (value === '') return null;
  try {
    const parsed: unknown = JSON.parse(value);
    return field === 'opts' && parsed === null ? 'its opts are null' : null;
  } catch {
    return `its ${field} ${field === 'progress' || field === 'parent' ? 'is' : 'are'} not JSON`;
  }
}

async function redisOf(queue: Queue) {
  const backend: unknown = queue.getBackend();
  return backend instanceof RedisQueueBackend ? backend.client : null;
}
