// Reads a list of the DigitalOcean API page by page. From a response's links it trusts only the number of the next page.

import { z } from 'zod';

export type ListOptions<T> = {
  /** Sent with every page. */
  readonly params?: Readonly<Record<string, string | number>>;
  readonly itemSchema: z.ZodType<T>;
  /**
   * Called after each failed read, with the number of consecutive failures of that page. If it resolves, the page is read
   * again. If it throws, the list ends with that error. Without it, the first error ends the list.
   */
  readonly beforeRetry?: (error: unknown, failures: number) => Promise<void>;
  /** Called after the last page with the least number of items that the list should have had; see `fewestOf`. */
  readonly onEnd?: (fewest: number) => void;
};

type PageSource = {
  /** Reads one page; throws if it does not match the schema. */
  readonly readPage: <Page>(params: Record<string, string | number>, schema: z.ZodType<Page>) => Promise<Page>;
  /** Creates the error for an impossible response. */
  readonly invalidAnswer: (why: string) => Error;
};

/** DigitalOcean's largest page size. */
export const ITEMS_PER_PAGE = 200;
// 100,000 items: more than an account holds, but a limit for a server whose list never ends.
const MAX_PAGES = 500;

const identified = z.object({ id: z.union([z.number(), z.string()]) });

/**
 * Yields the pages of the list under `key`. An item with an `id` appears only once, even if it moves to the next page
 * while the list is read. A single item that does not match the schema fails the whole page: a list that silently lacks a
 * droplet is worse than none. (An item that moves to a page already read is still missed. A list proves presence, not
 * absence.)
 */
export async function* readPages<T>(source: PageSource, key: string, options: ListOptions<T>): AsyncGenerator<T[], void> {
  const schema = pageSchema(key, options.itemSchema);
  const seen = new Set<number | string>();
  const totals: number[] = [];
  let repeated = 0;

  for (let page = 1; page <= MAX_PAGES; page++) {
    const answer = await withRetries(() => source.readPage({ ...options.params, page, per_page: ITEMS_PER_PAGE }, schema), options.beforeRetry);
    const items = answer.items.filter((item) => isNew(item, seen));
    repeated += answer.items.length - items.length;
    if (answer.total !== null) totals.push(answer.total);
    yield items;

    if (answer.next === null) {
      options.onEnd?.(fewestOf(totals, repeated));
      return;
    }
    if (readPageNumber(answer.next) !== page + 1) throw source.invalidAnswer(`page ${page} names a next page other than ${page + 1}`);
  }
  throw source.invalidAnswer(`the list does not end after ${MAX_PAGES} pages`);
}

/**
 * Computes the least number of items of a whole list from its pages' `meta.total`: the smallest of them, less what moved past
 * the reader at most, because items were created or deleted meanwhile. Each change of the total, and each repeated item, shows
 * such a move.
 */
function fewestOf(totals: readonly number[], repeated: number): number {
  if (totals.length === 0) return 0;
  const moves = totals.map((total, index) => Math.abs(total - (totals[index - 1] ?? total)));
  return Math.max(0, Math.min(...totals) - moves.reduce((sum, move) => sum + move, repeated));
}

/** Runs an operation until it succeeds, or until `beforeRetry` throws. */
export async function withRetries<T>(operation: () => Promise<T>, beforeRetry?: (error: unknown, failures: number) => Promise<void>): Promise<T> {
  for (let failures = 1; ; failures++) {
    try {
      return await operation();
    } catch (error) {
      if (beforeRetry === undefined) throw error;
      await beforeRetry(error, failures);
    }
  }
}

function pageSchema<T>(key: string, itemSchema: z.ZodType<T>) {
  const items = z.object({ [key]: z.array(itemSchema) });
  const pages = z.object({ next: z.string().nullish() }).nullish();
  const links = z.object({ links: z.object({ pages }).nullish() });
  const meta = z.object({ meta: z.object({ total: z.int().nonnegative() }).nullish().catch(null) });
  return z.intersection(z.intersection(items, links), meta).transform((body) => ({
    items: body[key] ?? [],
    next: body.links?.pages?.next ?? null,
    total: body.meta?.total ?? null,
  }));
}

function isNew(item: unknown, seen: Set<number | string>): boolean {
  const parsed = identified.safeParse(item);
  if (!parsed.success) return true;
  const before = seen.size;
  seen.add(parsed.data.id);
  return seen.size > before;
}

// `next` is an absolute URL. Its host and path are never followed, because the token would go to that host.
function readPageNumber(next: string): number | null {
  const page = URL.parse(next, 'http://unused.invalid')?.searchParams.get('page');
  return page !== null && page !== undefined && /^\d{1,9}$/.test(page) ? Number(page) : null;
}
