// Lua scripts in Redis, as those see them who write one: who has the connection runs it.

/** A script; `name` is for messages. Every key that it touches is handed over, so that it runs on a cluster too. */
export type RedisScript = Readonly<{ name: string; lua: string }>;

/** Runs a script in Redis, atomically. Rejects when Redis does not answer. */
export type RunRedisScript = (script: RedisScript, keys: readonly string[], args: readonly (string | number)[]) => Promise<unknown>;
