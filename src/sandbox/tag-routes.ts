// Routes of /v2/tags.
import type { Answer, Call } from './answer.ts';
import { notFound, notImitated, pageAnswer, unprocessable } from './answer.ts';
import { invalidTagMessage, isValidTag } from './create-request.ts';
import type { DropletRecord } from './droplet-state.ts';
import { exists } from './droplet-state.ts';
import { dropTag, learnTag, setTags } from './droplet-store.ts';
import { dropletsByTag } from './droplet-routes.ts';
import { isObject, listOf } from './json.ts';
import { nowMs, type World } from './world.ts';

/** GET /v2/tags */
export function listTags(world: World, call: Call): Answer {
  const names = [...world.store.tags.values()].toSorted();
  return pageAnswer(call, 'tags', names, (name) => showTag(world, call, name), world.faultBox.settings.nextHost);
}

/** POST /v2/tags. An existing tag keeps its spelling. */
export function createTag(world: World, call: Call): Answer {
  const name: unknown = isObject(call.body) ? call.body['name'] : undefined;
  if (!isValidTag(name)) {
    const error = invalidTagMessage(name);
    const cause = `rpc error: code = InvalidArgument desc = ${error}`;
    return { status: 400, body: { error, messages: null, root_causes: [cause] } };
  }
  return { status: 201, body: { tag: showTag(world, call, learnTag(world.store, name)) } };
}

/** GET /v2/tags/:name, by its canonical spelling only. */
export function getTag(world: World, call: Call): Answer {
  const name = canonicalTag(world, call);
  return name === undefined ? notFound(call) : { status: 200, body: { tag: showTag(world, call, name) } };
}

/** DELETE /v2/tags/:name. Its droplets continue to exist without it. */
export function deleteTag(world: World, call: Call): Answer {
  const name = canonicalTag(world, call);
  if (name === undefined) return notFound(call);
  dropTag(world.store, name);
  return { status: 204 };
}

/** POST /v2/tags/:name/resources: tags all of the resources, or none if one cannot be tagged. Only droplets can. */
export function tagResources(world: World, call: Call): Answer {
  const name = canonicalTag(world, call);
  if (name === undefined) return notFound(call);
  const droplets = findTaggable(world, call);
  if (!Array.isArray(droplets)) return droplets;
  for (const droplet of droplets) setTags(world.store, droplet, [...droplet.tags, name]);
  return { status: 204 };
}

/** DELETE /v2/tags/:name/resources: removes the tag from these resources. A resource without it counts as done. */
export function untagResources(world: World, call: Call): Answer {
  const name = canonicalTag(world, call);
  if (name === undefined) return notFound(call);
  const droplets = findTaggable(world, call);
  if (!Array.isArray(droplets)) return droplets;
  for (const droplet of droplets) setTags(world.store, droplet, droplet.tags.filter((tag) => tag !== name));
  return { status: 204 };
}

/** Finds the droplets that a body names, or returns the response that refuses it. */
function findTaggable(world: World, call: Call): DropletRecord[] | Answer {
  const wanted = isObject(call.body) ? listOf(call.body['resources']) : [];
  if (wanted.length === 0) return unprocessable(call, 'resources is required.');
  const found: DropletRecord[] = [];
  for (const one of wanted) {
    const type: unknown = isObject(one) ? one['resource_type'] : undefined;
    const id: unknown = isObject(one) ? one['resource_id'] : undefined;
    if (type !== 'droplet') return notImitated(call, `tagging a resource of type ${JSON.stringify(type)}`, 'tagging a droplet');
    const droplet = /^\d+$/u.test(String(id)) ? world.store.byId.get(Number(id)) : undefined;
    if (droplet === undefined || !exists(droplet, nowMs(world))) return notFound(call);
    found.push(droplet);
  }
  return found;
}

function canonicalTag(world: World, call: Call): string | undefined {
  const name = call.params['name'] ?? '';
  return world.store.tags.get(name.toLowerCase()) === name ? name : undefined;
}

function showTag(world: World, call: Call, name: string): Record<string, unknown> {
  const droplets = dropletsByTag(world, name, nowMs(world));
  const last = droplets.at(-1);
  const metadata = {
    count: droplets.length,
    ...(last === undefined ? {} : { last_tagged_uri: `${call.origin}/v2/droplets/${last.id}` }),
  };
  const none = { count: 0 };
  return {
    name,
    resources: { ...metadata, droplets: metadata, images: none, volumes: none, volume_snapshots: none, databases: none },
  };
}
