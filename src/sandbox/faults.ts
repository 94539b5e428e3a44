// All faults, as one schema: the body of POST /sandbox/faults and the `faults` option. All are off by default. Names and
// tags are patterns (see patterns.ts).
import { z } from 'zod';
import { problemsOf, sentenceOf } from '../platform/request-problems.ts';
import { isObject } from './json.ts';
import { isPattern } from './patterns.ts';
import { type Random, seededRandom } from './random.ts';

const ms = z.number().min(0);
const msOrRange = z.union([ms, z.strictObject({ minMs: ms, maxMs: ms })]);
const share = z.number().min(0).max(1);
const pattern = z.string().refine(isPattern, 'is not a pattern: text with * for anything, or a regular expression beginning with ^');
const httpStatus = z.number().int().min(200).max(599);
const rate = z.number().int().min(1).nullable();

/** The effects on a request that a rule matches. They can be combined and apply in the order listed here. */
const effectSchema = z
  .strictObject({
    /** Delays the start of the work by this long. */
    delayMs: ms,
    /** No work, and no response ever. */
    hang: z.literal(true),
    /** No work. The connection is reset. */
    reset: z.literal(true),
    /** No work. Responds with this status, this body (objects as JSON) and these headers. */
    status: httpStatus,
    body: z.union([z.string(), z.record(z.string(), z.unknown()), z.array(z.unknown())]),
    headers: z.record(z.string(), z.string()),
    /** No work. Responds with this status and an HTML page like a gateway's. */
    html: httpStatus,
    /** No work. Responds with 429 and this many seconds in `retry-after` (null: without that header). */
    retryAfterS: z.number().int().min(0).nullable(),
    /** Does the work, but corrupts `droplet.id` in the response. */
    mangleId: z.enum(['string', 'zero', 'missing', 'huge', 'negative']),
    /** Does the work at once, but delays the response by this long. */
    holdAnswerMs: ms,
    /** Does the work, but closes the connection without a response. */
    lostAnswer: z.literal(true),
    /** Does the work, but truncates the JSON of the response. */
    truncate: z.literal(true),
    /** Does the work, but responds with this status and an HTML page. */
    htmlAfterWork: httpStatus,
  })
  .partial()
  .refine((effect) => Object.keys(effect).length > 0, 'names no effect')
  .refine((effect) => effect.status !== undefined || (effect.body === undefined && effect.headers === undefined), 'body and headers need a status');

const ruleSchema = z.strictObject({
  match: z
    .strictObject({
      method: z.enum(['GET', 'POST', 'DELETE', 'PUT', 'PATCH']),
      /** A prefix of the path (without query and trailing slash), or a regular expression starting with ^. */
      path: pattern,
      /** The name of a droplet to create (one of `names` is enough), or the `name` of a list. */
      name: pattern,
      /** A tag of a droplet to create, or the `tag_name` of a list or a delete. */
      tag: pattern,
      /** A field that the body sets, such as `ssh_keys`. An empty field does not count. */
      field: z.string().min(1),
    })
    .partial(),
  /** Number of matching requests to let pass first. */
  skip: z.number().int().min(0).optional(),
  /** Number of requests to affect; all by default. */
  times: z.number().int().min(1).optional(),
  effect: effectSchema,
});

const errorKinds = ['500', '502', '503', '504', '429', 'reset', 'lost', 'truncated', '504-after-work'] as const;

/** A kind of failure that errorRate causes. */
export type ErrorKind = (typeof errorKinds)[number];

