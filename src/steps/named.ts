// Resolves names in the input that DigitalOcean accepts only as ids: SSH keys and the project. This happens before the
// create is announced, and the ids are recorded. So every create of the saga requests the same, whatever is renamed
// later.
import type { ReadList } from '../do/kept-list.ts';
import { DigitalOceanError } from '../do/errors.ts';
import { isLocalTrouble } from '../platform/error-code.ts';
import type { JsonObject } from '../platform/json.ts';
import { shorten, visible } from '../platform/text.ts';
import { isUuid } from '../platform/uuid.ts';
import type { Saga } from '../saga/saga.ts';
import type { StepRun } from '../saga/step.ts';
import { StepFailure } from '../saga/step.ts';
import type { StepDeps } from './deps.ts';
import { failed } from './failures.ts';
import { nearestFirst } from './near.ts';

/** The ids for a saga's names. Null: the input requests none. */
export type NamedIds = Readonly<{ sshKeys: readonly (string | number)[] | null; projectId: string | null }>;

type SshKeyEntry = string | number;

// Keys of the saga's context.
const SSH_KEYS_FIELD = 'ssh_key_ids';
const PROJECT_FIELD = 'project_id';

// An older list is read again. A missing or ambiguous name always causes a new read.
const KEPT_MS = 30_000;

const MOST_NAMES = 10;
// Sorting a hundred thousand names would take seconds.
const MOST_COMPARED = 1_000;
const LONGEST_NAME = 60;

// A fingerprint is MD5, as hexadecimal bytes with colons, or SHA256. A numeric string is an id, for compatibility.
const idOrFingerprint = /^(?:\d+|[0-9a-f]{2}(?::[0-9a-f]{2})+|sha256:.+)$/i;

/** The project for the saga's droplet; null: none requested. */
export function recordedProjectId({ context }: Pick<Saga, 'context'>): string | null {
  const id = context[PROJECT_FIELD];
  return typeof id === 'string' ? id : null;
}

/**
 * Resolves the names in the input and records the ids. A later run finds them in the context.
 *
 * @throws {StepFailure} `ssh_key_unknown`, `ssh_key_ambiguous`, `project_unknown`, `project_ambiguous`: nothing was
 *   created; retryable if DigitalOcean is unreachable
 */
export async function resolveNames(run: StepRun, { directory }: Pick<StepDeps, 'directory'>): Promise<NamedIds> {
  const { input, context } = run.saga;
  const given = sshKeysOf(input);
  const project = typeof input['project'] === 'string' ? input['project'] : null;
  const hasNames = given?.some(isName) === true;
  const recordedKeys = Array.isArray(context[SSH_KEYS_FIELD]) ? context[SSH_KEYS_FIELD].filter(isEntry) : null;
  const recordedProject = recordedProjectId(run.saga);
  const isResolved = (!hasNames || recordedKeys !== null) && (project === null || recordedProject !== null);
  if (isResolved) return { sshKeys: hasNames ? recordedKeys : given, projectId: recordedProject };

  const sshKeys = hasNames && given !== null ? await withIds(given, (maxAgeMs) => directory.sshKeys(maxAgeMs)) : given;
  const projectId = project === null ? null : await projectIdOf(project, (maxAgeMs) => directory.projects(maxAgeMs));
  await run.record('looked up what the input names', {
    ...(hasNames && sshKeys !== null ? { [SSH_KEYS_FIELD]: [...sshKeys] } : {}),
    ...(projectId === null ? {} : { [PROJECT_FIELD]: projectId }),
  });
  return { sshKeys, projectId };
}

type Named = Readonly<{ id: string | number; name: string }>;

async function withIds(entries: readonly SshKeyEntry[], read: ReadList<Named>): Promise<SshKeyEntry[]> {
  const ids: SshKeyEntry[] = [];
  for (const entry of entries) {
    ids.push(isName(entry) ? (await find(String(entry), 'SSH key', 'ssh_key', read, ({ name }) => name === entry)).id : entry);
  }
  return [...new Set(ids)];
}

async function projectIdOf(wanted: string, read: ReadList<Named>): Promise<string> {
  const isWanted = isUuid(wanted) ? ({ id, name }: Named) => id === wanted.toLowerCase() || name === wanted : ({ name }: Named) => name === wanted;
  return String((await find(wanted, 'project', 'project', read, isWanted)).id);
}

/** A name that a cached list lacks, or has twice, does not fail at once: the list is read again. */
async function find<T extends Named>(wanted: string, what: string, code: string, read: ReadList<T>, isWanted: (item: T) => boolean): Promise<T> {
  let { items, ageMs } = await orRetry(() => read(KEPT_MS));
  if (ageMs > 0 && items.filter(isWanted).length !== 1) ({ items } = await orRetry(() => read(0)));
  const [found, ...others] = items.filter(isWanted);
  if (found === undefined) throw unknown(wanted, what, code, items);
  if (others.length > 0) throw ambiguous(wanted, what, code, [found, ...others]);
  return found;
}

/** Nothing exists yet that is worth waiting for, so the caller soon learns that DigitalOcean is unreachable. */
async function orRetry<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof DigitalOceanError) || error.kind !== 'later' || isLocalTrouble(error)) throw error;
    throw new StepFailure(failed(error, true).error);
  }
}

function unknown(wanted: string, what: string, code: string, items: readonly Named[]): StepFailure {
  const names = [...new Set(items.map(({ name }) => name).filter((name) => name !== ''))];
  const more = names.length - MOST_NAMES;
  const list = nearestFirst(wanted, names.slice(0, MOST_COMPARED)).slice(0, MOST_NAMES).map(quote).join(', ');
  const there = names.length === 0 ? `The account has no ${what}` : `The account has ${list}${more > 0 ? `, and ${more} more` : ''}`;
  return terminal(`${code}_unknown`, `the DigitalOcean account has no ${what} called ${quote(wanted)}, so nothing was created. ${there}`);
}

function ambiguous(wanted: string, what: string, code: string, items: readonly Named[]): StepFailure {
  const ids = items.slice(0, MOST_NAMES).map(({ id }) => id).join(', ');
  return terminal(`${code}_ambiguous`, `the DigitalOcean account has ${items.length} ${what}s called ${quote(wanted)} (ids ${ids}), so nothing was created. Give the id of the one that you mean`);
}

function terminal(code: string, message: string): StepFailure {
  return new StepFailure({ code, message, retryable: false });
}

function quote(name: string): string {
  return JSON.stringify(visible(shorten(name, LONGEST_NAME)));
}

function sshKeysOf({ ssh_keys: keys }: JsonObject): SshKeyEntry[] | null {
  return Array.isArray(keys) ? keys.filter(isEntry) : null;
}

function isEntry(entry: unknown): entry is SshKeyEntry {
  return typeof entry === 'string' || typeof entry === 'number';
}

/** Whether an entry of `ssh_keys` is a name, not an id or a fingerprint. */
export function isName(entry: SshKeyEntry): boolean {
  return typeof entry === 'string' && !idOrFingerprint.test(entry);
}
