// What the web process sees of the queues: adapters for Bull Board, BullMQ's own metrics, and whether jobs move at all.
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import type { Job, Queue } from 'bullmq';
import { errorCodeOf } from '../platform/error-code.ts';
import type { StoredEvent } from '../saga/store.ts';
import type { QueueConnection } from './connection.ts';
import { jobLine, linesOfEvents, mergeLines } from './job-lines.ts';
import { acceptedJobSchema, claimOfJobId, queueNames, stepJobSchema } from './jobs.ts';

/** The job that should move next, of those that wait or are delayed. */
export type QueueHead = Readonly<{
  queue: string;
  isPaused: boolean;
  state: 'waiting' | 'delayed';
  /** Another job, or another run of the same job, has another mark. */
  mark: string;
  /** For how long the job may stay where it is before somebody has to take it, in milliseconds. */
  delayMs: number;
}>;

/** Reads a saga's events after `afterSeq`, oldest first. */
export type ReadEvents = (sagaId: string, afterSeq: number) => Promise<readonly StoredEvent[]>;

export type QueueDashboard = Readonly<{
  /** For Bull Board. Each job links to its saga's page, and the log of a step's job tells what its saga's events say of it. */
  adapters: readonly BullMQAdapter[];
  /** BullMQ's metrics of each queue, in the text format of Prometheus, one document a queue. */
  exportMetrics(): Promise<readonly string[]>;
  /** The head of each queue, waiting and delayed; none where a queue is empty. */
  heads(): Promise<readonly QueueHead[]>;
  /** Names of the queues that people have paused. */
  paused(): Promise<readonly string[]>;
  close(): Promise<void>;
}>;

const descriptions: Readonly<Record<string, string>> = {
  [queueNames.intake]: 'Requests for sagas. A refused one says why.',
  [queueNames.steps]: 'Steps of sagas, forward. Removing or repeating a job is harmless: the truth is in Postgres.',
  [queueNames.compensations]: 'Steps of sagas that are being undone.',
  [queueNames.inventory]: 'Syncs of the inventory. Paused, no worker syncs, and nothing surplus is destroyed, whoever does.',
};

/**
 * Opens the queues for looking at them.
 *
 * @param basePath stands before the addresses of sagas' pages
 * @param names the queues to show; all where left out
 */
export function openQueueDashboard(connection: QueueConnection, readEvents: ReadEvents, basePath = '', names: readonly string[] = Object.values(queueNames)): QueueDashboard {
  const queues = names.map((name) => connection.queue(name));
  return {
    adapters: queues.map((queue) => adapterOf(queue, readEvents, basePath)),
    exportMetrics: () => Promise.all(queues.map((queue) => queue.exportPrometheusMetrics())),
    heads: async () => (await Promise.all(queues.map(readHeads))).flat(),
    paused: async () => (await Promise.all(queues.map(async (queue) => ((await queue.isPaused()) ? [queue.name] : [])))).flat(),
    close: async () => {
      await Promise.all(queues.map((queue) => queue.close()));
    },
  };
}

function adapterOf(queue: Queue, readEvents: ReadEvents, basePath: string): BullMQAdapter {
  const isOfSteps = queue.name === queueNames.steps || queue.name === queueNames.compensations;
  return isOfSteps ? new StepAdapter(queue, readEvents, basePath) : new BullMQAdapter(queue, optionsOf(queue, basePath));
}

function optionsOf(queue: Queue, basePath: string): ConstructorParameters<typeof BullMQAdapter>[1] {
  return { description: descriptions[queue.name] ?? '', externalJobUrl: (job) => linkToSaga(job.data, job.returnvalue, basePath) };
}

/** Shows, beside the lines that BullMQ keeps, those that are made of events: a job that ends writes nothing into its log. */
class StepAdapter extends BullMQAdapter {
  readonly #readEvents: ReadEvents;

  constructor(queue: Queue, readEvents: ReadEvents, basePath: string) {
    super(queue, optionsOf(queue, basePath));
    this.#readEvents = readEvents;
  }

  override async getJobLogs(jobId: string): Promise<string[]> {
    const [kept, made] = await Promise.all([super.getJobLogs(jobId), this.#readLines(jobId)]);
    return mergeLines(kept, made);
  }

  async #readLines(jobId: string): Promise<string[]> {
    const claim = claimOfJobId(jobId);
    if (claim === null) return [];
    let events: readonly StoredEvent[];
    try {
      events = await this.#readEvents(claim.sagaId, claim.revision);
    } catch (error) {
      // No message: nobody knows what an error that was not expected says.
      const label = errorCodeOf(error) ?? (error instanceof Error ? error.name : 'Error');
      return [jobLine(new Date(Date.now()), `the saga's events could not be read (${label}): what they tell of this job is missing here`)];
    }
    return linesOfEvents(events, claim.revision);
  }
}

/** Bull Board shows no link where the address is empty. */
function linkToSaga(data: unknown, returned: unknown, basePath: string): { displayText?: string; href: string } {
  const parsed = [stepJobSchema, acceptedJobSchema].map((schema) => schema.safeParse(data)).find(({ success }) => success);
  const accepted = acceptedJobSchema.safeParse(returned);
  const sagaId = parsed?.data?.sagaId ?? accepted.data?.sagaId;
  return sagaId === undefined ? { href: `${basePath}/sagas` } : { displayText: 'saga', href: `${basePath}/sagas/${sagaId}` };
}

async function readHeads(queue: Queue): Promise<QueueHead[]> {
  const [isPaused, [waiting], [delayed]] = await Promise.all([
    queue.isPaused(),
    queue.getJobs(['waiting'], 0, 0, true) as Promise<(Job | undefined)[]>,
    queue.getJobs(['delayed'], 0, 0, true) as Promise<(Job | undefined)[]>,
  ]);
  const heads: QueueHead[] = [];
  if (waiting !== undefined) heads.push({ queue: queue.name, isPaused, state: 'waiting', mark: markOf(waiting), delayMs: 0 });
  if (delayed !== undefined) heads.push({ queue: queue.name, isPaused, state: 'delayed', mark: markOf(delayed), delayMs: delayed.delay });
  return heads;
}

/** A poll that is put back is the same job, with another start to its name. */
function markOf(job: Job): string {
  return `${job.id}#${job.attemptsStarted}`;
}
