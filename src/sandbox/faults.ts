// Everything that can be made to go wrong, as one schema: the body of POST /sandbox/faults and the `faults` option.
// All are off by default. Names and tags are patterns (see patterns.ts).
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

/** What happens to a request that a rule picked. Several may be combined; they take place in the order listed here. */
const effectSchema = z
  .strictObject({
    /** Work begins that late. */
    delayMs: ms,
    /** No work, and never an answer. */
    hang: z.literal(true),
    /** No work; the connection is reset. */
    reset: z.literal(true),
    /** No work; this status, with this body (an object is sent as JSON) and these headers. */
    status: httpStatus,
    body: z.union([z.string(), z.record(z.string(), z.unknown()), z.array(z.unknown())]),
    headers: z.record(z.string(), z.string()),
    /** No work; an HTML page, as a gateway sends it, with this status. */
    html: httpStatus,
    /** No work; 429 with `retry-after` of so many seconds (null: without that header). */
    retryAfterS: z.number().int().min(0).nullable(),
    /** The work is done, but `droplet.id` in the answer is broken. */
    mangleId: z.enum(['string', 'zero', 'missing', 'huge', 'negative']),
    /** The work is done at once, its answer comes that late. */
    holdAnswerMs: ms,
    /** The work is done; the connection is closed without an answer. */
    lostAnswer: z.literal(true),
    /** The work is done; the JSON of the answer is cut in the middle. */
    truncate: z.literal(true),
    /** The work is done; an HTML page with this status is the answer. */
    htmlAfterWork: httpStatus,
  })
  .partial()
  .refine((effect) => Object.keys(effect).length > 0, 'names no effect')
  .refine((effect) => effect.status !== undefined || (effect.body === undefined && effect.headers === undefined), 'body and headers need a status');

const ruleSchema = z.strictObject({
  match: z
    .strictObject({
      method: z.enum(['GET', 'POST', 'DELETE', 'PUT', 'PATCH']),
      /** Prefix of the path without query and trailing slash, or a regular expression beginning with ^. */
      path: pattern,
      /** Name of a droplet to be created (one of `names` is enough), or the `name` of a list. */
      name: pattern,
      /** A tag of a droplet to be created, or the `tag_name` of a list or a delete. */
      tag: pattern,
      /** A field that the body carries, such as `ssh_keys`; an empty one does not count. */
      field: z.string().min(1),
    })
    .partial(),
  /** So many matching requests pass first. */
  skip: z.number().int().min(0).optional(),
  /** So many are hit; without it, all of them. */
  times: z.number().int().min(1).optional(),
  effect: effectSchema,
});

const errorKinds = ['500', '502', '503', '504', '429', 'reset', 'lost', 'truncated', '504-after-work'] as const;

/** One way in which errorRate breaks an answer. */
export type ErrorKind = (typeof errorKinds)[number];

