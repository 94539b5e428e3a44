// The calls of /v2/tags.
import type { Answer, Call } from './answer.ts';
import { notFound, pageAnswer } from './answer.ts';
import { invalidTagMessage, isValidTag } from './create-request.ts';
import { dropTag, learnTag } from './droplet-store.ts';
import { dropletsByTag } from './droplet-routes.ts';
import { isObject } from './json.ts';
import { nowMs, type World } from './world.ts';

/** GET /v2/tags */
export function listTags(world: World, call: Call): Answer {
  const names = [...world.store.tags.values()].toSorted();
  return pageAnswer(call, 'tags', names, (name) => showTag(world, call, name), world.faultBox.settings.nextHost);
}

/** POST /v2/tags: a known tag keeps its spelling. */
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

/** DELETE /v2/tags/:name: its droplets live on without it. */
export function deleteTag(world: World, call: Call): Answer {
  const name = canonicalTag(world, call);
  if (name === undefined) return notFound(call);
  dropTag(world.store, name);
  return { status: 204 };
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
