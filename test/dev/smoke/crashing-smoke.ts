// The smoke as a process that kills itself at one of its effects. Forked by the tests, never by hand: ARCADIA_SMOKE_CRASH
// says at which, by name and occurrence; without it, the effects are listed.

import { appendFileSync } from 'node:fs';
import { listenForStop } from '../../../src/cli/stop.ts';
import type { SmokeIo } from '../../../src/dev/smoke/io.ts';
import { smokeCommand } from '../../../src/dev/smoke/smoke.ts';
import { tidyLimits } from '../../../src/dev/smoke/tidy.ts';

/** Where to die: `name` as the effect is called, the how-manieth of its name, and the side. */
export type CrashAt = { readonly name: string; readonly occurrence: number; readonly position: 'before' | 'after' };

const stop = listenForStop();
const plan = process.env['ARCADIA_SMOKE_CRASH'];
// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- written by the same test run
const at = plan === undefined ? null : (JSON.parse(plan) as CrashAt);
const list = process.env['ARCADIA_SMOKE_LIST'];
const seen = new Map<string, number>();

const die = (): void => void process.kill(process.pid, 'SIGKILL');

const io: SmokeIo = async (name, operation) => {
  const occurrence = (seen.get(name) ?? 0) + 1;
  seen.set(name, occurrence);
  if (list !== undefined) appendFileSync(list, `${name}\n`);
  const isHere = at?.name === name && at.occurrence === occurrence;
  if (isHere && at.position === 'before') die();
  try {
    return await operation();
  } finally {
    if (isHere && at.position === 'after') die();
  }
};

const limits = { ...tidyLimits, listsMs: Number(process.env['ARCADIA_SMOKE_LISTS_MS'] ?? tidyLimits.listsMs) };
const options = { region: 'fra1', size: 's-4vcpu-8gb', image: 'debian-12-x64', maxUsd: Number(process.env['ARCADIA_SMOKE_MAX_USD'] ?? 0.2), yes: true, json: true, hard: process.env['ARCADIA_SMOKE_HARD'] === '1', stateDir: process.env['ARCADIA_SMOKE_DIR'] ?? '' };
await stop.end(await smokeCommand(options, stop.signal, { io, program: process.env['ARCADIA_SMOKE_PROGRAM'] ?? null, limits }));