const faultsSchema = z.strictObject({
  /** Seed of the faults' chance; setting it starts the sequence again. */
  seed: z.number().int().default(1),
  /** Every API answer takes that much longer. */
  latencyMs: msOrRange.default(0),
  /** Share of API requests that fail in one of `errorKinds`; rules go first. */
  errorRate: share.default(0),
  errorKinds: z.array(z.enum(errorKinds)).min(1).default([...errorKinds]),
  /** Tried in order, the first that fires takes the request; those refused with 401, 429 or 503 are not counted. Setting the list starts its counters again. */
  rules: z.array(ruleSchema).default([]),

  /** A new droplet is missing from all lists that long. */
  listLagMs: ms.default(0),
  /** A new droplet has no tags that long, neither on itself nor in lists. */
  tagLagMs: ms.default(0),
  /** A new droplet shows its tags at once, but lists by tag leave it out that long. */
  tagIndexLagMs: ms.default(0),
  /** A deleted droplet is still in lists that long. */
  deleteLagMs: ms.default(0),
  /** GET of a new droplet (and of its actions) is answered 404 that long. */
  notFoundAfterCreateMs: ms.default(0),
  /** DELETE of a new droplet is answered 404, and does nothing, that long. */
  deleteNotFoundAfterCreateMs: ms.default(0),
  /** DELETE of a droplet that is still `new`: 422 "pending event", or a 204 that does nothing. */
  earlyDelete: z.enum(['off', '422', 'ignored']).default('off'),
  /** Lists by tag leave GPU droplets out too; what the real API does there is not documented. */
  hideGpuFromTagLists: z.boolean().default(false),

  /** Droplets created while this is set (share, or names) are accepted, then their create action is `errored` and they are gone for good. */
  placementFails: z.union([share, pattern]).default(0),
  placementFailsAfterMs: ms.default(1000),
  /** Such a droplet is not gone: it is shown as `new` for good. */
  placementLeavesNew: z.boolean().default(false),
  /** Droplets created while this is set (all, or names) stay `new` as long as it is set. */
  neverActive: z.union([z.boolean(), pattern]).default(false),
  /** Droplets created while this is set are gone for good that long after their create; the action tells nothing. */
  vanishAfterMs: ms.optional(),
  vanishNames: pattern.default('*'),
  /** Networks stay empty that long after a droplet became active. */
  activeWithoutNetworksMs: ms.default(0),
  /** Addresses of one kind are missing that long after a droplet became active. */
  addressLagMs: z.strictObject({ public_ipv4: ms, private_ipv4: ms, public_ipv6: ms }).partial().default({}),
  /** Status shown for droplets of these names, whatever their own is. */
  statusOverride: z.string().optional(),
  statusOverrideNames: pattern.default('*'),

  /** Fields of each droplet shown, by name, that have this value instead of their own; those of `garbleMissing` are left out. */
  garble: z.record(z.string(), z.unknown()).default({}),
  garbleMissing: z.array(z.string()).default([]),
  garbleNames: pattern.default('*'),

  /** These go before the option of the same name while they are set. */
  activateAfterMs: msOrRange.optional(),
  dropletLimit: z.number().int().min(0).optional(),
  ratePerMinute: rate.optional(),
  ratePerHour: rate.optional(),

  /** Every request is answered 401. */
  unauthorized: z.boolean().default(false),
  /** Creates that carry one of these fields, such as `ssh_keys`, are answered 403: the token lacks the scope for it. */
  forbiddenFields: z.array(z.string().min(1)).default([]),
  /** Every request is answered 503. */
  down: z.boolean().default(false),
  /** `links.pages.next` points to this host (or origin) instead. */
  nextHost: z.string().min(1).optional(),
});

const nullableKeys = new Set(['ratePerMinute', 'ratePerHour']);

/** All settings, with defaults filled in. */
export type Faults = z.infer<typeof faultsSchema>;
/** What a request suffers. */
export type Effect = z.infer<typeof effectSchema>;
/** One scripted rule. */
export type Rule = z.infer<typeof ruleSchema>;

/** A rule with its counters: requests it matched, requests it hit. */
export type CountedRule = { readonly rule: Rule; seen: number; fired: number };

/** The faults of a running sandbox. */
export type FaultBox = { settings: Faults; rules: CountedRule[]; chance: Random };

/** Thrown for settings that do not fit the schema; the message names the fields. */
export class SandboxInputError extends Error {
  override readonly name = 'SandboxInputError';
}

/** Makes the faults of a new sandbox. Throws SandboxInputError for settings that do not fit. */
export function createFaultBox(initial: Partial<Faults>): FaultBox {
  const box: FaultBox = { settings: faultsSchema.parse({}), rules: [], chance: seededRandom(1) };
  mergeFaults(box, initial);
  return box;
}

/**
 * Sets the fields that are present and leaves the others; null sets one back to its default (but a rate: null is no
 * limit). Throws SandboxInputError, and changes nothing, for input that does not fit.
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

/** Says what is wrong with some input, field by field. */
export function describeIssues(error: z.ZodError): string {
  return sentenceOf(problemsOf(error.issues, 'body'));
}
