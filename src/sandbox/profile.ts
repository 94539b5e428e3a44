// A profile: how late the real API shows its changes, as measured by `arcadia smoke`. `arcadia sandbox --profile` replays
// it.
import { z } from 'zod';
import { parseJson } from '../platform/json.ts';
import { SandboxInputError, describeIssues, type Faults } from './faults.ts';
import type { MsOrRange } from './random.ts';

const ms = z.number().min(0).max(86_400_000);
// 0: visible at the first poll. Null: not measured.
const lag = ms.nullable();

const measurementSchema = z.strictObject({
  /** The smoke test's action with this droplet, such as `provision`. */
  act: z.string(),
  /** Milliseconds from the 202 of the create until GET by id shows the droplet. */
  readableMs: lag,
  /** … until the list of droplets shows it. */
  listedMs: lag,
  /** … until GET by id shows its tags. */
  taggedMs: lag,
  /** … until the list by tag shows it. */
  tagListedMs: lag,
  /** … until its status is `active`. */
  activeMs: lag,
  /** … until it has a public IPv4 address. */
  publicIpv4Ms: lag,
  /** … until DELETE no longer answers 422 "pending event". */
  pendingEventMs: lag,
  /** Milliseconds from the 204 of the DELETE until GET by id answers 404. */
  goneMs: lag,
  /** … until the list of droplets omits it. */
  unlistedMs: lag,
});

const profileSchema = z.strictObject({
  version: z.literal(1),
  measured: z.strictObject({
    at: z.iso.datetime(),
    /** Host of the API. */
    api: z.string(),
    region: z.string(),
    size: z.string(),
    image: z.string(),
    /** The poll interval, which is the precision of a lag. */
    lookEveryMs: ms,
  }),
  /** One entry per droplet. */
  droplets: z.array(measurementSchema),
});

export type Profile = z.infer<typeof profileSchema>;
type Measurement = z.infer<typeof measurementSchema>;

/** The settings of a sandbox that replays a profile. */
export type ProfileSettings = { readonly activateAfterMs?: MsOrRange; readonly faults: Partial<Faults> };

/** Parses a profile. Throws SandboxInputError naming each invalid field. */
export function parseProfile(text: string): Profile {
  const parsed = profileSchema.safeParse(parseJson(text));
  if (parsed.success) return parsed.data;
  throw new SandboxInputError(`the profile cannot be used: ${describeIssues(parsed.error)}`);
}

/**
 * Converts a profile into sandbox settings. The time until `active` is drawn from the measured range. For every other lag
 * the longest one applies, because a client has to tolerate it.
 */
export function settingsOfProfile({ droplets }: Profile): ProfileSettings {
  const longest = (field: Exclude<keyof Measurement, 'act'>) => Math.max(0, ...valuesOf(droplets, field));
  const active = valuesOf(droplets, 'activeMs');
  const addressLags = droplets.flatMap(({ activeMs, publicIpv4Ms }) => (activeMs === null || publicIpv4Ms === null ? [] : [Math.max(0, publicIpv4Ms - activeMs)]));
  return {
    ...(active.length === 0 ? {} : { activateAfterMs: { minMs: Math.min(...active), maxMs: Math.max(...active) } }),
    faults: {
      notFoundAfterCreateMs: longest('readableMs'),
      listLagMs: longest('listedMs'),
      tagLagMs: longest('taggedMs'),
      tagIndexLagMs: longest('tagListedMs'),
      addressLagMs: { public_ipv4: Math.max(0, ...addressLags) },
      pendingEventMs: longest('pendingEventMs'),
      goneLagMs: longest('goneMs'),
      deleteLagMs: longest('unlistedMs'),
    },
  };
}

function valuesOf(droplets: readonly Measurement[], field: Exclude<keyof Measurement, 'act'>): number[] {
  return droplets.flatMap((droplet) => droplet[field] ?? []);
}
