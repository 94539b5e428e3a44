// What the web process reads of the queues: adapters for Bull Board, BullMQ's metrics, and whether jobs make progress.
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import type { Job, Queue } from 'bullmq';
import { errorCodeOf } from '../platform/error-code.ts';
import type { StoredEvent } from '../saga/events.ts';
import type { QueueConnection } from './connection.ts';
import { jobLine, linesOfEvents, mergeLines } from './job-lines.ts';
import { acceptedJobSchema, claimOfJobId, queueNames, stepJobSchema } from './jobs.ts';

/** The waiting or delayed job that should run next. */
export type QueueHead = Readonly<{
  queue: string;
  isPaused: boolean;
  state: 'waiting' | 'delayed';
  /** Identifies one run of one job: another job, or another run of the same job, has another mark. */
  mark: string;
  /** How long the job may stay at the head before a worker has to take it, in milliseconds. */
  delayMs: number;
}>;

/** How much a queue holds. */
export type QueueDepth = Readonly<{
  name: string;
  isPaused: boolean;
  waiting: number;
  active: number;
  delayed: number;
  failed: number;
  /** When the oldest waiting job was added; null: none waits. */
  oldestWaitingSince: Date | null;
}>;

/** Reads a saga's events after `afterSeq`, oldest first. */
export type ReadEvents = (sagaId: string, afterSeq: number) => Promise<readonly StoredEvent[]>;

export type QueueDashboard = Readonly<{
  /** For Bull Board. Each job links to its saga's page. The log of a step's job includes the saga events about that job. */
  adapters: readonly BullMQAdapter[];
  /** BullMQ's metrics in Prometheus's text format, one document per queue. */
  exportMetrics(): Promise<readonly string[]>;
  /** The head of each queue, waiting or delayed. Empty queues have none. */
  heads(): Promise<readonly QueueHead[]>;
  /** Names of the queues that a person paused. */
  paused(): Promise<readonly string[]>;
  /** How much each queue holds. */
  depths(): Promise<readonly QueueDepth[]>;
  close(): Promise<void>;
}>;

const descriptions: Readonly<Record<string, string>> = {
  [queueNames.intake]: 'Requests to start sagas. A refused request says why.',
  [queueNames.steps]: 'Forward steps of sagas. It is safe to remove or repeat a job: the state is in Postgres.',
  [queueNames.compensations]: 'Compensations: steps of sagas that are being undone.',
  [queueNames.inventory]: 'Syncs of the inventory. While it is paused, workers do not sync and nothing surplus is destroyed.',
  [queueNames.outcomes]: 'Deliveries of outcomes to OUTCOME_WEBHOOK_URL. It is safe to remove or repeat a job: what is delivered is in Postgres.',
};

/**
 * Opens the queues for reading.
 *
 * @param basePath prefix of the URLs of sagas' pages
 * @param names the queues to show; all by default
 */
export function openQueueDashboard(connection: QueueConnection, readEvents: ReadEvents, basePath = '', names: readonly string[] = Object.values(queueNames)): QueueDashboard {
  const queues = names.map((name) => connection.queue(name));
  return {
    adapters: queues.map((queue) => adapterOf(queue, readEvents, basePath)),
    exportMetrics: () => Promise.all(queues.map((queue) => queue.exportPrometheusMetrics())),
    heads: async () => (await Promise.all(queues.map(readHeads))).flat(),
    depths: () => Promise.all(queues.map(readDepth)),
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

/** Adds lines made from events to the lines that BullMQ keeps: a job that ends does not write to its log. */
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
      // Omits the message: an unexpected error may contain anything.
      const label = errorCodeOf(error) ?? (error instanceof Error ? error.name : 'Error');
      return [jobLine(new Date(Date.now()), `the saga's events could not be read (${label}), so they are missing here`)];
    }
    return linesOfEvents(events, claim.revision);
  }
}

/** Bull Board shows no link if the URL is empty. */
function linkToSaga(data: unknown, returned: unknown, basePath: string): { displayText?: string; href: string } {
  const parsed = [stepJobSchema, acceptedJobSchema].map((schema) => schema.safeParse(data)).find(({ success }) => success);
  const accepted = acceptedJobSchema.safeParse(returned);
  const sagaId = parsed?.data?.sagaId ?? accepted.data?.sagaId;
  return sagaId === undefined ? { href: `${basePath}/sagas` } : { displayText: 'saga', href: `${basePath}/sagas/${sagaId}` };
}

async function readDepth(queue: Queue): Promise<QueueDepth> {
  const [isPaused, counts, [oldest]] = await Promise.all([
    queue.isPaused(),
    queue.getJobCounts('waiting', 'prioritized', 'active', 'delayed', 'failed'),
    queue.getJobs(['waiting'], 0, 0, true) as Promise<(Job | undefined)[]>,
  ]);
  const { waiting = 0, prioritized = 0, active = 0, delayed = 0, failed = 0 } = counts;
  return { name: queue.name, isPaused, waiting: waiting + prioritized, active, delayed, failed, oldestWaitingSince: oldest === undefined ? null : new Date(oldest.timestamp) };
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

/** A postponed poll is the same job with another start count. */
function markOf(job: Job): string {
  return `${job.id}#${job.attemptsStarted}`;
}
