// What an answer of the DigitalOcean API, or its absence, means: one total function, no I/O. It says what is known
// about the request, not what to do about it.

/** The methods this client uses. */
export type Method = 'GET' | 'POST' | 'DELETE';

/**
 * What is known after one request:
 *
 * - `done`: it did what was asked, and the answer can be used.
 * - `absent`: a GET or DELETE of something that is not there.
 * - `rejected`: refused for what it asks; nothing was made or changed, and the same request will be refused again.
 * - `throttled`: refused for its time; nothing was made or changed.
 * - `unauthorized`: refused for the token, whatever was asked.
 * - `later`: nothing is known, or nothing happened, and the same request may safely be made again.
 * - `ambiguous`: a POST that may or may not have happened. Making it again could make a second droplet.
 */
export type OutcomeKind = 'done' | 'absent' | FailureKind;

/** The outcomes that are thrown, as a `DigitalOceanError`. */
export type FailureKind = 'rejected' | 'throttled' | 'unauthorized' | 'later' | 'ambiguous';

/** What came back for one request. */
export type Reply = Answer | NoAnswer;

export type Answer = {
  readonly status: number;
  /**
   * `valid`: readable, and what the API documents for a success. `html`: a page, so it was a gateway that answered, not
   * the API. `invalid`: anything else, cut off or oversized ones too. Errors need no valid body.
   */
  readonly body: 'valid' | 'invalid' | 'html';
};

export type NoAnswer = {
  readonly status: null;
  /** False only where it is certain that no connection was ready, so that not one byte of the request went out. */
  readonly requestSent: boolean;
};

// A gateway says these of requests that it may already have passed on (408 request timeout, 444, 460 and 499 connection
// closed), or a lock of ones that overlap (409, 423, 425). None is documented for our calls; all of them pass.
const UNSETTLED_4XX: ReadonlySet<number> = new Set([408, 409, 423, 425, 444, 460, 499]);

/**
 * Says what the reply to a request means. Total: every status and every method has an outcome, and where in doubt a
 * POST is `ambiguous` and anything else, being harmless to repeat, is `later`.
 *
 * Statuses: https://docs.digitalocean.com/reference/api/. That a DELETE of a droplet which is still being created is
 * answered 422 "Droplet already has a pending event." is in none of its documents; users of Packer reported it.
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
  // Only a 204 says that the droplet is destroyed. A 200 with some page, from whoever answers there, must not.
  if (method === 'DELETE') return status === 204;
  return status >= 200 && status <= 299 && body === 'valid';
}

function isClientError(status: number): boolean {
  return status >= 400 && status <= 499;
}

// A gateway that lost its way also says 404. To believe it would call a running droplet gone.
function absentUnlessPage(body: Answer['body']): 'absent' | 'later' {
  return body === 'html' ? 'later' : 'absent';
}
