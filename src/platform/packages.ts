// Checks the optional peer packages. A client needs none of them, so they are not installed with this package. If one is
// missing, the error names the install command.
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { z } from 'zod';
import { ConfigError } from './config-error.ts';
import { errorCodeOf } from './error-code.ts';

/**
 * The purposes of packages. `fleet`: every command but `sandbox` and `hash-password`. `queues`: a client with a queue store.
 * `sandbox`: a standalone sandbox, in tests or as a command. `embedded-postgres`: `demo`, and `dev` and `smoke` without a database.
 */
export type Purpose = 'fleet' | 'queues' | 'sandbox' | 'embedded-postgres';

const manifestSchema = z.object({ peerDependencies: z.record(z.string(), z.string()), devDependencies: z.record(z.string(), z.string()) });
const installedSchema = z.object({ version: z.string() });

const ofQueues = ['@opentelemetry/api', 'bullmq', 'bullmq-otel', 'ioredis', 'pg'];
const ofSandbox = ['fastify'];
const ofEmbeddedPostgres = ['embedded-postgres'];

/**
 * Checks that a purpose's packages are installed in supported versions.
 *
 * @throws {ConfigError} with the command that installs the missing ones
 */
export function requirePackages(...purposes: readonly Purpose[]): void {
  const manifest = readManifest();
  if (manifest === null) return;
  const names = Object.keys(manifest.peerDependencies).filter((name) => purposes.some((purpose) => isFor(purpose, name)));
  const found = names.map((name) => ({ name, range: manifest.devDependencies[name] ?? '*', version: versionOf(name) }));
  const missing = found.filter(({ version }) => version === null);
  const unfit = found.filter(({ version, range }) => version !== null && version !== '' && !isInRange(version, range));
  if (missing.length + unfit.length === 0) return;
  const sentences = [
    ...(missing.length === 0 ? [] : [`Not installed: ${missing.map(({ name }) => name).join(', ')}.`]),
    ...unfit.map(({ name, version, range }) => `${name} ${version} is installed; arcadia-cloud needs ${range}.`),
  ];
  throw new ConfigError(`${sentences.join('\n')}\nRun: npm i ${[...missing, ...unfit].map(({ name, range }) => `${name}@${range}`).join(' ')}`);
}

/** Reads our own package.json; null inside a bundle, which contains the packages. */
function readManifest(): z.infer<typeof manifestSchema> | null {
  try {
    return manifestSchema.parse(JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')));
  } catch {
    return null;
  }
}

function isFor(purpose: Purpose, name: string): boolean {
  if (purpose === 'queues') return ofQueues.includes(name);
  if (purpose === 'sandbox') return ofSandbox.includes(name);
  return ofEmbeddedPostgres.includes(name) === (purpose === 'embedded-postgres');
}

/** Returns the version that an import would load: empty if unknown, null if not installed. */
function versionOf(name: string): string | null {
  const require = createRequire(import.meta.url);
  const path = require.resolve.paths(name)?.map((folder) => join(folder, name, 'package.json')).find((candidate) => existsSync(candidate));
  if (path !== undefined) return installedSchema.parse(JSON.parse(readFileSync(path, 'utf8'))).version;
  try {
    // A package manager may keep packages elsewhere and hook `require` to find them.
    require.resolve(name);
    return '';
  } catch (error) {
    return errorCodeOf(error) === 'MODULE_NOT_FOUND' ? null : '';
  }
}

/**
 * Whether a version is in a range from package.json: `^1.2.3`, `~1.2.3`, or any. A pre-release counts by its numbers
 * only.
 * npm does not check the ranges of these peers: otherwise it would refuse to install a client next to another version of
 * a package that the client never loads.
 */
export function isInRange(version: string, range: string): boolean {
  const [, kind, ...from] = /^([~^])(\d+)\.(\d+)\.(\d+)/.exec(range) ?? [];
  if (kind === undefined) return true;
  const at = version.split(/[.-]/, 3).map(Number);
  const least = from.map(Number);
  // After a caret, everything behind the first nonzero number may differ; after a tilde, the last number.
  const fixed = kind === '~' ? 2 : least.findIndex((number) => number > 0) + 1;
  const difference = at.map((number, index) => number - (least[index] ?? 0)).findIndex((distance) => distance !== 0);
  return difference === -1 || (difference >= fixed && (at[difference] ?? 0) > (least[difference] ?? 0));
}
