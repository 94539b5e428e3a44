// The account's projects, and the droplets assigned to them. An unassigned droplet is in the default project.
import { randomUUID } from 'node:crypto';

/** A project in the API's format. */
export type Project = Readonly<{
  id: string; owner_uuid: string; owner_id: number; name: string; description: string; purpose: string; environment: string; is_default: boolean; created_at: string; updated_at: string;
}>;

export type ProjectStore = { readonly byId: Map<string, Project>; readonly ofDroplet: Map<number, Readonly<{ projectId: string; assignedAtMs: number }>>; readonly owner: { uuid: string; id: number } };

/** Creates an account with only its default project. */
export function createProjectStore(nowMs: number): ProjectStore {
  const store: ProjectStore = { byId: new Map(), ofDroplet: new Map(), owner: { uuid: '5df3e3004a17e242b7c20ca6c9fc25b701a47ece', id: 258_992 } };
  addProject(store, { name: 'first-project', purpose: 'Just trying out DigitalOcean', isDefault: true }, nowMs);
  return store;
}

/** Deletes all projects except the default one. */
export function clearProjects(store: ProjectStore): void {
  for (const { id, is_default: isDefault } of store.byId.values()) if (!isDefault) store.byId.delete(id);
  store.ofDroplet.clear();
}

export function addProject(store: ProjectStore, given: { name: string; purpose: string; description?: string; environment?: string; isDefault?: boolean }, nowMs: number): Project {
  const at = new Date(nowMs).toISOString();
  const project: Project = {
    id: randomUUID(), owner_uuid: store.owner.uuid, owner_id: store.owner.id, name: given.name, description: given.description ?? '', purpose: given.purpose,
    environment: given.environment ?? '', is_default: given.isDefault === true, created_at: at, updated_at: at,
  };
  store.byId.set(project.id, project);
  return project;
}
