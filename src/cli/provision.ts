// `provision` and `destroy`: start a saga, and follow it.
import { readFile } from 'node:fs/promises';
import { provisionDropletInput } from '../steps/inputs.ts';
import { problemsOf } from '../platform/request-problems.ts';
import { InvalidRequestError } from '../saga/start.ts';
import type { App } from '../saga/app.ts';
import { requireSaga } from './app.ts';
import { requester } from './requester.ts';
import type { FollowOptions } from './start-and-follow.ts';
import { startAndFollow } from './start-and-follow.ts';
import { UsageError } from './usage-error.ts';

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
    idempotencyKey?: string;
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
    user_data: options.userDataFile === undefined ? undefined : await readUserData(options.userDataFile),
    ipv6: options.ipv6,
    monitoring: options.monitoring,
    backups: options.backups,
    vpc_uuid: options.vpcUuid,
    public_networking: options.publicNetworking ? undefined : false,
  };
  const input = provisionDropletInput.safeParse(Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)));
  if (!input.success) {
    throw new InvalidRequestError(problemsOf(input.error.issues));
  }
  const { idempotencyKey } = options;
  return startAndFollow(
    app,
    `provisioning ${input.data.name}`,
    (client) => client.start(saga, input.data, { idempotencyKey, requestedBy: requester() }),
    options,
    stop,
  );
}

export async function destroyCommand(
  app: App,
  dropletId: string,
  options: FollowOptions & { reason?: string; idempotencyKey?: string },
  stop: AbortSignal,
): Promise<number> {
  if (!/^[1-9]\d{0,15}$/.test(dropletId)) throw new UsageError(`expected the id of a droplet, a positive whole number; found ${JSON.stringify(dropletId)}`);
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

/** Images and SSH keys are named by slug or fingerprint, or by a number. */
function idOrText(value: string): string | number {
  return /^[1-9]\d{0,15}$/.test(value) ? Number(value) : value;
}

async function readUserData(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new UsageError(`--user-data-file: cannot read ${file}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
