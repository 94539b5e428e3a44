// API responses as data, with those that many routes share: errors in DigitalOcean's words, pages of a list.

/** A route's response to a call. An object body is sent as JSON, a string unchanged; without a body, the response is empty. */
export type Answer = {
  readonly status: number;
  readonly body?: Record<string, unknown> | string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Ids of the droplets that this call created or deleted, for the ledger. */
  readonly made?: readonly number[];
  readonly deleted?: readonly number[];
};

/** A request, as routes receive it. */
export type Call = {
  readonly method: string;
  /** Path without query and trailing slash. */
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly params: Readonly<Record<string, string>>;
  /** The JSON body; undefined if it is missing or unreadable. */
  readonly body: unknown;
  /** The origin that the caller used, such as http://127.0.0.1:4000. */
  readonly origin: string;
  readonly requestId: string;
  readonly token: string | undefined;
};

/** Builds an error body in the API's wording. */
export function errorAnswer(call: Call, status: number, id: string, message: string): Answer {
  return { status, body: { id, message, request_id: call.requestId } };
}

/** 404, for everything that does not exist. */
export function notFound(call: Call): Answer {
  return errorAnswer(call, 404, 'not_found', 'The resource you were accessing could not be found.');
}

/**
 * 501, for what DigitalOcean supports and the sandbox does not. `what` was requested; `instead` is what the sandbox
 * simulates.
 */
export function notImitated(call: Call, what: string, instead: string): Answer {
  return errorAnswer(call, 501, 'not_implemented', `The sandbox does not imitate ${what}. It imitates: ${instead}.`);
}

/** 422, for valid input that is refused. */
export function unprocessable(call: Call, message: string): Answer {
  return errorAnswer(call, 422, 'unprocessable_entity', message);
}

/**
 * Builds one page of a list. `page` counts from 1. `per_page` defaults to 20, at most 200; invalid values are ignored.
 * `links` is empty if everything fits on one page. Its URLs are absolute and keep the query. `nextHost` replaces the host
 * of `next`.
 */
export function pageAnswer<T>(
  call: Call,
  key: string,
  items: readonly T[],
  show: (item: T) => unknown,
  nextHost: string | undefined,
): Answer {
  const perPage = Math.min(200, positiveInteger(call.query['per_page']) ?? 20);
  const page = positiveInteger(call.query['page']) ?? 1;
  const lastPage = Math.max(1, Math.ceil(items.length / perPage));
  const shown = items.slice((page - 1) * perPage, page * perPage);
  return {
    status: 200,
    body: {
      [key]: shown.map((item) => show(item)),
      links: pageLinks(call, page, lastPage, nextHost),
      meta: { total: items.length },
    },
  };
}

function pageLinks(call: Call, page: number, lastPage: number, nextHost: string | undefined): Record<string, unknown> {
  if (lastPage === 1 && page === 1) return {};
  const urlOf = (target: number, origin = call.origin): string => {
    const url = new URL(call.path, origin);
    for (const [name, value] of Object.entries(call.query)) url.searchParams.set(name, value);
    url.searchParams.set('page', String(target));
    return url.href;
  };
  const pages: Record<string, string> = {};
  if (page > 1) {
    pages['first'] = urlOf(1);
    pages['prev'] = urlOf(Math.min(page - 1, lastPage));
  }
  if (page < lastPage) {
    pages['next'] = urlOf(page + 1, nextHost === undefined ? call.origin : originOf(nextHost));
    pages['last'] = urlOf(lastPage);
  }
  return { pages };
}

function originOf(host: string): string {
  return host.includes('://') ? host : `http://${host}`;
}

function positiveInteger(text: string | undefined): number | undefined {
  return text !== undefined && /^[1-9]\d{0,8}$/u.test(text) ? Number(text) : undefined;
}
