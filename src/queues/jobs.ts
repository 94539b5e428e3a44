// The contract of the queues: their names, the data of a job, and the id of a job.
import type { Job } from 'bullmq';
import { z } from 'zod';
import type { LabelsOf } from '../saga/labels.ts';
import { noLabels } from '../saga/labels.ts';
import type { Direction, NextJob } from '../saga/saga.ts';
import { sagaPriorities } from '../saga/saga.ts';
import type { Claim } from '../saga/step.ts';

/** Names of the queues. */
export const queueNames = { intake: 'sagas', steps: 'saga-steps', compensations: 'saga-compensations', inventory: 'inventory', outcomes: 'outcomes' } as const;

/**
 * The data of a step's job. Only `sagaId` and `revision` matter; the rest is for people. Anyone with access to the queue
 * store may have written it, so it means no more than "check this saga". It also contains the labels of its saga.
 */
export const stepJobSchema = z.object({
  sagaId: z.uuid().toLowerCase(),
  revision: z.int().min(0).max(2_147_483_647),
  step: z.string().optional(),
  position: z.string().optional(),
  attempt: z.int().optional().catch(undefined),
  /** The reason for the last postponement. */
  reason: z.string().optional().catch(undefined),
  memo: z.record(z.string().max(50), z.number()).optional(),
  /** When a postponed job is due, in Unix milliseconds. BullMQ stores only the delay. */
  dueAt: z.int().min(0).optional(),
});

export type StepJobData = z.infer<typeof stepJobSchema>;

const PLAIN_UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/**
 * Parses the data of a step's job as {@link stepJobSchema} does. Data as `jobDataOf` makes them are recognised by hand, in a
 * fifth of the time: each job of a worker passes through here.
 */
export function parseStepJob(data: unknown): z.ZodSafeParseResult<StepJobData> {
  return isPlain(data) ? { success: true, data: { sagaId: data.sagaId, revision: data.revision, step: data.step, position: data.position, attempt: data.attempt } } : stepJobSchema.safeParse(data);
}

type Plain = Readonly<{ sagaId: string; revision: number; step: string; position: string; attempt: number }>;

function isPlain(data: unknown): data is Plain {
  if (typeof data !== 'object' || data === null || 'memo' in data || 'reason' in data || 'dueAt' in data) return false;
  const { sagaId, revision, step, position, attempt }: Partial<Record<keyof Plain, unknown>> = data;
  return (
    typeof sagaId === 'string' && PLAIN_UUID.test(sagaId) &&
    typeof revision === 'number' && Number.isInteger(revision) && revision >= 0 && revision <= 2_147_483_647 &&
    typeof step === 'string' && typeof position === 'string' && Number.isSafeInteger(attempt)
  );
}

/** The data of a job that another backend adds to the intake queue. The job's name is the saga's name. */
export const intakeJobSchema = z.strictObject({
  input: z.record(z.string(), z.unknown(), 'expected an object with the fields of the saga'),
  idempotencyKey: z.string().optional(),
  requestedBy: z.string().optional(),
  priority: z.enum(sagaPriorities, `expected ${sagaPriorities.join(', ')}`).optional(),
});

/** The data of an intake job once its saga exists. The queue store does not keep the input. */
export const acceptedJobSchema = z.strictObject({ sagaId: z.uuid() });

/** The rest of a refused request: the names of its fields and the reason. */
export const refusedJobSchema = z.strictObject({ refused: z.unknown(), reason: z.string() });

/** Returns the queue of a job. Compensations have their own queue, so that creation can be paused while rollbacks continue. */
export function queueNameOf(direction: Direction): string {
  return direction === 'forward' ? queueNames.steps : queueNames.compensations;
}

/** Makes enqueueing idempotent. BullMQ refuses colons and plain integers in a job id. */
export function jobIdOf(job: Pick<NextJob, 'sagaId' | 'revision'>): string {
  return `${job.sagaId}_${job.revision}`;
}

const STEP_JOB_ID = /^([0-9a-f-]{36})_(\d+)$/;

/** Whether `jobIdOf` made this id. Jobs added by hand have others. */
export function isStepJobId(id: string | undefined): boolean {
  return id !== undefined && STEP_JOB_ID.test(id);
}

/** Parses an id made by `jobIdOf`; null for any other. */
export function claimOfJobId(jobId: string): Claim | null {
  const [, sagaId, revision] = STEP_JOB_ID.exec(jobId) ?? [];
  const parsed = stepJobSchema.pick({ sagaId: true, revision: true }).safeParse({ sagaId, revision: Number(revision) });
  return parsed.data ?? null;
}

/** Builds the data of a job. A label never replaces a field. */
export function jobDataOf(job: NextJob, labelsOf: LabelsOf = noLabels): StepJobData {
  return {
    ...Object.fromEntries(Object.entries(labelsOf(job.saga)).filter(([label]) => !Object.hasOwn(stepJobSchema.shape, label))),
    sagaId: job.sagaId,
    revision: job.revision,
    step: job.step,
    position: `${job.position} of ${job.of}`,
    attempt: job.attempt,
  };
}

/**
 * When a delayed job is due, in Unix milliseconds. This is the database's time, unless the process that delayed the job
 * had a wrong clock.
 *
 * @param data the job's data, if already parsed
 */
export function dueAtOf(job: Pick<Job, 'data' | 'timestamp' | 'delay'>, data: Pick<StepJobData, 'dueAt'> | undefined = stepJobSchema.safeParse(job.data).data): number {
  return data?.dueAt ?? job.timestamp + job.delay;
}

/**
 * When a job that is delayed at this moment is due, in Unix milliseconds. Its delay began when it was added; or, if a worker
 * has had it since, when that worker took it or a little later.
 */
export function delayedUntil(job: Pick<Job, 'data' | 'timestamp' | 'delay' | 'processedOn'>): number {
  return stepJobSchema.safeParse(job.data).data?.dueAt ?? (job.processedOn ?? job.timestamp) + job.delay;
}
