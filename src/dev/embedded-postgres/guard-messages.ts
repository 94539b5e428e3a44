// The messages between a process and the guard of its embedded Postgres, over their channel. Each request has a number
// and gets one reply with the same number.

/**
 * How to shut Postgres down: `fast` closes connections and checkpoints; `immediate` is a crash with recovery at the next
 * start.
 */
export type ShutdownMode = 'fast' | 'immediate';

/** What the guard needs to create a server. */
export type ServerSpec = {
  /** The folder that contains Postgres's `bin`, `lib` and `share`. */
  readonly nativeDir: string;
  /** The npm package of `nativeDir`, for messages. */
  readonly packageName: string;
  /** A folder that keeps the data. Without it, the data is in the guard's temporary folder and deleted with it. */
  readonly dataDir: string | undefined;
  /** A fixed port; by default any free one. */
  readonly port: number | undefined;
  readonly password: string;
  readonly settings: Readonly<Record<string, string>>;
};

export type GuardCommand =
  | { readonly kind: 'start'; readonly spec: ServerSpec }
  | { readonly kind: 'restart'; readonly mode: ShutdownMode }
  | { readonly kind: 'kill' }
  | { readonly kind: 'stop' };

export type GuardRequest = { readonly id: number; readonly command: GuardCommand };

/** The location of the server. `folder` is the guard's temporary folder; `dataDir` contains the data. */
export type ServerPlace = { readonly port: number; readonly pid: number; readonly dataDir: string; readonly folder: string };

export type GuardReply =
  | { readonly kind: 'done'; readonly id: number; readonly place: ServerPlace | undefined }
  | { readonly kind: 'failed'; readonly id: number; readonly message: string }
  | { readonly kind: 'log'; readonly line: string };
