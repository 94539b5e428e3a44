// The plan of a run and its maximum cost, shown before anything is done. Pure.
import { actTexts, actsOf } from './acts.ts';
import { LONGEST_LIFE_S, mostUsd, usd } from './cost.ts';
import type { SmokeState } from './state.ts';

export type Plan = Readonly<{
  apiUrl: string;
  region: string;
  size: string;
  image: string;
  priceUsdPerHour: number;
  acts: readonly string[];
  mostUsd: number;
  /** The current account. */
  droplets: number;
  tags: number;
  /** Droplets that look like those of an unknown smoke test. They are left alone. */
  strays: readonly string[];
  /** The unfinished run of an earlier call; null: none. If set, this call only finishes that run. */
  earlierRun: string | null;
  folder: string;
}>;

const SMOKE_NAME = /^arcadia-smoke-[0-9a-f]{8}-\d$/;

/** Plans a new run, or the rest of an earlier one. */
export function planOf(wanted: Pick<Plan, 'apiUrl' | 'region' | 'size' | 'image' | 'priceUsdPerHour' | 'folder'> & { hard: boolean }, account: SmokeState['before'], earlier: SmokeState | null): Plan {
  const { hard, ...rest } = wanted;
  const acts = earlier === null ? actsOf(hard) : [];
  const own = new Set(earlier?.acts.map(({ dropletName }) => dropletName));
  const strays = account.droplets.filter(({ name }) => name !== null && SMOKE_NAME.test(name) && !own.has(name));
  return {
    ...rest,
    acts,
    mostUsd: mostUsd(acts.length, wanted.priceUsdPerHour),
    droplets: account.droplets.length,
    tags: account.tags.length,
    strays: strays.map(({ id, name }) => `droplet ${id} (${name})`),
    earlierRun: earlier?.run ?? null,
  };
}

/** Formats the plan as text. */
export function formatPlan(plan: Plan): string {
  const { acts, priceUsdPerHour, strays, earlierRun } = plan;
  const work =
    earlierRun === null
      ? [
          `It makes ${acts.length} ${acts.length === 1 ? 'droplet' : 'droplets'} (${plan.size}, ${plan.image}, ${plan.region}; ${priceUsdPerHour} USD an hour), one after the other, and destroys each:`,
          ...actsOf(acts.length > 1).map((act) => `  - ${actTexts[act]}`),
          `It costs ${usd(plan.mostUsd)} at most: ${acts.length} × max(0.01 USD, ${LONGEST_LIFE_S} s × ${priceUsdPerHour} USD / 3600). If a create is not answered and its droplet does not appear, the saga sends another, as far as \`--max-usd\` pays for it. A droplet lives longer if DigitalOcean does not delete it, or if you kill the smoke and do not run it again.`,
        ]
      : [`An earlier run, ${earlierRun}, is not finished. This call finishes it: it cancels its sagas, destroys its droplets and deletes its tags. It makes no droplet.`];
  return [
    `DigitalOcean at ${plan.apiUrl}: the account has ${plan.droplets} droplets and ${plan.tags} tags. The smoke leaves them alone.`,
    ...work,
    ...(strays.length === 0 ? [] : [`Left alone, as nothing here proves whose they are: ${strays.join(', ')}. If a smoke of yours made them, destroy them by hand.`]),
    `State is kept in ${plan.folder}.`,
  ].join('\n');
}
