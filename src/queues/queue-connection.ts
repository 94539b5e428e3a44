// What the rest of src/queues knows of the store: its queues and workers, whatever kind of store it is.
import type { Processor, Queue, Worker, WorkerOptions } from 'bullmq';
import type { RunRedisScript } from '../platform/redis-script.ts';
import type { QueueStore } from './queue-store.ts';

/** BullMQ's worker options, without the connection. */
export type WorkerSettingsOfBullMq = Omit<WorkerOptions, 'connection' | 'prefix'>;

/** The current state of one queue's worker. */
export type JobLoop = Readonly<{
  queueName: string;
  concurrency: number;
  /** Number of jobs it was handed so far. */
  handed: number;
  /** Number of jobs it is running now. */
  running: number;
}>;

/** Queues on a worker's own connection. Jobs added here reach the store before anything the worker sends later. */
export type Lane = Readonly<{
  queue(name: string): Queue;
  /** Resolves once the jobs added so far have been sent. */
  sent(): Promise<void>;
}>;

/** `evictionPolicy`: by which the store may throw jobs away, such as `allkeys-lru`; null: it never does. */
export type StoreMemory = Readonly<{ isFull: boolean; evictionPolicy: string | null }>;

/** Opens queues and workers on one store. */
export type QueueConnection = Readonly<{
  store: QueueStore;
  queue(name: string): Queue;
  worker(name: string, processor: Processor, options: WorkerSettingsOfBullMq): Worker;
  /** Returns the lane of a worker of this connection; null if the store does not keep two statements in order (Postgres). */
  laneOf(worker: Worker): Lane | null;
  /** Runs Lua scripts in the store; null unless it is Redis. */
  runScript: RunRedisScript | null;
  /** The workers created so far. */
  loops(): readonly JobLoop[];
  /**
   * Checks that jobs are safe in the store and that its queues belong to this database.
   *
   * @param owner name of the database that the jobs belong to
   * @throws {QueueStoreError} if the store is unreachable
   * @throws {ConfigError} if the store may evict jobs, or its queues belong to another database
   */
  check(owner: string): Promise<void>;
  /**
   * Claims the queues for a database, as {@link QueueConnection.check} does, and says whether nobody had claimed them. Null unless the
   * store is Redis.
   *
   * @throws {QueueStoreError} {ConfigError} as {@link QueueConnection.check}
   */
  claim: ((owner: string) => Promise<boolean>) | null;
  /**
   * Reads which database the queues belong to; resolves with null if none has claimed them. Null unless the store is
   * Redis: queues in Postgres are in their database.
   */
  readOwner: (() => Promise<string | null>) | null;
  /** Reads whether there are tables of queues, and jobs in them. Null unless the store is Postgres. */
  readTables: (() => Promise<'absent' | 'empty' | 'used'>) | null;
  /**
   * Checks that jobs are safe in the store, whatever database its queues belong to.
   *
   * @returns the server's name, with its version unless it is Postgres
   * @throws {QueueStoreError} {ConfigError} as {@link QueueConnection.check}
   */
  inspect(): Promise<string>;
  /**
   * Checks that the store currently accepts writes.
   *
   * @throws {QueueStoreError} if the store is unreachable or read-only
   */
  requireWrites(): Promise<void>;
  /**
   * Reads whether the store has no room for jobs although it answers, and whether it may evict them.
   *
   * @throws {QueueStoreError} if the store is unreachable or read-only
   */
  memory(): Promise<StoreMemory>;
  /** Closes the shared connections. Close all queues and workers first. */
  close(): Promise<void>;
}>;

export type QueueConnectionOptions = Readonly<{
  /** How long a connection to Postgres may be idle before it is closed, in milliseconds. */
  idleMs?: number;
  /** A queue in Postgres that gets some of the connections for itself, so that it never waits behind the other queues. */
  apart?: string | null;
}>;
