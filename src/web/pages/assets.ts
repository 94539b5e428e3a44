// What the pages load: a style sheet and a script, files of this tree, served as they are. Their addresses carry a digest
// of their content, so that a browser may keep them, and a deploy is seen at once.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { App } from '../app.ts';

type Asset = Readonly<{ path: string; type: string; content: string; url: string }>;

const style = readAsset('pages.css', 'text/css; charset=utf-8');
const script = readAsset('pages.js', 'text/javascript; charset=utf-8');

/** Addresses of the style sheet and of the script. */
export const styleUrl = style.url;
export const scriptUrl = script.url;

/** Adds the files. They are behind the same guard as everything else. */
export function addAssets(app: App): void {
  for (const { path, type, content } of [style, script]) {
    app.get(path, { config: { isForGood: true }, schema: { hide: true } }, async (_request, reply) => reply.type(type).send(content));
  }
}

function readAsset(name: string, type: string): Asset {
  const content = readFileSync(new URL(`assets/${name}`, import.meta.url), 'utf8');
  const path = `/assets/${name}`;
  return { path, type, content, url: `${path}?v=${createHash('sha256').update(content).digest('hex').slice(0, 12)}` };
}
