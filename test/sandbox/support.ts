// What the sandbox's tests share: a sandbox for the length of one test, and a plain HTTP call to it.
import { onTestFinished } from 'vitest';
import { type Sandbox, type SandboxOptions, startSandbox } from '../../src/sandbox/server.ts';

/** The parts of API bodies that the tests look at; which of them are there is what they test. */
export type Body = {
  id: string;
  message: string;
  request_id: string;
  droplet: Droplet;
  droplets: Droplet[];
  action: Action;
  actions: Action[];
  tag: Tag;
  tags: Tag[];
  snapshots: { id: string | number; name: string }[];
  vpc: Vpc;
  vpcs: Vpc[];
  members: { urn: string; name: string }[];
  ssh_key: { id: number; fingerprint: string; public_key: string; name: string };
  sizes: { slug: string; gpu_info?: unknown }[];
  regions: { slug: string; sizes: string[] }[];
  images: { slug: string | null }[];
  image: { id: number; slug: string };
  account: { droplet_limit: number };
  links: { pages?: { first?: string; prev?: string; next?: string; last?: string }; actions: { id: number; rel: string; href: string }[] };
  meta: { total: number };
};
export type Droplet = {
  id: number;
  name: string;
  status: string;
  tags: string[];
  size_slug: string;
  created_at: string;
  region: { slug: string };
  image: { slug: string };
  networks: { v4: { ip_address: string; type: string }[]; v6: unknown[] };
};
type Vpc = { id: string; name: string; region: string; description: string };
type Action = { id: number; type: string; status: string; resource_id: number; completed_at: string | null };
type Tag = { name: string; resources: { droplets: { count: number } } };

export type Reply = { status: number; headers: Headers; text: string; body: Body };

export const aDroplet = { name: 'web-1', size: 's-1vcpu-1gb', image: 'debian-12-x64', region: 'nyc3' };

/** Starts a sandbox that is closed when the test ends. */
export async function openSandbox(options: SandboxOptions = {}): Promise<Sandbox> {
  const sandbox = await startSandbox(options);
  onTestFinished(() => sandbox.close());
  return sandbox;
}

/** One request. Rejects when the connection breaks or `timeoutMs` has passed. */
export async function call(
  sandbox: Sandbox,
  method: string,
  path: string,
  options: { body?: unknown; token?: string; timeoutMs?: number } = {},
): Promise<Reply> {
  const response = await fetch(sandbox.url + path, {
    method,
    headers: { authorization: `Bearer ${options.token ?? 'token'}` },
    signal: AbortSignal.timeout(options.timeoutMs ?? 10_000),
    ...(options.body === undefined ? {} : { body: JSON.stringify(options.body) }),
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, text, body: parse(text) };
}

/** Creates a droplet and returns the answer's. Throws unless it was accepted. */
export async function create(sandbox: Sandbox, fields: Record<string, unknown> = {}): Promise<Droplet> {
  const reply = await call(sandbox, 'POST', '/v2/droplets', { body: { ...aDroplet, ...fields } });
  if (reply.status !== 202) throw new Error(`create was answered ${reply.status} ${reply.text}`);
  return reply.body.droplet;
}

/** Names of the droplets that a list shows. */
export async function listNames(sandbox: Sandbox, query = ''): Promise<string[]> {
  const reply = await call(sandbox, 'GET', `/v2/droplets${query}`);
  if (reply.status !== 200) throw new Error(`list was answered ${reply.status} ${reply.text}`);
  return reply.body.droplets.map((droplet) => droplet.name);
}

export async function read(sandbox: Sandbox, id: number): Promise<Reply> {
  return await call(sandbox, 'GET', `/v2/droplets/${id}`);
}

/** Asks again and again until the answer is there, for at most ten seconds. */
export async function until<T>(what: string, ask: () => Promise<T | undefined>): Promise<T> {
  const deadline = Date.now() + 10_000;
  while (Date.now() < deadline) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`waited ten seconds in vain until ${what}`);
}

function parse(text: string): Body {
  try {
    return JSON.parse(text);
  } catch {
    // The test looks at the text then; anything it wants of the body is undefined.
    return JSON.parse('{}');
  }
}
