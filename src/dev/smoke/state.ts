// The progress of a smoke run, in a file that is written before each effect. The next call can continue from it.
import { open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { errorCodeOf } from '../../platform/error-code.ts';
import { parseJson } from '../../platform/json.ts';
import type { SmokeIo } from './io.ts';

const time = z.iso.datetime();
const lag = z.number().min(0).nullable();

const seenDroplet = z.object({ id: z.int().positive(), name: z.string().nullable(), tags: z.array(z.string()).nullable() });

const lags = z.object({
  readableMs: lag, listedMs: lag, taggedMs: lag, tagListedMs: lag, activeMs: lag, publicIpv4Ms: lag, pendingEventMs: lag, goneMs: lag, unlistedMs: lag,
});

const stateSchema = z.object({
  version: z.literal(1),
  /** 8 hexadecimal digits, in the names and keys of everything the run creates. */
  run: z.string().regex(/^[0-9a-f]{8}$/),
  /** `done`: nothing is left of it. */
  phase: z.enum(['open', 'done']),
  startedAt: time,
  apiUrl: z.string(),
  /** Its id, or a fingerprint of the token if the token may not read the id. */
  account: z.string(),
  /** `embedded`, or the id of DATABASE_URL's database. */
  store: z.string(),
  region: z.string(),
  size: z.string(),
  image: z.string(),
  hard: z.boolean(),
  priceUsdPerHour: z.number().nonnegative(),
  /** The account as first read. */
  before: z.object({ droplets: z.array(seenDroplet), tags: z.array(z.string()) }),
  acts: z.array(z.object({ act: z.string(), dropletName: z.string() })),
  /** Forwarded creates, in order. `dropletId`: the droplet of its answer, or one that was seen without an answer. */
  creates: z.array(z.object({ name: z.string(), at: time, isRefused: z.boolean().default(false), dropletId: z.int().positive().nullable().default(null) })),
  /** Requests of workers that the gate refused, each once. */
  refused: z.array(z.string()).default([]),
  /** Every droplet that the run created, as seen by the gate. */
  droplets: z.array(
    z.object({
      id: z.int().positive(),
      name: z.string(),
      tags: z.array(z.string()),
      /** When its create was sent. */
      madeAt: time,
      /** When DigitalOcean accepted its deletion. */
      deletedAt: time.nullable(),
      /** When a GET first answered 404 after that. */
      goneAt: time.nullable(),
      lags,
    }),
  ),
});

export type SmokeState = z.infer<typeof stateSchema>;
export type Create = SmokeState['creates'][number];
export type SeenDroplet = z.infer<typeof seenDroplet>;
export type MadeDroplet = SmokeState['droplets'][number];
export type Lags = z.infer<typeof lags>;

const noLags: Lags = { readableMs: null, listedMs: null, taggedMs: null, tagListedMs: null, activeMs: null, publicIpv4Ms: null, pendingEventMs: null, goneMs: null, unlistedMs: null };

/** The state of the current run. */
export type StateFile = Readonly<{
  read(): SmokeState;
  /** Writes one change at a time; resolves when it is on disk. `what` names it for the I/O seam. */
  change(what: string, change: (state: SmokeState) => SmokeState): Promise<void>;
}>;

const FILE = 'smoke.json';

/**
 * Reads the state of an earlier run in a folder; null: none.
 *
 * @throws {Error} if this version cannot read the file: it may record droplets that cost money
 */
export async function readState(folder: string): Promise<SmokeState | null> {
  const path = join(folder, FILE);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (errorCodeOf(error) === 'ENOENT') return null;
    throw error;
  }
  const parsed = stateSchema.safeParse(parseJson(text));
  if (parsed.success) return parsed.data;
  throw new Error(`${path} cannot be read by this version, and may tell of droplets that an earlier run left. Finish that run with the version that wrote the file, or look for droplets named arcadia-smoke-… at DigitalOcean and remove the file.`);
}

/** Keeps a state in a folder. The first `change` writes it. */
export function keepState(folder: string, first: SmokeState, io: SmokeIo): StateFile {
  let current = first;
  let last: Promise<unknown> = Promise.resolve();
  return {
    read: () => current,
    change: async (what, change) => {
      const before = last;
      const write = async (): Promise<void> => {
        await before;
        const changed = change(current);
        await io(`state: ${what}`, () => writeAtomically(join(folder, FILE), `${JSON.stringify(changed)}\n`));
        current = changed;
      };
      const writing = write();
      // A failed write must not prevent later ones.
      last = Promise.allSettled([writing]);
      await writing;
    },
  };
}

/** Replaces a file atomically: after a crash at any moment, it has either the old or the new content. */
export async function writeAtomically(path: string, text: string): Promise<void> {
  const unfinished = `${path}.unfinished`;
  const file = await open(unfinished, 'w', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(unfinished, path);
  await syncFolder(path);
}

/** Makes the rename durable: otherwise a power failure may restore the old file. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(join(path, '..'), 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

// Users of DigitalOcean report droplets that appeared long after their create.
const APPEARS_WITHIN_MS = 3_600_000;

/** Until when the droplet of a create may still appear. */
export function appearsUntil({ at }: Pick<Create, 'at'>): Date {
  return new Date(Date.parse(at) + APPEARS_WITHIN_MS);
}

/** Returns the creates with unknown outcome: no droplet was seen, and the create was not refused. */
export function unansweredCreates({ creates }: SmokeState): Create[] {
  return creates.filter(({ isRefused, dropletId }) => !isRefused && dropletId === null);
}

/** Returns the unanswered creates whose droplets may still appear. */
export function openCreates(state: SmokeState, now: Date): Create[] {
  return unansweredCreates(state).filter((create) => appearsUntil(create) > now);
}

/** Records that a create was answered with a droplet. */
export function withAnswer(state: SmokeState, place: number, dropletId: number): SmokeState {
  // A list may have shown the droplet before its answer came, when it seemed to be another create's.
  return { ...state, creates: state.creates.map((one, index) => (index === place ? { ...one, dropletId } : one.dropletId === dropletId ? { ...one, dropletId: null } : one)) };
}

/**
 * Records a newly seen droplet.
 *
 * @param place the create that was answered with it; null: the first unanswered one with its name
 */
export function withNewDroplet(state: SmokeState, seen: Pick<MadeDroplet, 'id' | 'name' | 'tags'>, place: number | null): SmokeState {
  const unanswered = unansweredCreates(state).find(({ name }) => name === seen.name);
  const index = place ?? (unanswered === undefined ? -1 : state.creates.indexOf(unanswered));
  const answered = index === -1 ? state : withAnswer(state, index, seen.id);
  const madeAt = (state.creates[index] ?? state.creates.find(({ name }) => name === seen.name))?.at ?? state.startedAt;
  return { ...answered, droplets: [...state.droplets, { ...seen, madeAt, deletedAt: null, goneAt: null, lags: noLags }] };
}

/** Changes one droplet of a state. */
export function withDroplet(state: SmokeState, id: number, change: (droplet: MadeDroplet) => MadeDroplet): SmokeState {
  return { ...state, droplets: state.droplets.map((droplet) => (droplet.id === id ? change(droplet) : droplet)) };
}
