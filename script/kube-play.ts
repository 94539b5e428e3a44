// Prints deploy/kubernetes/base in a form that `podman kube play` accepts: without kinds that podman does not know, with the Job
// as a Pod, one replica of each Deployment, no probes (podman runs them with curl, which the image lacks) and no ports (podman
// takes them on the machine, where something else may listen).
// Arguments are additional settings for the workers: `node script/kube-play.ts DIGITALOCEAN_API_URL=http://sandbox:4010`.
import { readFileSync } from 'node:fs';
import { parseAllDocuments, stringify } from 'yaml';
import { z } from 'zod';

const base = new URL('../deploy/kubernetes/base/', import.meta.url);
const read = (name: string): unknown[] => parseAllDocuments(readFileSync(new URL(name, base), 'utf8')).map((document) => document.toJS());

const container = z.looseObject({ env: z.array(z.unknown()) }).transform(({ startupProbe: _startup, livenessProbe: _liveness, readinessProbe: _readiness, ports: _ports, ...rest }) => rest);
const template = z.looseObject({ metadata: z.looseObject({}).default({}), spec: z.looseObject({ containers: z.array(container) }) });
const workload = z.looseObject({ kind: z.enum(['Deployment', 'Job']), metadata: z.looseObject({ name: z.string() }), spec: z.looseObject({ template }) });
const configMap = z.looseObject({ kind: z.literal('ConfigMap') });

const [{ resources }] = z.tuple([z.object({ resources: z.array(z.string()) })]).parse(read('kustomization.yaml'));
const added = process.argv.slice(2).map((setting) => ({ name: setting.slice(0, setting.indexOf('=')), value: setting.slice(setting.indexOf('=') + 1) }));

function playable(document: unknown): unknown[] {
  if (configMap.safeParse(document).success) return [document];
  const found = workload.safeParse(document).data;
  if (found === undefined) return [];
  if (found.metadata.name === 'arcadia-worker') for (const one of found.spec.template.spec.containers) one.env.push(...added);
  if (found.kind === 'Deployment') return [{ ...found, spec: { ...found.spec, replicas: 1 } }];
  const { metadata, spec } = found.spec.template;
  return [{ apiVersion: 'v1', kind: 'Pod', metadata: { ...metadata, name: found.metadata.name }, spec }];
}

process.stdout.write(resources.flatMap(read).flatMap(playable).map((document) => stringify(document)).join('---\n'));
