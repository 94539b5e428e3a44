// The interface for running Lua scripts in Redis. The owner of the connection implements it.

/** A script. `name` is for messages. Its callers pass every key it uses, so that it also runs on a cluster. */
export type RedisScript = Readonly<{ name: string; lua: string }>;

/** Runs a script in Redis, atomically. Rejects if Redis does not answer. */
export type RunRedisScript = (script: RedisScript, keys: readonly string[], args: readonly (string | number)[]) => Promise<unknown>;
