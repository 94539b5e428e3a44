import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { clientOf, dropletJson, errorOf, sendJson, startServer, type TestServer } from './support.ts';

const itemSchema = z.object({ id: z.int() });

/** Serves the pages given, each naming the next one in the way of the API, or as `next` says. */
function servePages(pages: unknown[][], next = (page: number) => `https://api.digitalocean.com/v2/droplets?page=${page}`): Promise<TestServer> {
  return startServer(({ url }, response) => {
    const page = Number(url.searchParams.get('page'));
    const links = page < pages.length ? { pages: { next: next(page + 1) } } : {};
    sendJson(response, 200, { droplets: pages[page - 1] ?? [], links, meta: { total: pages.flat().length } });
  });
}

const ids = (items: { id: number }[]) => items.map(({ id }) => id);

describe('a list', () => {
  test('is read to its last page, 200 a page, with the parameters on every page', async () => {
    const server = await servePages([[dropletJson(1)], [dropletJson(2)], [dropletJson(3)]]);

    expect(ids(await clientOf(server).listDropletsByTag('arcadia-saga-0a1b2c3d'))).toEqual([1, 2, 3]);
    expect(server.received.map(({ url }) => Object.fromEntries(url.searchParams))).toEqual(
      [1, 2, 3].map((page) => ({ tag_name: 'arcadia-saga-0a1b2c3d', page: String(page), per_page: '200' })),
    );
  });

  test('can be asked for by name or type', async () => {
    const server = await servePages([[]]);
    await clientOf(server).listDroplets({ name: 'web-1' });
    await clientOf(server).listDroplets({ type: 'gpus' });
    await clientOf(server).listDroplets();
    expect(server.received.map(({ url }) => url.search)).toEqual([
      '?name=web-1&page=1&per_page=200', '?type=gpus&page=1&per_page=200', '?page=1&per_page=200',
    ]);
  });

  test('takes only the page number from a next link, and never contacts the host it names', async () => {
    const elsewhere = await servePages([[]]);
    const server = await servePages([[dropletJson(1)], [dropletJson(2)]], (page) => `${elsewhere.url}/evil?page=${page}&tag_name=other`);

    expect(ids(await clientOf(server).listDropletsByTag('mine'))).toEqual([1, 2]);
    expect(elsewhere.received).toEqual([]);
    expect(server.received[1]?.url.pathname).toBe('/v2/droplets');
    expect(server.received[1]?.url.searchParams.get('tag_name')).toBe('mine');
  });

  test.each([
    ['does not advance', 'https://api.digitalocean.com/v2/droplets?page=1'],
    ['goes back', 'https://api.digitalocean.com/v2/droplets?page=0'],
    ['leaves a page out', 'https://api.digitalocean.com/v2/droplets?page=3'],
    ['names no page', 'https://api.digitalocean.com/v2/droplets'],
    ['is not a number', 'https://api.digitalocean.com/v2/droplets?page=two'],
    ['is not a URL', 'http://['],
  ])('fails when its next link %s', async (_title, next) => {
    const server = await servePages([[dropletJson(1)], [dropletJson(2)]], () => next);
    expect(await errorOf(clientOf(server).listDroplets())).toMatchObject({ kind: 'later', code: 'invalid_answer' });
    expect(server.received).toHaveLength(1);
  });

  test('fails when it never ends', async () => {
    const server = await startServer(({ url }, response) => {
      sendJson(response, 200, { items: [], links: { pages: { next: `/x?page=${Number(url.searchParams.get('page')) + 1}` } } });
    });
    const error = await errorOf(clientOf(server).listPaginated('/v2/items', 'items', { itemSchema }));
    expect(error).toMatchObject({ kind: 'later', code: 'invalid_answer' });
    expect(server.received).toHaveLength(500);
  });

  test('has an item once that moved to the next page meanwhile', async () => {
    const server = await servePages([[dropletJson(1), dropletJson(2)], [dropletJson(2), dropletJson(3)]]);
    expect(ids(await clientOf(server).listDroplets())).toEqual([1, 2, 3]);
  });

  test('keeps items without an id', async () => {
    const server = await startServer((_, response) => sendJson(response, 200, { sizes: [{ slug: 'a' }, { slug: 'b' }] }));
    const sizes = await clientOf(server).listPaginated('/v2/sizes', 'sizes', { itemSchema: z.object({ slug: z.string() }) });
    expect(sizes).toEqual([{ slug: 'a' }, { slug: 'b' }]);
  });

  test.each([
    ['one item has no id', { droplets: [dropletJson(1), dropletJson(undefined)] }],
    ['one item has a string for an id', { droplets: [dropletJson(1), dropletJson('2')] }],
    ['one item is null', { droplets: [dropletJson(1), null] }],
    ['it is not a list', { droplets: {} }],
    ['it is missing', { links: {} }],
    ['its links cannot be read', { droplets: [], links: { pages: { next: 2 } } }],
    ['its links are text', { droplets: [], links: 'none' }],
  ])('fails as a whole when %s', async (_title, body) => {
    const server = await startServer((_, response) => sendJson(response, 200, body));
    expect(await errorOf(clientOf(server).listDroplets())).toMatchObject({ kind: 'later', code: 'invalid_answer', status: 200 });
  });

  test.each([undefined, null, {}, { pages: null }, { pages: {} }, { pages: { next: null } }])('ends when its links are %j', async (links) => {
    const server = await startServer((_, response) => sendJson(response, 200, { droplets: [dropletJson(1)], links }));
    expect(ids(await clientOf(server).listDroplets())).toEqual([1]);
  });

  const shifted = [[1, 2, 3], [3, 4]];
  test.each([
    ['its total', [[1, 2], [3]], [5, 5], 5],
    ['its smallest total, less what was deleted meanwhile', [[1, 2], [3]], [5, 4], 3],
    ['its total, less what moved to the next page', shifted, [4, 4], 3],
    ['nothing, if it names no total', [[1, 2], [3]], [undefined, 'many'], 0],
  ])('should have had at least %s', async (_title, pages, totals, expected) => {
    const server = await startServer(({ url }, response) => {
      const page = Number(url.searchParams.get('page'));
      const links = page < pages.length ? { pages: { next: `/x?page=${page + 1}` } } : {};
      sendJson(response, 200, { items: pages[page - 1]?.map((id) => ({ id })), links, meta: { total: totals[page - 1] } });
    });
    const fewest: number[] = [];
    await clientOf(server).listPaginated('/v2/items', 'items', { itemSchema, onEnd: (count) => fewest.push(count) });
    expect(fewest).toEqual([expected]);
  });

  test('can be read page by page, and no further than wanted', async () => {
    const server = await servePages([[dropletJson(1)], [dropletJson(2)], [dropletJson(3)]]);
    const seen: number[] = [];
    for await (const page of clientOf(server).pages('/v2/droplets', 'droplets', { itemSchema })) {
      seen.push(...ids(page));
      if (seen.length === 2) break;
    }
    expect(seen).toEqual([1, 2]);
    expect(server.received).toHaveLength(2);
  });
});
