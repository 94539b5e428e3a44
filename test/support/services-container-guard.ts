// Guards a container: starts it, and lives as long as the guard's parent process. When the parent ends, for whatever reason, the
// channel closes and the guard removes the container. If a guard was killed, the next one removes its container. Started by
// services-containers.ts, never by hand.
//
// testcontainers has a reaper for this, Ryuk: a privileged container with the engine's socket in it, which not every
// engine can run. This takes its place.

import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';

/** A container, as it is started. */
export type ContainerPlan = {
  readonly image: string;
  /** The port inside of it. */
  readonly port: number;
  readonly environment: Readonly<Record<string, string>>;
  readonly command: readonly string[];
  /** What it prints, and how many times, once it takes connections. */
  readonly readyText: string;
  readonly readyTimes: number;
};
/** Where the container takes connections, or why it does not. */
export type ContainerReply = { readonly host: string; readonly port: number } | { readonly error: string };

// Before testcontainers reads it.
process.env['TESTCONTAINERS_RYUK_DISABLED'] = 'true';
const { GenericContainer, Wait, getContainerRuntimeClient } = await import('testcontainers');
type Started = Awaited<ReturnType<InstanceType<typeof GenericContainer>['start']>>;

// An image that is not here yet is pulled first.
const START_WITHIN_MS = 180_000;
const GUARD_LABEL = 'arcadia-cloud.test-guard';

// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- written by services-containers.ts
const plan = JSON.parse(process.argv[2] ?? '') as ContainerPlan;

/** This process and no later one: the process id with the time of the start, and the machine. */
const me = guardLabelOf(process.pid);

function guardLabelOf(pid: number): string | null {
  try {
    // The 22nd field of the line; the second may hold blanks. Where there is no /proc, the id has to do.
    const startedAt = process.platform === 'linux' ? readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ')[19] : '';
    process.kill(pid, 0);
    return `${hostname()}/${pid}/${startedAt ?? ''}`;
  } catch {
    return null;
  }
}

async function removeLeftovers(): Promise<void> {
  const { container } = await getContainerRuntimeClient();
  for (const { Id: id, Labels: labels } of await container.list()) {
    const [host, pid] = (labels[GUARD_LABEL] ?? '').split('/');
    if (host !== hostname() || guardLabelOf(Number(pid)) === labels[GUARD_LABEL]) continue;
    await container.remove(container.getById(id), { removeVolumes: true }).catch(() => undefined);
  }
}

async function start(): Promise<Started> {
  await removeLeftovers();
  return new GenericContainer(plan.image)
    .withExposedPorts(plan.port)
    .withEnvironment({ ...plan.environment })
    .withCommand([...plan.command])
    .withLabels({ [GUARD_LABEL]: me ?? '' })
    .withWaitStrategy(Wait.forLogMessage(new RegExp(plan.readyText), plan.readyTimes))
    .withStartupTimeout(START_WITHIN_MS)
    .start();
}

// The test runner handles Ctrl-C and ends the services in order.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);

const starting = start();
const leave = async (): Promise<void> => {
  const container = await starting.catch(() => undefined);
  // Without ceremony: nothing is kept.
  await container?.stop({ timeout: 0, remove: true, removeVolumes: true }).catch(() => undefined);
  process.exit(0);
};
process.on('disconnect', () => void leave());
if (!process.connected) void leave();

let reply: ContainerReply;
try {
  const container = await starting;
  reply = { host: container.getHost(), port: container.getMappedPort(plan.port) };
} catch (error) {
  reply = { error: error instanceof Error ? error.message : String(error) };
}
if (process.connected) process.send?.(reply);
