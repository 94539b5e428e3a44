// Classifies a response of the DigitalOcean API, or its absence. One total function without I/O. It says what is known
// about the request, not what to do next.

/** The methods this client uses. */
export type Method = 'GET' | 'POST' | 'DELETE';

/**
 * What is known after one request:
 *
 * - `done`: it succeeded, and the response is usable.
 * - `absent`: a GET or DELETE of something that does not exist.
 * - `rejected`: refused because of its content. Nothing changed, and the same request will be refused again.
 * - `throttled`: refused for now. Nothing changed.
 * - `unauthorized`: refused because of the token.
 * - `later`: nothing is known or nothing happened. The same request can safely be repeated.
 * - `ambiguous`: a POST that may or may not have taken effect. Repeating it could create a second droplet.
 */
export type OutcomeKind = 'done' | 'absent' | FailureKind;

/** The outcomes that are thrown as a `DigitalOceanError`. */
export type FailureKind = 'rejected' | 'throttled' | 'unauthorized' | 'later' | 'ambiguous';

/** The result of one request. */
export type Reply = Answer | NoAnswer;

export type Answer = {
  readonly status: number;
  /**
   * `valid`: readable and as documented for a success. `html`: a page, so a gateway answered and not the API. `invalid`:
   * anything else, including truncated and oversized bodies. An error response needs no valid body.
   */
  readonly body: 'valid' | 'invalid' | 'html';
};

export type NoAnswer = {
  readonly status: null;
  /** False only if no connection was ready for certain, so that not one byte of the request was sent. */
  readonly requestSent: boolean;
};

// A gateway may return these for requests that it already passed on (408 request timeout; 444, 460 and 499 connection
// closed), or to reject overlapping requests (409, 423, 425). None is documented for our calls, and all are temporary.
const UNSETTLED_4XX: ReadonlySet<number> = new Set([408, 409, 423, 425, 444, 460, 499]);

/**
 * Classifies the reply to a request. Total: every status and every method has an outcome. In doubt, a POST is
 * `ambiguous`; any other method is safe to repeat and therefore `later`.
 *
 * Statuses: https://docs.digitalocean.com/reference/api/. The 422 "Droplet already has a pending event." for a DELETE of
 * a droplet that is still being created is undocumented; users of Packer reported it.
 */
export function classify(method: Method, reply: Reply): OutcomeKind {
  const inDoubt = method === 'POST' ? 'ambiguous' : 'later';

  if (reply.status === null) return reply.requestSent ? inDoubt : 'later';
  const { status, body } = reply;

  if (isSuccess(method, status, body)) return 'done';
  if (status === 401 || status === 403) return 'unauthorized';
  if (status === 429) return 'throttled';
  if (!isClientError(status) || UNSETTLED_4XX.has(status)) return inDoubt;

  if (method === 'POST') return 'rejected';
  if (status === 404) return absentUnlessPage(body);
  return method === 'DELETE' && status === 422 ? 'later' : 'rejected';
}

function isSuccess(method: Method, status: number, body: Answer['body']): boolean {
  // Only a 204 confirms that the droplet is destroyed. A 200 with some page from a gateway does not.
  if (method === 'DELETE') return status === 204;
  return status >= 200 && status <= 299 && body === 'valid';
}

function isClientError(status: number): boolean {
  return status >= 400 && status <= 499;
}

// A gateway with a routing failure also returns 404. Believing it would declare a running droplet gone.
function absentUnlessPage(body: Answer['body']): 'absent' | 'later' {
  return body === 'html' ? 'later' : 'absent';
}
