// The entry point `arcadia-cloud/sandbox`: a server that behaves like DigitalOcean's API, for tests in other projects. It
// requires fastify, which is loaded with the first sandbox.
import { requirePackages } from '../platform/packages.ts';
import type { Sandbox, SandboxOptions } from './server.ts';

export type { DropletEdit, DropletLine, Effect, Faults, ForeignDroplet, LedgerEntry, LedgerStatus, LedgerSummary, Rule, Sandbox, SandboxOptions, StateFilter } from './server.ts';
export { SandboxInputError } from './faults.ts';

/**
 * Starts a sandbox with its state in memory and resolves when it listens. Point a client at `${sandbox.url}`, and call
 * `close` when the test ends.
 *
 * @param options all optional; by default any free port, any token, DigitalOcean's rate limits, three seconds until a
 *   droplet is active, and no faults
 * @throws {SandboxInputError} for invalid faults
 * @throws {ConfigError} if fastify is not installed, naming the command that installs it
 */
export async function startSandbox(options: SandboxOptions = {}): Promise<Sandbox> {
  requirePackages('sandbox');
  const server = await import('./server.ts');
  return server.startSandbox(options);
}
