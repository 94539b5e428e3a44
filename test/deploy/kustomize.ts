// Builds a kustomization as kustomize does, as far as those of this project need it. What it does not know, it refuses.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { z } from 'zod';

const resource = z.looseObject({ apiVersion: z.string(), kind: z.string(), metadata: z.looseObject({ name: z.string() }) });

/** One Kubernetes object. */
export type Resource = z.infer<typeof resource>;

const kustomization = z.strictObject({
  apiVersion: z.literal('kustomize.config.k8s.io/v1beta1'),
  kind: z.literal('Kustomization'),
  resources: z.array(z.string()),
  images: z.array(z.strictObject({ name: z.string(), newTag: z.string() })).default([]),
  patches: z.array(z.strictObject({ target: z.strictObject({ kind: z.string(), name: z.string() }), patch: z.string() })).default([]),
});
const operations = z.array(z.strictObject({ op: z.literal('remove'), path: z.string().startsWith('/') }));

const read = (file: string): unknown[] => parseAllDocuments(readFileSync(file, 'utf8'), { strict: true, uniqueKeys: true }).map((document) => document.toJS());

/** Builds the kustomization in a folder. */
export function buildKustomization(folder: string): Resource[] {
  const [{ resources, images, patches }] = z.tuple([kustomization]).parse(read(join(folder, 'kustomization.yaml')));
  const built = resources.flatMap((name) => (name.endsWith('.yaml') ? read(join(folder, name)).map((one) => resource.parse(one)) : buildKustomization(join(folder, name))));
  for (const { name, newTag } of images) setTag(built, name, newTag);
  for (const { target, patch } of patches) {
    const found = built.filter(({ kind, metadata }) => kind === target.kind && metadata.name === target.name);
    if (found.length === 0) throw new Error(`${folder}: no resource for the patch of ${target.kind} ${target.name}`);
    for (const { path } of operations.parse(parseAllDocuments(patch)[0]?.toJS())) for (const one of found) remove(one, path.slice(1).split('/'), path);
  }
  const ids = built.map(({ apiVersion, kind, metadata }) => `${apiVersion} ${kind} ${metadata.name}`);
  if (new Set(ids).size < ids.length) throw new Error(`${folder}: a resource is there twice: ${ids.join(', ')}`);
  return built;
}

/** As in JSON Patch, what is to be removed must be there. */
function remove(from: unknown, [key = '', ...rest]: readonly string[], path: string): void {
  if (typeof from !== 'object' || from === null || !(key in from)) throw new Error(`the patch removes ${path}, which is not there`);
  if (rest.length > 0) remove(Reflect.get(from, key), rest, path);
  else Reflect.deleteProperty(from, key);
}

function setTag(value: unknown, name: string, tag: string): void {
  if (typeof value !== 'object' || value === null) return;
  for (const [key, inner] of Object.entries(value)) {
    if (key === 'image' && inner === name) Object.assign(value, { image: `${name}:${tag}` });
    else setTag(inner, name, tag);
  }
}
