// What is asked of the system: drawn from a seed. Pure.
import type { Random } from '../../src/sandbox/random.ts';
import type { ProvisionDropletInput } from '../../src/steps/inputs.ts';
import { INVALID_SIZE, NEVER_ACTIVE, UNPLACEABLE } from './settings.ts';

export type Fate = 'ordinary' | 'unplaceable' | 'never_active' | 'invalid';

/** A droplet that somebody else makes beside the one asked for, with the same name. */
export type Foreign =
  /** Made long ago. */
  | 'old'
  /** Made at the same time: might be taken for ours until ours shows its tags. */
  | 'young'
  /** Of another environment of arcadia-cloud. */
  | 'other_environment'
  /** Of a saga elsewhere whose id begins with the same 8 characters. */
  | 'same_saga8';

export type Request = Readonly<{
  key: string;
  input: ProvisionDropletInput;
  fate: Fate;
  /** So long after the request the same one is sent again, with the same key; null: once is enough. */
  repeatAfterMs: number | null;
  /** The key is used again with another input. */
  isContradicted: boolean;
  cancelAfterMs: number | null;
  /** The droplet is to be destroyed once it is ready. */
  isDestroyed: boolean;
  foreign: Foreign | null;
}>;

/** Stands in the user data of some requests: no log may show it. */
export const USER_DATA_SECRET = 'chaos-user-data-that-no-log-may-show';

const REGIONS = ['fra1', 'ams3', 'nyc3'];
const FOREIGNERS: readonly Foreign[] = ['old', 'old', 'young', 'other_environment', 'other_environment', 'same_saga8'];

/** Draws request number `index`. Every one has a name and a key of its own. */
export function drawRequest(index: number, random: Random): Request {
  const fate = drawFate(random);
  const suffix = { ordinary: '', invalid: '', unplaceable: UNPLACEABLE, never_active: NEVER_ACTIVE }[fate];
  return {
    key: `chaos-${index}`,
    input: {
      name: `chaos-${index}${suffix}`,
      region: pickFrom(REGIONS, random) ?? 'fra1',
      size: fate === 'invalid' ? INVALID_SIZE : 's-1vcpu-1gb',
      image: 'debian-12-x64',
      tags: ['chaos'],
      ...(random() < 0.2 ? { user_data: `#cloud-config\n# ${USER_DATA_SECRET}\n` } : {}),
    },
    fate,
    repeatAfterMs: random() < 0.15 ? drawDelay(random, 3_000) : null,
    isContradicted: random() < 0.02,
    cancelAfterMs: random() < 0.15 ? drawDelay(random, 5_000) : null,
    isDestroyed: random() < 0.35,
    foreign: random() < 0.1 ? (pickFrom(FOREIGNERS, random) ?? null) : null,
  };
}

function drawFate(random: Random): Fate {
  const draw = random();
  if (draw < 0.05) return 'invalid';
  if (draw < 0.1) return 'unplaceable';
  if (draw < 0.13) return 'never_active';
  return 'ordinary';
}

/** Half of the delays are next to nothing: that is where the races are. */
function drawDelay(random: Random, maxMs: number): number {
  return Math.round(random() < 0.5 ? random() * 50 : random() * maxMs);
}

function pickFrom<T>(list: readonly T[], random: Random): T | undefined {
  return list[Math.floor(random() * list.length)];
}
