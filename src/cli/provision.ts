// `provision`, `adopt` and `destroy`: start a saga, and follow it.
import { unlessAborted } from '../platform/deadline.ts';
import { provisionDropletInput } from '../steps/inputs.ts';
import { problemsOf } from '../platform/request-problems.ts';
import { InvalidRequestError } from '../saga/start-errors.ts';
import type { App } from '../saga/app.ts';
import type { SagaPriority } from '../saga/saga.ts';
import { requireSaga } from './app.ts';
import { requester } from './requester.ts';
import type { FollowOptions } from './start-and-follow.ts';
import { startAndFollow } from './start-and-follow.ts';
import { readText } from './read-text.ts';
import { UsageError, requireDropletId, requireSeconds } from './usage-error.ts';

export type ProvisionOptions = FollowOptions &
  Readonly<{
    name: string;
    region: string;
    size: string;
    image: string;
    sshKey?: string[];
    tag?: string[];
    userDataFile?: string;
    ipv6?: boolean;
    monitoring?: boolean;
    backups?: boolean;
    vpcUuid?: string;
    publicNetworking: boolean;
    project?: string;
    protected?: boolean;
    ttl?: string;
    maxTtl?: string;
    ready?: string;
    readyWithin?: string;
    wait?: string;
    idempotencyKey?: string;
    priority?: SagaPriority;
    dryRun?: boolean;
  }>;

export async function provisionCommand(app: App, options: ProvisionOptions, stop: AbortSignal): Promise<number> {
  const saga = requireSaga(app, 'provision_droplet');
  const given = {
    name: options.name,
    region: options.region,
    size: options.size,
    image: idOrText(options.image),
    ssh_keys: options.sshKey?.map(idOrText),
    tags: options.tag,
    user_data: options.userDataFile === undefined ? undefined : await unlessAborted(stop, readUserData(options.userDataFile)),
    ipv6: options.ipv6,
    monitoring: options.monitoring,
    backups: options.backups,
    vpc_uuid: options.vpcUuid,
    public_networking: options.publicNetworking ? undefined : false,
    project: options.project,
    protected: options.protected,
    lease: leaseOf(options),
    ready: readyOf(options),
    wait_s: options.wait === undefined ? undefined : requireSeconds('--wait', options.wait),
  };
  const input = provisionDropletInput.safeParse(Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)));
  if (!input.success) {
    throw new InvalidRequestError(problemsOf(input.error.issues));
  }
  if (options.dryRun === true) return (await import('./plan.ts')).planCommand(app, input.data, options, stop);
  const { idempotencyKey, priority } = options;
  return startAndFollow(
    app,
    `provisioning ${input.data.name}`,
    (client) => client.start(saga, input.data, { idempotencyKey, priority, requestedBy: requester() }),
    options,
    stop,
  );
}

export async function adoptCommand(
  app: App,
  dropletId: string,
  options: FollowOptions & { reason?: string; protected?: boolean; ttl?: string; maxTtl?: string; idempotencyKey?: string; priority?: SagaPriority },
  stop: AbortSignal,
): Promise<number> {
  requireDropletId(dropletId);
  const saga = requireSaga(app, 'adopt_droplet');
  const { reason, idempotencyKey, priority } = options;
  const lease = leaseOf(options);
  const input = { droplet_id: Number(dropletId), ...(reason === undefined ? {} : { reason }), ...(options.protected === true ? { protected: true } : {}), ...(lease === undefined ? {} : { lease }) };
  return startAndFollow(app, `adopting droplet ${dropletId}`, (client) => client.start(saga, input, { idempotencyKey, priority, requestedBy: requester() }), options, stop);
}

export async function destroyCommand(
  app: App,
  dropletId: string,
  options: FollowOptions & { reason?: string; idempotencyKey?: string },
  stop: AbortSignal,
): Promise<number> {
  requireDropletId(dropletId);
  const saga = requireSaga(app, 'destroy_droplet');
  const { reason, idempotencyKey } = options;
  const input = { droplet_id: Number(dropletId), ...(reason === undefined ? {} : { reason }) };
  return startAndFollow(
    app,
    `destroying droplet ${dropletId}`,
    (client) => client.start(saga, input, { idempotencyKey, requestedBy: requester() }),
    options,
    stop,
  );
}

/** @throws {UsageError} */
function leaseOf({ ttl, maxTtl }: Readonly<{ ttl?: string; maxTtl?: string }>): { ttl_s: number; max_s?: number } | undefined {
  if (ttl === undefined) {
    if (maxTtl !== undefined) throw new UsageError('--max-ttl: expected --ttl too');
    return undefined;
  }
  return { ttl_s: requireSeconds('--ttl', ttl), ...(maxTtl === undefined ? {} : { max_s: requireSeconds('--max-ttl', maxTtl) }) };
}

/** @throws {UsageError} */
function readyOf({ ready, readyWithin }: Pick<ProvisionOptions, 'ready' | 'readyWithin'>): object | undefined {
  if (ready === undefined) {
    if (readyWithin !== undefined) throw new UsageError('--ready-within: expected --ready too');
    return undefined;
  }
  const [, way, port = '', path] = /^(tcp|http):(\d{1,5})(\/.*)?$/.exec(ready) ?? [];
  const within = readyWithin === undefined ? {} : { within_s: requireSeconds('--ready-within', readyWithin) };
  if (ready === 'callback') return { callback: true, ...within };
  if (way === 'http') return { http: { port: Number(port), ...(path === undefined ? {} : { path }) }, ...within };
  if (way === 'tcp' && path === undefined) return { tcp: Number(port), ...within };
  throw new UsageError(`--ready: expected tcp:<port>, http:<port>/<path> or callback; found ${JSON.stringify(ready)}`);
}

/** Images and SSH keys are given by slug, fingerprint or name, or by a number. */
function idOrText(value: string): string | number {
  return /^[1-9]\d{0,15}$/.test(value) ? Number(value) : value;
}

async function readUserData(file: string): Promise<string> {
  try {
    return await readText(file);
  } catch (error) {
    throw new UsageError(`--user-data-file: cannot read ${file}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
