// What a process and the guard of its embedded Postgres say to each other over their channel. Each request carries a
// number, and is answered once, under the same number.

/** How Postgres is told to end: `fast` breaks connections and checkpoints, `immediate` is a crash with recovery at the next start. */
export type ShutdownMode = 'fast' | 'immediate';

/** What the guard has to know to make a server. */
export type ServerSpec = {
  /** The folder that holds `bin`, `lib` and `share` of Postgres. */
  readonly nativeDir: string;
  /** The npm package that `nativeDir` came from, for messages. */
  readonly packageName: string;
  /** A folder that keeps the data. Without it, the data lives and dies with the guard's own temporary folder. */
  readonly dataDir: string | undefined;
  /** A fixed port. Without it, any free one. */
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

/** Where the server is to be found. `folder` is the guard's temporary folder; `dataDir` holds the data. */
export type ServerPlace = { readonly port: number; readonly pid: number; readonly dataDir: string; readonly folder: string };

export type GuardReply =
  | { readonly kind: 'done'; readonly id: number; readonly place: ServerPlace | undefined }
  | { readonly kind: 'failed'; readonly id: number; readonly message: string }
  | { readonly kind: 'log'; readonly line: string };
