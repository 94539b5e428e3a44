// The contract of the queues: their names, what stands in a job, and how a job is called.
import type { Job } from 'bullmq';
import { z } from 'zod';
import type { LabelsOf } from '../saga/labels.ts';
import { noLabels } from '../saga/labels.ts';
import type { Direction, NextJob } from '../saga/saga.ts';
import type { Claim } from '../saga/step.ts';

/** Names of the queues. */
export const queueNames = { intake: 'sagas', steps: 'saga-steps', compensations: 'saga-compensations', inventory: 'inventory' } as const;

/**
 * What a step's job carries. Only `sagaId` and `revision` count; the rest is for people to read. Anybody who can reach
 * the queue store may have written it, so it is never believed beyond "look at this saga". Beside these fields it has the
 * labels of its saga.
 */
export const stepJobSchema = z.object({
  sagaId: z.uuid().toLowerCase(),
  revision: z.int().min(0).max(2_147_483_647),
  step: z.string().optional(),
  position: z.string().optional(),
  attempt: z.int().optional().catch(undefined),
  /** Why the job was put back the last time. */
  reason: z.string().optional().catch(undefined),
  memo: z.record(z.string().max(50), z.int().min(0).max(1_000_000_000)).optional(),
  /** When a job that was put back is due, in Unix milliseconds. BullMQ keeps only how long it was put back for. */
  dueAt: z.int().min(0).optional(),
});

export type StepJobData = z.infer<typeof stepJobSchema>;

/** What other backends put into the intake queue; the job's name is the saga's. */
export const intakeJobSchema = z.strictObject({
  input: z.record(z.string(), z.unknown(), 'expected an object with the fields of the saga'),
  idempotencyKey: z.string().optional(),
  requestedBy: z.string().optional(),
});

/** What an intake job carries once its saga stands: no input stays in the queue store. */
export const acceptedJobSchema = z.strictObject({ sagaId: z.uuid() });

/** What is left of a request that was refused: the names of its fields, and why. */
export const refusedJobSchema = z.strictObject({ refused: z.unknown(), reason: z.string() });

/** The queue that a job goes to: compensations have their own, so that creation can be paused while rollbacks flow. */
export function queueNameOf(direction: Direction): string {
  return direction === 'forward' ? queueNames.steps : queueNames.compensations;
}

/** Enqueueing the same work twice is enqueueing it once. BullMQ refuses colons and plain integers in a job id. */
export function jobIdOf(job: Pick<NextJob, 'sagaId' | 'revision'>): string {
  return `${job.sagaId}_${job.revision}`;
}

const STEP_JOB_ID = /^([0-9a-f-]{36})_(\d+)$/;

/** Whether a job's id was made by `jobIdOf`; jobs that are added by hand have others. */
export function isStepJobId(id: string | undefined): boolean {
  return id !== undefined && STEP_JOB_ID.test(id);
}

/** What an id that `jobIdOf` made says; null for any other. */
export function claimOfJobId(jobId: string): Claim | null {
  const [, sagaId, revision] = STEP_JOB_ID.exec(jobId) ?? [];
  const parsed = stepJobSchema.pick({ sagaId: true, revision: true }).safeParse({ sagaId, revision: Number(revision) });
  return parsed.data ?? null;
}

/** What stands in the job; no label takes the place of a field. */
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
 * When a delayed job is due, in Unix milliseconds: by the database's clock, unless whoever delayed it had a wrong one.
 *
 * @param data what stands in the job, where it was read already
 */
export function dueAtOf(job: Pick<Job, 'data' | 'timestamp' | 'delay'>, data: Pick<StepJobData, 'dueAt'> | undefined = stepJobSchema.safeParse(job.data).data): number {
  return data?.dueAt ?? job.timestamp + job.delay;
}