const faultsSchema = z.strictObject({
  /** Seed of the random faults. Setting it restarts the sequence. */
  seed: z.number().int().default(1),
  /** Additional delay of every API response. */
  latencyMs: msOrRange.default(0),
  /** Share of API requests that fail in one of the `errorKinds`. Rules take precedence. */
  errorRate: share.default(0),
  errorKinds: z.array(z.enum(errorKinds)).min(1).default([...errorKinds]),
  /**
   * Checked in order; the first rule that fires applies. Requests refused with 401, 429 or 503 are not counted. Setting
   * the list resets its counters.
   */
  rules: z.array(ruleSchema).default([]),

  /** How long lists omit a new droplet. */
  listLagMs: ms.default(0),
  /** How long a new droplet has no tags, neither on itself nor in lists. */
  tagLagMs: ms.default(0),
  /** How long lists by tag omit a new droplet, although it shows its tags at once. */
  tagIndexLagMs: ms.default(0),
  /** How long lists still show a deleted droplet. */
  deleteLagMs: ms.default(0),
  /** How long GET of a new droplet (and of its actions) answers 404. */
  notFoundAfterCreateMs: ms.default(0),
  /** How long DELETE of a new droplet answers 404 and does nothing. */
  deleteNotFoundAfterCreateMs: ms.default(0),
  /** Answers DELETE of a droplet that is still `new` with 422 "pending event", or with a 204 that does nothing. */
  earlyDelete: z.enum(['off', '422', 'ignored']).default('off'),
  /** DELETE of a droplet younger than this answers 422 "pending event". */
  pendingEventMs: ms.default(0),
  /** How long GET (but not lists) still shows a deleted droplet. Another DELETE meanwhile answers 204. */
  goneLagMs: ms.default(0),
  /** Lists by tag omit GPU droplets too. The real API's behavior is undocumented. */
  hideGpuFromTagLists: z.boolean().default(false),

  /**
   * Droplets created while this is set (share or names) are accepted. Then their create action becomes `errored` and they
   * are permanently gone.
   */
  placementFails: z.union([share, pattern]).default(0),
  placementFailsAfterMs: ms.default(1000),
  /** Such a droplet stays visible as `new` instead. */
  placementLeavesNew: z.boolean().default(false),
  /** Droplets created while this is set (all or names) stay `new` while it is set. */
  neverActive: z.union([z.boolean(), pattern]).default(false),
  /** Droplets created while this is set are permanently gone this long after their create. The action does not show it. */
  vanishAfterMs: ms.optional(),
  vanishNames: pattern.default('*'),
  /** How long networks stay empty after a droplet became active. */
  activeWithoutNetworksMs: ms.default(0),
  /** How long addresses of one kind are missing after a droplet became active. */
  addressLagMs: z.strictObject({ public_ipv4: ms, private_ipv4: ms, public_ipv6: ms }).partial().default({}),
  /** Status shown for droplets with these names, instead of their own. */
  statusOverride: z.string().optional(),
  statusOverrideNames: pattern.default('*'),

  /** Fields of each shown droplet to replace by these values, by name. `garbleMissing` lists fields to omit. */
  garble: z.record(z.string(), z.unknown()).default({}),
  garbleMissing: z.array(z.string()).default([]),
  garbleNames: pattern.default('*'),

  /** While set, these override the options with the same names. */
  activateAfterMs: msOrRange.optional(),
  dropletLimit: z.number().int().min(0).optional(),
  ratePerMinute: rate.optional(),
  ratePerHour: rate.optional(),

  /** Answers every request with 401. */
  unauthorized: z.boolean().default(false),
  /** Answers creates that set one of these fields, such as `ssh_keys`, with 403: the token lacks the scope. */
  forbiddenFields: z.array(z.string().min(1)).default([]),
  /** Answers every request with 503. */
  down: z.boolean().default(false),
  /** `links.pages.next` points to this host (or origin). */
  nextHost: z.string().min(1).optional(),
});

const nullableKeys = new Set(['ratePerMinute', 'ratePerHour']);

/** All settings, with defaults filled in. */
export type Faults = z.infer<typeof faultsSchema>;
/** The effects on one request. */
export type Effect = z.infer<typeof effectSchema>;
/** One scripted rule. */
export type Rule = z.infer<typeof ruleSchema>;

/** A rule with its counters: requests it matched and requests it affected. */
export type CountedRule = { readonly rule: Rule; seen: number; fired: number };

/** The faults of a running sandbox. */
export type FaultBox = { settings: Faults; rules: CountedRule[]; chance: Random };

/** Thrown for settings that do not match the schema. The message names the fields. */
export class SandboxInputError extends Error {
  override readonly name = 'SandboxInputError';
}

/** Creates the faults of a new sandbox. Throws SandboxInputError for invalid settings. */
export function createFaultBox(initial: Partial<Faults>): FaultBox {
  const box: FaultBox = { settings: faultsSchema.parse({}), rules: [], chance: seededRandom(1) };
  mergeFaults(box, initial);
  return box;
}

/**
 * Sets the given fields and keeps the others. Null resets a field to its default (except a rate: null means no limit).
 * For invalid input, throws SandboxInputError and changes nothing.
 */
export function mergeFaults(box: FaultBox, input: unknown): void {
  if (!isObject(input)) throw new SandboxInputError('faults must be a JSON object');
  const parsed = faultsSchema.safeParse({ ...box.settings, ...withoutNulls(input) });
  if (!parsed.success) throw new SandboxInputError(describeIssues(parsed.error));
  box.settings = parsed.data;
  if ('rules' in input) box.rules = parsed.data.rules.map((rule) => ({ rule, seen: 0, fired: 0 }));
  if ('seed' in input) box.chance = seededRandom(parsed.data.seed);
}

/** Turns every fault off. */
export function resetFaults(box: FaultBox): void {
  Object.assign(box, createFaultBox({}));
}

function withoutNulls(input: object): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(input).map(([key, value]) => [key, value === null && !nullableKeys.has(key) ? undefined : value]),
  );
}

/** Describes the problems of an input, field by field. */
export function describeIssues(error: z.ZodError): string {
  return sentenceOf(problemsOf(error.issues, 'body'));
}
