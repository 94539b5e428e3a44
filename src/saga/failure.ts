// Why a step failed.

/** Why a step failed. What can be retried is retried, with back-off, as often as the policy allows. */
export type Failure = Readonly<{
  code: string;
  message: string;
  retryable: boolean;
  /** What is in the way may stay there for hours: the attempts drift further apart than those of other failures. */
  patient?: true;
  /** A forward-only step declined before it changed anything: there is nothing for a person to finish. */
  nothingDone?: true;
  /** Thrown by the `send` of `once`: the request surely had no effect. */
  sent?: false;
}>;
