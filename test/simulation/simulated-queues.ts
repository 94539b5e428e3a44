// BullMQ, as far as the queues and the workers use it: jobs with their states, locks that expire, ids that swallow an
// `add`. The code of src/queues runs on it as it is.
import { AsyncLocalStorage } from 'node:async_hooks';
import type { Job, Queue, Worker } from 'bullmq';
import type { QueueConnection } from '../../src/queues/connection.ts';
import { standIn } from './stand-in.ts';
import type { Call } from './violation.ts';
import { Violation } from './violation.ts';

export type SimulatedJob = {
  readonly queue: string;
  readonly id: string;
  readonly name: string;
  data: object;
  state: 'waiting' | 'delayed' | 'active' | 'completed' | 'failed';
  /** By the clock of the process that delayed it. */
  dueAt: number;
  /** Of the worker that has it, while active. */
  token: string | null;
  lockUntil: number;
  stalls: number;
};

type Added = { queue: string; name: string; data: object; more: { jobId: string; delay?: number }; at: number };

type Processor = (job: Job, token: string) => Promise<unknown>;

export type SimulatedQueues = Readonly<{
  connection: QueueConnection;
  /** Oldest first. */
  jobs(): SimulatedJob[];
  /** What a worker makes of a job. */
  process(job: SimulatedJob, token: string): Promise<unknown>;
  /** Adds the jobs that a run handed on down its worker's lane: the store is told of them before it is told how the job ended. */
  addHanded(token: string): Promise<void>;
  /** Takes an active job out of a worker's hands; throws when it has lost its lock, or the job is gone. */
  finish(job: SimulatedJob, token: string, state: 'completed' | 'failed'): void;
  remove(job: SimulatedJob): void;
  flush(): void;
  /** A copy of all there is. */
  snapshot(): SimulatedJob[];
  /** Everything as it was: jobs that were active then are so again, and nobody has them. */
  restore(snapshot: readonly SimulatedJob[]): void;
}>;

export function createSimulatedQueues(options: { call: Call; wallClockMs: () => number }): SimulatedQueues {
  const { call, wallClockMs } = options;
  let jobs = new Map<string, SimulatedJob>();
  const processors = new Map<string, Processor>();
  /** What runs handed on, by their tokens. */
  const handed = new Map<string, Added[]>();
  const running = new AsyncLocalStorage<string>();

  const add = (queue: string, name: string, data: object, { jobId, delay = 0 }: { jobId: string; delay?: number }, at: number) => {
    const key = keyOf(queue, jobId);
    if (jobs.has(key)) return;
    jobs.set(key, {
      queue,
      id: jobId,
      name,
      data: { ...data },
      state: delay > 0 ? 'delayed' : 'waiting',
      dueAt: at + delay,
      token: null,
      lockUntil: 0,
      stalls: 0,
    });
  };

  const existing = (queue: string, id: string): SimulatedJob => {
    const job = jobs.get(keyOf(queue, id));
    if (job === undefined) throw new Error(`Missing key for job ${id}`);
    return job;
  };
  const locked = (queue: string, id: string, token: string | null): SimulatedJob => {
    const job = existing(queue, id);
    if (job.state !== 'active' || job.token !== token) throw new Error(`Missing lock for job ${id}`);
    return job;
  };

  const found = (queue: string, id: string) => {
    const job = jobs.get(keyOf(queue, id));
    if (job === undefined) return undefined;
    return {
      data: job.data,
      getState: () => call('queue', `state in ${queue}`, () => jobs.get(keyOf(queue, id))?.state ?? 'unknown', () => id),
      remove: () => call('queue', `remove from ${queue}`, () => {
        if (jobs.get(keyOf(queue, id))?.state === 'active') throw new Error(`Job ${id} could not be removed because it is locked by another worker`);
        jobs.delete(keyOf(queue, id));
      }, () => id),
    };
  };

  const callAdd = ({ queue, name, data, more, at }: Added) =>
    call('queue', `add to ${queue}`, () => add(queue, name, data, more, at), () => `${more.jobId} delay ${more.delay ?? 0}`);

  const queueCalled = (queue: string) => ({
    add: (name: string, data: object, more: { jobId: string; delay?: number }) => callAdd({ queue, name, data, more, at: wallClockMs() }),
    getJob: (id: string) => call('queue', `find in ${queue}`, () => found(queue, id), () => id),
    getJobState: (id: string) => call('queue', `state in ${queue}`, () => jobs.get(keyOf(queue, id))?.state ?? 'unknown', () => id),
  });

  const jobInHand = ({ queue, id, data }: SimulatedJob) => ({
    id,
    data,
    updateData: (changed: object) =>
      call('queue', 'update data', () => {
        existing(queue, id).data = { ...changed };
      }, () => `${id} ${JSON.stringify(changed)}`),
    // For people to read: nothing depends on it.
    log: () => Promise.resolve(1),
    moveToDelayed: (timestamp: number, token: string) =>
      call('queue', 'move to delayed', () => {
        const job = locked(queue, id, token);
        job.state = 'delayed';
        job.dueAt = timestamp;
        job.token = null;
      }, () => id),
  });

  return {
    connection: standIn<QueueConnection>({
      queue: (name: string) => standIn<Queue>(queueCalled(name)),
      worker: (name: string, processor: Processor) => {
        processors.set(name, processor);
        return standIn<Worker>({ on: () => undefined });
      },
      laneOf: () => ({
        queue: (queue: string) =>
          standIn<Queue>({
            add: (name: string, data: object, more: { jobId: string; delay?: number }) => {
              handed.get(running.getStore() ?? '')?.push({ queue, name, data, more, at: wallClockMs() });
              return Promise.resolve();
            },
          }),
        sent: () => Promise.resolve(),
      }),
    }),
    jobs: () => [...jobs.values()],
    process: async (job, token) => {
      const processor = processors.get(job.queue);
      if (processor === undefined) throw new Violation(`nobody works on the queue ${job.queue}`);
      handed.set(token, []);
      return running.run(token, () => processor(standIn<Job>(jobInHand(job)), token));
    },
    addHanded: async (token) => {
      for (const added of handed.get(token) ?? []) {
        try {
          await callAdd(added);
        } catch (error) {
          // Nobody waits for it.
          if (error instanceof Violation) throw error;
        }
      }
      handed.delete(token);
    },
    finish: (job, token, state) => {
      const current = locked(job.queue, job.id, token);
      current.state = state;
      current.token = null;
    },
    remove: (job) => {
      jobs.delete(keyOf(job.queue, job.id));
    },
    flush: () => jobs.clear(),
    snapshot: () => [...jobs.values()].map((job) => ({ ...job })),
    restore: (snapshot) => {
      jobs = new Map(snapshot.map((job) => [keyOf(job.queue, job.id), { ...job }]));
    },
  };
}

function keyOf(queue: string, id: string): string {
  return `${queue} ${id}`;
}
