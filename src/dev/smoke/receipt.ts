// The receipt of a run: each droplet it created, its lifetime, its cost, and what is left. Pure.
import { actTexts } from './acts.ts';
import type { ActResult } from './acts.ts';
import { differencesOf } from './account.ts';
import { costUsd, usd } from './cost.ts';
import type { SeenDroplet, SmokeState } from './state.ts';
import { appearsUntil, openCreates, unansweredCreates } from './state.ts';
import type { Left } from './tidy.ts';

export type Receipt = Readonly<{
  version: 1;
  run: string;
  /** Whether this call finished an earlier run. It then ran no acts itself. */
  finishedEarlierRun: boolean;
  region: string;
  size: string;
  image: string;
  priceUsdPerHour: number;
  startedAt: string;
  acts: readonly ActResult[];
  droplets: readonly Readonly<{
    id: number;
    name: string;
    madeAt: string;
    /** When DigitalOcean accepted the deletion, else when the droplet was first seen to be gone; null: it is not gone. */
    endedAt: string | null;
    /** Whether a GET has since answered 404. */
    seenAs404: boolean;
    /** From sending the create to the end, rounded up; null: it is not gone. */
    seconds: number | null;
    costUsd: number | null;
  }>[];
  costUsd: number;
  foreign: Readonly<{ before: number; after: number; differences: readonly string[]; appeared: readonly number[] }>;
  tagsLeft: readonly string[];
  /** Tags of the run that are left for other users of arcadia-cloud in this account. */
  sharedTags: readonly string[];
  /** Creates with unknown outcome: no droplet of theirs was seen, but one may appear until `until`. The run stays open until then. */
  unanswered: readonly Readonly<{ name: string; at: string; until: string }>[];
  /** Creates without an answer whose droplets never appeared in the time in which they could. */
  neverAppeared: readonly Readonly<{ name: string; at: string }>[];
  /** The names of everything that is left. */
  left: readonly string[];
  /** Worker requests that the gate refused. */
  refused: readonly string[];
  /** File with the measured lags; null: not written. */
  profile: string | null;
  ok: boolean;
}>;

/** Builds the receipt. */
export function receiptOf(state: SmokeState, found: Left, { acts, finishedEarlierRun, profile }: Pick<Receipt, 'acts' | 'finishedEarlierRun' | 'profile'>): Receipt {
  const droplets = state.droplets.map(({ id, name, madeAt, deletedAt, goneAt }) => {
    const endedAt = goneAt === null ? null : (deletedAt ?? goneAt);
    const seconds = endedAt === null ? null : Math.max(0, Math.ceil((Date.parse(endedAt) - Date.parse(madeAt)) / 1_000));
    return { id, name, madeAt, endedAt, seenAs404: goneAt !== null, seconds, costUsd: seconds === null ? null : costUsd(seconds, state.priceUsdPerHour) };
  });
  const { before } = state;
  const known = new Set(before.droplets.map(({ id }) => id));
  const differences = differencesOf(before.droplets, found.foreign);
  const left = [...found.left, ...found.tagsLeft.map((tag) => `tag ${tag}`)];
  const open = openCreates(state, found.readAt);
  return {
    version: 1,
    run: state.run,
    finishedEarlierRun,
    region: state.region,
    size: state.size,
    image: state.image,
    priceUsdPerHour: state.priceUsdPerHour,
    startedAt: state.startedAt,
    acts,
    droplets,
    costUsd: droplets.reduce((sum, one) => sum + (one.costUsd ?? 0), 0),
    foreign: { before: before.droplets.length, after: found.foreign.length, differences, appeared: idsOf(found.foreign).filter((id) => !known.has(id)) },
    tagsLeft: found.tagsLeft,
    sharedTags: found.sharedTags,
    unanswered: open.map((create) => ({ name: create.name, at: create.at, until: appearsUntil(create).toISOString() })),
    neverAppeared: unansweredCreates(state).filter((create) => !open.includes(create)).map(({ name, at }) => ({ name, at })),
    left,
    refused: state.refused,
    profile,
    ok: left.length === 0 && open.length === 0 && differences.length === 0 && state.refused.length === 0 && acts.every(({ ok }) => ok),
  };
}

function idsOf(droplets: readonly SeenDroplet[]): number[] {
  return droplets.map(({ id }) => id);
}

/** Formats the receipt as text. */
export function formatReceipt(receipt: Receipt): string {
  const { run, region, size, priceUsdPerHour, acts, droplets, foreign, tagsLeft, sharedTags, unanswered, left, refused, profile } = receipt;
  const appeared = foreign.appeared.length === 0 ? '' : ` ${foreign.appeared.length} new (not of the smoke): ${foreign.appeared.join(', ')}.`;
  const lines = [
    '',
    `Receipt of smoke ${run} (${size} in ${region}, ${priceUsdPerHour} USD an hour)`,
    ...acts.map(({ act, ok, detail }) => `  ${ok ? 'OK  ' : 'FAIL'} ${textOfAct(act)}: ${detail}`),
    ...(droplets.length === 0 ? ['  No droplet was made.'] : []),
    ...droplets.map(
      ({ id, name, seconds, costUsd: cost, seenAs404 }) =>
        `  droplet ${id} ${name}: ${seenAs404 ? 'gone (GET answers 404)' : 'NOT SEEN TO BE GONE'}${seconds === null ? '' : `, lived ${seconds} s`}${cost === null ? '' : `, ${usd(cost)}`}`,
    ),
    `  Cost: ${usd(receipt.costUsd)}.`,
    foreign.differences.length === 0
      ? `  Other droplets: ${foreign.before} before, ${foreign.after} after; ids and tags of those from before are unchanged.${appeared}`
      : `  OTHER DROPLETS CHANGED: ${foreign.differences.join('; ')}.${appeared}`,
    tagsLeft.length === 0 ? '  Tags left: none of ours.' : `  TAGS LEFT: ${tagsLeft.join(', ')}. The token may lack the scope tag:delete.`,
    ...(sharedTags.length === 0 ? [] : [`  Shared tags stay: ${sharedTags.join(', ')}.`]),
    ...unanswered.map(({ name, at, until }) => `  NO ANSWER to the create of ${name} at ${at}: DigitalOcean shows no droplet of it yet, and may show one until ${until}. Run \`arcadia smoke\` again then: it destroys the droplet if there is one.`),
    ...receipt.neverAppeared.map(({ name, at }) => `  No answer to the create of ${name} at ${at}: no droplet of it has appeared, as far as DigitalOcean shows.`),
    ...refused.map((text) => `  REFUSED AT THE GATE: ${text}`),
    ...(left.length === 0 ? [unanswered.length === 0 ? '  Nothing is left.' : '  Nothing is left that DigitalOcean shows.'] : [`  LEFT: ${left.join('; ')}.`, '  Run `arcadia smoke` again to try once more, or destroy it by hand.']),
    ...(profile === null ? [] : [`  Measured lags: ${profile} (\`arcadia sandbox --profile ${profile}\` plays them)`]),
  ];
  return lines.join('\n');
}

function textOfAct(act: string): string {
  return Object.entries(actTexts).find(([name]) => name === act)?.[1] ?? act;
}
