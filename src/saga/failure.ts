// Why a step failed.

/** Why a step failed. A retryable failure is retried with backoff, as often as the policy allows. */
export type Failure = Readonly<{
  code: string;
  message: string;
  retryable: boolean;
  /** The cause may last for hours: the delays between attempts grow longer than for other failures. */
  patient?: true;
  /** A forward-only step failed before it changed anything, so there is nothing for a person to finish. */
  nothingDone?: true;
  /** Thrown by the `send` of `once`: the request certainly had no effect. */
  sent?: false;
}>;
