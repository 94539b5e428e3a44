// `doctor` checks the configuration and the connections, and says how to fix problems. It changes no saga and no droplet.
import { hasInventory } from '../../processes/inventory.ts';
import { packageVersion } from '../../platform/package-version.ts';
import { printable } from '../../platform/text.ts';
import type { App } from '../../saga/app.ts';
import type { Config } from '../../platform/config.ts';
import { problemOfUsersFile } from '../../web/users.ts';
import { write } from '../output.ts';
import { readConfiguration } from './configuration.ts';
import { checkBudget } from './budget.ts';
import { checkDigitalOcean } from './digitalocean.ts';
import type { Check, Finding } from './finding.ts';
import { fail, formatFinding, inOneLine, ok, runChecks } from './finding.ts';
import { checkPostgres } from './postgres.ts';
import { checkQueues } from './queues.ts';

/**
 * @returns 1 if a check fails, else 0
 */
export async function doctorCommand(app: App, options: { json?: boolean }): Promise<number> {
  const { config, findings } = readConfiguration(app, process.env);
  const { databaseUrl, redisNodes, digitalOcean } = config;
  const { token } = digitalOcean;
  const isPlain = !hasInventory(app);
  const checks: Check[] = [
    { name: 'versions', run: () => Promise.resolve([ok('versions', `arcadia-cloud ${packageVersion()}, Node ${process.versions.node}`)]) },
    ...(config.web.usersFile === null ? [] : [{ name: 'users file', run: () => checkUsersFile(config.web) }]),
    ...(databaseUrl === null ? [] : [{ name: 'postgres', run: () => checkPostgres(config, databaseUrl, { isPlain }) }]),
    ...(databaseUrl === null && redisNodes === null ? [] : [{ name: 'queues', run: () => checkQueues(config) }]),
    ...(token === null || databaseUrl === null || isPlain ? [] : [{ name: 'request budget', run: () => checkBudget(config, databaseUrl, token) }]),
    ...(token === null || isPlain ? [] : [{ name: 'digitalocean', run: () => checkDigitalOcean(config, token) }]),
  ];
  const all: Finding[] = printable([...findings, ...(await runChecks(checks))].map(inOneLine));
  const hasFailed = all.some(({ level }) => level === 'fail');
  if (options.json === true) write(JSON.stringify({ ok: !hasFailed, findings: all }));
  else write(all.map(formatFinding).join('\n'));
  return hasFailed ? 1 : 0;
}

async function checkUsersFile(web: Config['web']): Promise<Finding[]> {
  const problem = await problemOfUsersFile(web);
  return [problem === null ? ok('users file', `${web.usersFile} can be used`) : fail('users file', problem, 'Correct the file. A running `web` reads it again within seconds.')];
}
