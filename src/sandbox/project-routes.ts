// Routes of /v2/projects. Droplets are the only kind of resource.
import type { Answer, Call } from './answer.ts';
import { notFound, notImitated, pageAnswer, unprocessable } from './answer.ts';
import { exists } from './droplet-state.ts';
import { isObject, listOf, textIn } from './json.ts';
import type { Project } from './project-store.ts';
import { addProject } from './project-store.ts';
import { nowMs, type World } from './world.ts';

const MAX_NAME_LENGTH = 175;
const droplets = /^do:droplet:(\d{1,15})$/u;

/** GET /v2/projects */
export function listProjects(world: World, call: Call): Answer {
  return pageAnswer(call, 'projects', [...world.projects.byId.values()], (project) => project, world.faultBox.settings.nextHost);
}

/** POST /v2/projects */
export function createProject(world: World, call: Call): Answer {
  const [name, purpose] = [textIn(call.body, 'name'), textIn(call.body, 'purpose')];
  if (name === '' || name.length > MAX_NAME_LENGTH) return unprocessable(call, `name must be between 1 and ${MAX_NAME_LENGTH} characters`);
  if (purpose === '') return unprocessable(call, 'purpose is required');
  return { status: 201, body: { project: addProject(world.projects, { name, purpose, description: textIn(call.body, 'description'), environment: textIn(call.body, 'environment') }, nowMs(world)) } };
}

/** GET /v2/projects/:project: `default`, or by id. */
export function getProject(world: World, call: Call): Answer {
  const project = findProject(world, call);
  return project === undefined ? notFound(call) : { status: 200, body: { project } };
}

/** GET /v2/projects/:project/resources */
export function listProjectResources(world: World, call: Call): Answer {
  const project = findProject(world, call);
  if (project === undefined) return notFound(call);
  const own = [...world.store.listed].filter((droplet) => exists(droplet, nowMs(world)) && projectIdOf(world, droplet.id) === project.id);
  return pageAnswer(call, 'resources', own, ({ id }) => showResource(world, call, id, 'ok'), world.faultBox.settings.nextHost);
}

/** POST /v2/projects/:project/resources: moves resources here and reports the status of each. */
export function assignResources(world: World, call: Call): Answer {
  const project = findProject(world, call);
  if (project === undefined) return notFound(call);
  const urns = isObject(call.body) ? listOf(call.body['resources']) : [];
  const other = urns.find((urn) => typeof urn !== 'string' || !droplets.test(urn));
  if (other !== undefined) return notImitated(call, `the resource ${JSON.stringify(other)} in a project`, 'droplets in a project, such as do:droplet:4711');
  const assigned = urns.map((urn) => {
    const id = Number(droplets.exec(String(urn))?.[1]);
    const droplet = world.store.byId.get(id);
    if (droplet === undefined || !exists(droplet, nowMs(world))) return { ...showResource(world, call, id, 'not_found') };
    if (projectIdOf(world, id) === project.id) return showResource(world, call, id, 'already_assigned');
    world.projects.ofDroplet.set(id, { projectId: project.id, assignedAtMs: nowMs(world) });
    return showResource(world, call, id, 'assigned');
  });
  return { status: 200, body: { resources: assigned } };
}

function showResource(world: World, call: Call, id: number, status: string): Record<string, unknown> {
  const assignedAtMs = world.projects.ofDroplet.get(id)?.assignedAtMs ?? world.store.byId.get(id)?.createdAtMs ?? nowMs(world);
  return { urn: `do:droplet:${id}`, assigned_at: new Date(assignedAtMs).toISOString(), links: { self: `${call.origin}/v2/droplets/${id}` }, status };
}

function projectIdOf(world: World, dropletId: number): string | undefined {
  return world.projects.ofDroplet.get(dropletId)?.projectId ?? defaultProject(world)?.id;
}

function findProject(world: World, call: Call): Project | undefined {
  const wanted = call.params['project'] ?? '';
  return wanted === 'default' ? defaultProject(world) : world.projects.byId.get(wanted.toLowerCase());
}

function defaultProject(world: World): Project | undefined {
  return [...world.projects.byId.values()].find(({ is_default: isDefault }) => isDefault);
}
