// Routes that act on droplets (power, resize, rename and snapshot, for one droplet or all with a tag), and routes that
// read actions.
import { startAction } from './action-store.ts';
import type { ActionRecord } from './action-store.ts';
import type { Answer, Call } from './answer.ts';
import { notFound, notImitated, pageAnswer, unprocessable } from './answer.ts';
import { findSize } from './catalog.ts';
import { isHostname, isValidTag } from './create-request.ts';
import { dropletsByTag, findDroplet } from './droplet-routes.ts';
import type { DropletRecord } from './droplet-state.ts';
import { exists, isReadable, statusAt } from './droplet-state.ts';
import { nextActionId, renameDroplet } from './droplet-store.ts';
import { isoSeconds, showCreateAction } from './droplet-view.ts';
import { isObject } from './json.ts';
import { drawMs } from './random.ts';
import { addSnapshot } from './snapshot-routes.ts';
import { nowMs, type World } from './world.ts';

const PENDING = 'Droplet already has a pending event.';

/**
 * Validates an action and plans its change. Returns a sentence that refuses the action, or a function that applies the
 * change.
 */
type Plan = (world: World, droplet: DropletRecord, fields: Readonly<Record<string, unknown>>, status: string) => string | ((atMs: number) => void);

const turnOff = (droplet: DropletRecord) => () => {
  droplet.forcedStatus = 'off';
};
const turnOn = (droplet: DropletRecord) => () => {
  droplet.forcedStatus = undefined;
};

const plans: Readonly<Record<string, Plan>> = {
  power_on: (_world, droplet, _fields, status) => (status === 'active' ? 'Droplet is already powered on.' : turnOn(droplet)),
  power_off: (_world, droplet, _fields, status) => (status === 'off' ? 'Droplet is already powered off.' : turnOff(droplet)),
  shutdown: (_world, droplet, _fields, status) => (status === 'off' ? 'Droplet is already powered off.' : turnOff(droplet)),
  power_cycle: (_world, droplet) => turnOn(droplet),
  reboot: (_world, droplet, _fields, status) => (status === 'off' ? 'Droplet is powered off.' : () => undefined),
  rename: (world, droplet, { name }) => {
    if (!isHostname(name)) return 'Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)';
    return () => renameDroplet(world.store, droplet, name);
  },
  resize: (_world, droplet, { size: slug, disk }, status) => {
    const size = findSize(slug);
    if (size === undefined) return 'You specified an invalid size for Droplet resize.';
    if (!size.regions.includes(droplet.region.slug)) return 'Size is not available in this region.';
    if (status !== 'off') return 'Droplet must be powered off to be resized.';
    if (size.disk < droplet.diskGib) return "Size can not decrease size of Droplet's disk image";
    return () => {
      droplet.size = size;
      // Without `disk`, the disk keeps its size, so that the droplet can return to its old size.
      if (disk === true) droplet.diskGib = size.disk;
    };
  },
  snapshot: (world, droplet, { name }) => {
    if (name !== undefined && typeof name !== 'string') return 'name must be a string.';
    return (atMs) => addSnapshot(world, droplet, name ?? `${droplet.name}-${atMs}`, atMs);
  },
};

// DigitalOcean's other action types: known but not simulated.
const otherTypes = ['enable_backups', 'disable_backups', 'change_backup_policy', 'restore', 'password_reset', 'rebuild', 'change_kernel', 'enable_ipv6'];
const typesByTag = ['power_cycle', 'power_on', 'power_off', 'shutdown', 'snapshot'];

/** POST /v2/droplets/:id/actions: one action at a time per droplet. */
export function actOnDroplet(world: World, call: Call): Answer {
  const droplet = findDroplet(world, call);
  if (droplet === undefined || !exists(droplet, nowMs(world))) return notFound(call);
  const begun = begin(world, call, droplet, Object.keys(plans));
  return 'status' in begun ? begun : { status: 201, body: { action: showAction(begun, nowMs(world)) } };
}

