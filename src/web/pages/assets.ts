// The pages' style sheet, scripts and icon, served unchanged from this tree. Their URLs contain a digest of the content, so
// browsers can cache them and a deploy takes effect at once.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { App } from '../app.ts';

type Asset = Readonly<{ path: string; type: string; content: string; url: string }>;

const style = readAsset('pages.css', 'text/css; charset=utf-8');
const script = readAsset('pages.js', 'text/javascript; charset=utf-8');
const tryScript = readAsset('try.js', 'text/javascript; charset=utf-8');
const icon = readAsset('favicon.svg', 'image/svg+xml; charset=utf-8');

/** URLs of the style sheet, the script, the script of the API page and the icon. */
export const styleUrl = style.url;
export const scriptUrl = script.url;
export const tryUrl = tryScript.url;
export const iconUrl = icon.url;

/** Adds the routes of the files. They have the same guard as everything else. */
export function addAssets(app: App): void {
  for (const { path, type, content } of [style, script, tryScript, icon]) {
    app.get(path, { config: { isForGood: true }, schema: { hide: true } }, async (_request, reply) => reply.type(type).send(content));
  }
}

function readAsset(name: string, type: string): Asset {
  const content = readFileSync(new URL(`assets/${name}`, import.meta.url), 'utf8');
  const path = `/assets/${name}`;
  return { path, type, content, url: `${path}?v=${createHash('sha256').update(content).digest('hex').slice(0, 12)}` };
}
