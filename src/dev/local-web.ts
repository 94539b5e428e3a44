// The web on this machine, for `dev` and `demo --keep`: its address, and the lines that tell people where its pages are.
import { isIPv6 } from 'node:net';
import type { Config } from '../platform/config.ts';
import type { RunningWeb } from '../processes/web.ts';

/** Returns the address by which programs on this machine reach a web on this port. */
export function localUrlOf({ host, basePath }: Pick<Config['web'], 'host' | 'basePath'>, port: number): string {
  const reachable: Readonly<Record<string, string>> = { '0.0.0.0': '127.0.0.1', '::': '::1' };
  const name = reachable[host] ?? host;
  return `http://${isIPv6(name) ? `[${name}]` : name}:${port}${basePath}`;
}

/** Names every page with its address, in a block of aligned lines, and who may log in. Prints no password. */
export function describePages(url: string, pages: RunningWeb['pages'], web: Config['web']): string {
  const width = Math.max(...pages.map(({ text }) => text.length));
  return [`The web: ${url} (${loginOf(web)})`, ...pages.map(({ text, path }) => `  ${text.padEnd(width)}  ${url}${path}`)].join('\n');
}

function loginOf({ person, usersFile, proxyLogin, tokens }: Config['web']): string {
  const ways = [
    ...(person === null ? [] : [`log in as ${person.user} with DASHBOARD_PASSWORD`]),
    ...(usersFile === null ? [] : [`log in as a user of ${usersFile}`]),
    ...(proxyLogin === null ? [] : [`the login is in the header ${proxyLogin.header} of your proxy`]),
    ...(tokens.length === 0 ? [] : [`API token: ${tokens.map(({ name }) => name).join(', ')}`]),
  ];
  return ways.length === 0 ? 'no login' : ways.join('; ');
}