/** POST /v2/droplets/actions?tag_name=…: the same for each droplet with the tag. Answers with the first refusal. */
export function actOnDropletsByTag(world: World, call: Call): Answer {
  const tag = call.query['tag_name'];
  if (!isValidTag(tag)) return unprocessable(call, 'tag_name is required.');
  const now = nowMs(world);
  const actions: ActionRecord[] = [];
  for (const droplet of dropletsByTag(world, tag, now).filter((one) => exists(one, now))) {
    const begun = begin(world, call, droplet, typesByTag);
    if ('status' in begun) return begun;
    actions.push(begun);
  }
  return { status: 201, body: { actions: actions.map((action) => showAction(action, now)) } };
}

function begin(world: World, call: Call, droplet: DropletRecord, allowed: readonly string[]): ActionRecord | Answer {
  const fields = isObject(call.body) ? call.body : {};
  const { type } = fields;
  const now = nowMs(world);
  const status = statusAt(droplet, world.faultBox.settings, now);
  if (typeof type !== 'string') return unprocessable(call, 'type is required.');
  const plan = allowed.includes(type) ? plans[type] : undefined;
  if (plan === undefined) {
    return otherTypes.includes(type) || type in plans ? notImitated(call, `the action ${type} here`, allowed.join(', ')) : unprocessable(call, `${type} is not a valid action type.`);
  }
  if (droplet.isLocked || status === 'new') return unprocessable(call, PENDING);
  const takeEffect = plan(world, droplet, fields, status);
  if (typeof takeEffect === 'string') return unprocessable(call, takeEffect);
  const action: ActionRecord = { id: nextActionId(world.store), type, droplet, startedAtMs: now, endsAtMs: now + drawMs(world.settings.actionMs, world.store.chance), takeEffect };
  startAction(world.actions, action);
  return action;
}

/** GET /v2/droplets/:id/actions, newest first. The create action is the last. */
export function listDropletActions(world: World, call: Call): Answer {
  const now = nowMs(world);
  const faults = world.faultBox.settings;
  const droplet = findDroplet(world, call);
  if (droplet === undefined || !isReadable(droplet, faults, now)) return notFound(call);
  return pageAnswer(call, 'actions', actionsOf(world, now, droplet), (shown) => shown, faults.nextHost);
}

/** GET /v2/droplets/:id/actions/:actionId */
export function getDropletAction(world: World, call: Call): Answer {
  const droplet = findDroplet(world, call);
  const action = findAction(world, call);
  return action === undefined || droplet === undefined || action['resource_id'] !== droplet.id ? notFound(call) : { status: 200, body: { action } };
}

/** GET /v2/actions, newest first. */
export function listActions(world: World, call: Call): Answer {
  return pageAnswer(call, 'actions', actionsOf(world, nowMs(world)), (shown) => shown, world.faultBox.settings.nextHost);
}

/** GET /v2/actions/:actionId, also for deleted droplets. */
export function getAction(world: World, call: Call): Answer {
  const action = findAction(world, call);
  return action === undefined ? notFound(call) : { status: 200, body: { action } };
}

function findAction(world: World, call: Call): Record<string, unknown> | undefined {
  const id = Number(call.params['actionId']);
  const now = nowMs(world);
  const created = world.store.byActionId.get(id);
  if (created !== undefined) return showCreateAction(created, world.faultBox.settings, now);
  const action = world.actions.byId.get(id);
  return action === undefined ? undefined : showAction(action, now);
}

function actionsOf(world: World, now: number, droplet?: DropletRecord): Record<string, unknown>[] {
  const creates = droplet === undefined ? [...world.store.byActionId.values()] : [droplet];
  const others = [...world.actions.byId.values()].filter((action) => droplet === undefined || action.droplet === droplet);
  const shown = [...creates.map((one) => showCreateAction(one, world.faultBox.settings, now)), ...others.map((action) => showAction(action, now))];
  return shown.toSorted((one, other) => Number(other['id']) - Number(one['id']));
}

function showAction({ id, type, droplet, startedAtMs, endsAtMs }: ActionRecord, now: number): Record<string, unknown> {
  const isDone = endsAtMs <= now;
  return {
    id,
    status: isDone ? 'completed' : 'in-progress',
    type,
    started_at: isoSeconds(startedAtMs),
    completed_at: isDone ? isoSeconds(endsAtMs) : null,
    resource_id: droplet.id,
    resource_type: 'droplet',
    region: droplet.region,
    region_slug: droplet.region.slug,
  };
}
